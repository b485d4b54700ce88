import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import { onBothReactors } from './support/both.ts';
import { killGroup, until } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';
import { FLAG, NbdClient } from './support/nbd-client.ts';
import { tool } from './support/requires.ts';

const BLOCK = 4096;
const BLOCKS = 512;
const CLIENTS = 8;

/** One block of the ledger: which write it is meant to hold, in every word so that a torn one shows. */
function stamp(block: number, version: number): Buffer {
  const bytes = Buffer.alloc(BLOCK);
  for (let i = 0; i < BLOCK; i += 8) {
    bytes.writeUInt32LE(block, i);
    bytes.writeUInt32LE(version, i + 4);
  }
  return bytes;
}

/** What clients know about the disk: which version each block was sent, and which is stable for certain. */
class Ledger {
  readonly sent = new Uint32Array(BLOCKS);
  readonly acknowledged = new Uint32Array(BLOCKS);
  readonly stable = new Uint32Array(BLOCKS);
}

/** Writes its own blocks, flushes now and then, and takes down what the server promised, until the server dies. */
async function work(socket: string, ledger: Ledger, own: number, seed: number): Promise<number> {
  const client = await NbdClient.connect(socket);
  const random = new Prng(seed);
  let promises = 0;
  try {
    for (;;) {
      const writes: Promise<void>[] = [];
      const used = new Set<number>();
      for (let i = 0; i < 8; i += 1) {
        // Each block belongs to one client: no two writes of one block are ever in flight together.
        const block = random.below(BLOCKS / CLIENTS) * CLIENTS + own;
        if (used.has(block)) continue;
        used.add(block);
        const version = (ledger.sent[block] as number) + 1;
        ledger.sent[block] = version;
        const fua = random.chance(0.1);
        const write = client.write(block * BLOCK, stamp(block, version), fua ? FLAG.FUA : 0);
        writes.push(
          write.then(() => {
            ledger.acknowledged[block] = version;
            if (fua) ledger.stable[block] = version;
          }),
        );
      }
      await Promise.all(writes);
      const covered = ledger.acknowledged.slice();
      await client.flush();
      promises += 1;
      // [NBD proto "Ordering"]: the flush covers every write that was answered before it was sent, on any connection.
      for (let i = 0; i < BLOCKS; i += 1) {
        ledger.stable[i] = Math.max(ledger.stable[i] as number, covered[i] as number);
      }
    }
  } catch {
    // The server is gone: what the test is about.
    client.destroy();
    return promises;
  }
}

async function check(socket: string, ledger: Ledger, round: number): Promise<void> {
  const client = await NbdClient.connect(socket);
  for (let block = 0; block < BLOCKS; block += 1) {
    const bytes = await client.read(block * BLOCK, BLOCK);
    const version = bytes.readUInt32LE(4);
    const name = `round ${round}, block ${block}`;
    if (version !== 0) assert.ok(bytes.equals(stamp(block, version)), `${name} is torn`);
    assert.ok(version >= (ledger.stable[block] as number), `${name}: stable, and lost`);
    assert.ok(version <= (ledger.sent[block] as number), `${name}: from nowhere`);
    // What is there now is what counts from here on.
    ledger.sent[block] = version;
    ledger.acknowledged[block] = version;
    ledger.stable[block] = version;
  }
  await client.close();
}

for (const cache of ['writeback', 'none', 'writethrough'] as const) {
  onBothReactors(
    `kill -9 under load, cache=${cache}: everything flushed is there`,
    [],
    async (t, reactor) => {
      const folder = workspace(t);
      const image = makeImage(folder, 8);
      const socket = join(folder, 'nbd.sock');
      const ledger = new Ledger();
      for (let round = 0; round < 3; round += 1) {
        const server = await startHoldfast(t, [image, '--cache', cache], { reactor, socket });
        await check(socket, ledger, round);
        const workers = Array.from({ length: CLIENTS }, (_, own) =>
          work(socket, ledger, own, round * CLIENTS + own),
        );
        await sleep(400 + round * 150);
        await server.kill();
        const promises = await Promise.all(workers);
        const total = promises.reduce((sum, count) => sum + count, 0);
        assert.ok(total > 20, `too little load to mean anything: ${total} flushes`);
      }
      const server = await startHoldfast(t, [image, '--cache', cache], { reactor, socket });
      await check(socket, ledger, 3);
      await server.stop();
    },
  );
}

onBothReactors(
  'QEMU reconnects to the restarted server and goes on',
  ['qemu-io'],
  async (t, reactor) => {
    const folder = workspace(t);
    const image = makeImage(folder, 16);
    const socket = join(folder, 'nbd.sock');
    const first = await startHoldfast(t, [image], { reactor, socket });
    const node = `driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=${socket},file.reconnect-delay=30`;
    const io = spawn(tool('qemu-io'), ['--image-opts', '-t', 'none', node], {
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    t.after(() => killGroup(io.pid, 'SIGKILL'));
    let said = '';
    for (const stream of [io.stdout, io.stderr]) {
      stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
    }
    // One line at a time: qemu-io polls its input and would not see lines that stdio has read already.
    let prompts = 0;
    const prompt = async (): Promise<void> => {
      prompts += 1;
      await until(`prompt ${prompts} of qemu-io`, 40_000, () =>
        (said.match(/qemu-io> /g) ?? []).length >= prompts ? true : null,
      ).catch((error: Error) => {
        throw new Error(`${error.message}\n${said}`);
      });
    };
    const command = async (line: string): Promise<void> => {
      io.stdin.write(`${line}\n`);
      await prompt();
    };
    await prompt();
    for (const line of ['write -P 0x41 0 64k', 'flush', 'write -P 0x42 64k 64k']) {
      await command(line);
    }
    await first.kill();
    // Sent while nobody listens: waits for the server to come back.
    const waiting = command('read -P 0x41 0 64k');
    await sleep(300);
    const second = await startHoldfast(t, [image], { reactor, socket });
    await waiting;
    for (const line of [
      'read -P 0x42 64k 64k',
      'write -P 0x43 128k 64k',
      'flush',
      'read -P 0x43 128k 64k',
    ]) {
      await command(line);
    }
    const closed = new Promise((resolve) => io.once('close', resolve));
    io.stdin.end('quit\n');
    const code = await closed;
    assert.equal(code, 0, said);
    assert.doesNotMatch(said, /failed|error|Pattern/i, said);
    await second.stop();
  },
);
