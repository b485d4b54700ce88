import assert from 'node:assert/strict';
import { existsSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { Prng } from '../../base/prng.ts';
import { KiB, MiB } from '../../base/units.ts';
import { flush, write } from '../../block/await.ts';
import { OP } from '../../block/io.ts';
import { connectNbd } from '../../protocols/nbd/client.ts';
import { openReactor } from '../../reactor/open.ts';
import { openTrace } from '../../trace/reader.ts';
import { NEVER, type Trace } from '../../trace/trace.ts';
import { holdfast, scratch, start, type Program } from '../testing.ts';

// `serve --record` and `lab mark` as processes.

test('serve --record, lab mark: a trace with marks, dated when they were made', async (t) => {
  const directory = scratch(t);
  const trace = join(directory, 'x.trace');
  const control = join(directory, 'control');
  const [program, uri] = await recording(t, 'memory:1M', '--record', trace, '--control', control);
  const { reactor } = await openReactor('portable');
  const client = await connectNbd(reactor, uri);
  await write(client, 0, new Uint8Array(512).fill(1));
  await flush(client);
  const marking = holdfast(t, 'lab', 'mark', '--ack', 'flushed', '--control', control);
  assert.deepEqual([(await marking).code, (await marking).stdout], [0, '']);
  await write(client, 0, new Uint8Array(512).fill(2));
  assert.equal((await holdfast(t, 'lab', 'mark', 'note this', '--control', control)).code, 0);
  await client.close();
  await reactor.close();
  program.kill('SIGTERM');
  assert.equal((await program.ended).code, 0);
  const opened = openTrace(trace);
  assert.deepEqual(
    opened.marks.map(({ kind, text, event }) => `${event} ${kind} ${text}`),
    ['4 ack flushed', '7 note note this'],
  );
  assert.deepEqual([...opened.requests.op], [OP.WRITE, OP.FLUSH, OP.WRITE, OP.FLUSH]);
  assert.ok(opened.complete);
  opened.close();
});

test('lab mark without a server that records says what is missing', async (t) => {
  const control = join(scratch(t), 'control');
  const nobody = await holdfast(t, 'lab', 'mark', 'x', '--control', control);
  assert.equal(nobody.code, 69);
  assert.equal((await holdfast(t, 'lab', 'mark', 'x')).code, 2);
  await recording(t, 'memory:1M', '--control', control);
  const refused = await holdfast(t, 'lab', 'mark', 'x', '--control', control);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /nothing is recorded/);
});

test('a trace that is there is not overwritten', async (t) => {
  const trace = join(scratch(t), 'x.trace');
  writeFileSync(trace, 'mine');
  const ended = await holdfast(t, 'serve', 'memory:1M', '-k', '-', '--record', trace);
  assert.match(ended.stderr, /^holdfast: .*x\.trace: a file of this name is there already/m);
  assert.notEqual(ended.code, 0);
  assert.equal(statSync(trace).size, 4);
});

for (const reactorKind of ['io_uring', 'portable']) {
  test(`${reactorKind}: kill -9 under load leaves a trace that can be read, and what it tells is true`, async (t) => {
    const directory = scratch(t);
    const image = join(directory, 'disk.img');
    writeFileSync(image, new Uint8Array(0));
    truncateSync(image, 16 * MiB);
    const path = join(directory, 'x.trace');
    const words = [image, '--record', path, '--reactor', reactorKind];
    const [program, uri] = await recording(t, ...words);
    const { reactor } = await openReactor('portable');
    const clients = await Promise.all([1, 2, 3].map(() => connectNbd(reactor, uri)));
    const done = clients.map(async (client, i) => {
      const prng = new Prng(i + 1);
      try {
        for (;;) {
          const burst = Array.from({ length: 8 }, async () => {
            const length = 4 * KiB * (1 + prng.below(32));
            const offset = 4 * KiB * prng.below((16 * MiB - length) / (4 * KiB));
            await write(client, offset, new Uint8Array(length).fill(1 + prng.below(255)));
          });
          await Promise.all(burst);
          await flush(client);
        }
      } catch {
        await client.close();
      }
    });
    while (!existsSync(path) || statSync(path).size < 8 * MiB) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    program.kill('SIGKILL');
    await Promise.all([program.ended, ...done]);
    await reactor.close();
    const trace = openTrace(path);
    assert.equal(trace.complete, false);
    assert.ok(trace.requests.count > 50);
    checkData(trace);
    trace.close();
  });
}

/** Every write holds one byte all through; at most what was in flight has no end. */
function checkData(trace: Trace): void {
  const { requests } = trace;
  let open = 0;
  for (let i = 0; i < requests.count; i += 1) {
    if (requests.done[i] === NEVER) open += 1;
    if (requests.op[i] !== OP.WRITE) continue;
    const data = new Uint8Array(requests.length[i] as number);
    trace.readData(requests.dataAt[i] as number, data);
    assert.ok(data[0] !== 0 && data.every((byte) => byte === data[0]), `request ${i}`);
  }
  assert.ok(open <= 3 * 8, `${open} requests without an end`);
}

async function recording(t: TestContext, ...words: string[]): Promise<[Program, string]> {
  const program = start(t, 'serve', '--json', '-k', join(scratch(t), 'nbd'), ...words);
  await program.until(/^\{"format":1,.*\}$/m);
  assert.notEqual(program.stdout, '', program.stderr);
  const report = JSON.parse(program.stdout) as { disks: { uris: string[] }[] };
  return [program, report.disks[0]?.uris[0] ?? ''];
}
