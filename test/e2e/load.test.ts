import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { Prng } from '../../src/base/prng.ts';
import { onBothReactors } from './support/both.ts';
import { succeed } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';
import { NbdClient } from './support/nbd-client.ts';

const LOAD = resolve(import.meta.dirname, '../../bench/load/main.ts');

interface LoadReport {
  readonly structured: boolean;
  readonly operationsPerSecond: number;
  readonly latencyUs: { readonly p50: number; readonly p99: number };
}

onBothReactors("the benchmark's own client gets its answers", [], async (t, reactor) => {
  const server = await startHoldfast(t, [makeImage(workspace(t), 32, 32)], { reactor });
  const load = async (...args: string[]): Promise<LoadReport> =>
    JSON.parse(
      await succeed([
        process.execPath,
        LOAD,
        `--socket=${server.socket}`,
        '--seconds=0.3',
        '--warmup=0.1',
        ...args,
      ]),
    ) as LoadReport;
  for (const mode of ['randread', 'randwrite', 'read', 'write', 'flush', 'fua']) {
    const report = await load(`--mode=${mode}`, '--connections=8', '--depth=16', '--bs=16k');
    assert.ok(report.structured, mode);
    assert.ok(report.operationsPerSecond > 10, `${mode}: ${report.operationsPerSecond}`);
    assert.ok(report.latencyUs.p50 > 0 && report.latencyUs.p99 >= report.latencyUs.p50, mode);
  }
  const [counters] = await server.stop();
  assert.equal(counters?.failed, 0);
});

/** Large writes come in pieces that lie in several buffers; connections being set up must not disturb them. */
onBothReactors('writes arrive whole while other clients come and go', [], async (t, reactor) => {
  const block = 192 * 1024;
  const places = 64;
  const server = await startHoldfast(t, [makeImage(workspace(t), 16)], { reactor });
  const random = new Prng(3);
  const over = new AbortController();
  const strangers = Array.from({ length: 4 }, async () => {
    while (!over.signal.aborted) {
      const stranger = await NbdClient.connect(server.socket);
      await stranger.read(0, 512);
      await stranger.close();
    }
  });
  const writers = Array.from({ length: 4 }, async (_, own) => {
    const client = await NbdClient.connect(server.socket);
    for (let round = 0; round < 12; round += 1) {
      const pending: Promise<void>[] = [];
      const expected = new Map<number, Buffer>();
      for (let i = own; i < places; i += 4) {
        const data = Buffer.alloc(block, random.uint32() & 0xff);
        data.writeUInt32LE(round * places + i, block - 4);
        expected.set(i * block, data);
        pending.push(client.write(i * block, data));
      }
      await Promise.all(pending);
      for (const [offset, data] of expected) {
        assert.ok((await client.read(offset, block)).equals(data), `at ${offset}, round ${round}`);
      }
    }
    await client.close();
  });
  try {
    await Promise.all(writers);
  } finally {
    over.abort();
  }
  await Promise.all(strangers);
  const [counters] = await server.stop();
  assert.equal(counters?.failed, 0, server.stderr);
});
