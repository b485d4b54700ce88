import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { run } from './support/command.ts';
import type { CommandResult } from './support/command.ts';
import { makeImage, workspace } from './support/holdfast.ts';
import { peerTool, requiresPeers } from './support/peers.ts';
import { startVhostUser } from './support/vhost-user.ts';

const LIMIT_MS = 120_000;
const options = { ...requiresPeers(), timeout: LIMIT_MS };

/** QEMU's libblkio driver asks for cache.direct=on: it cannot do without. */
function blkio(socket: string): string {
  return `driver=virtio-blk-vhost-user,path=${socket},cache.direct=on`;
}

/** One of the newest QEMU's tools, which has to succeed. */
async function qemu(name: string, ...args: readonly string[]): Promise<CommandResult> {
  const { command, env } = peerTool(name);
  const result = await run([...command, ...args], { env });
  assert.equal(result.status, 0, `${args.join(' ')}\n${result.stdout}${result.stderr}`);
  return result;
}

test('libblkio: qemu-img converts an image into the disk and out of it', options, async (t) => {
  const folder = workspace(t);
  const source = makeImage(folder, 48, 20, 'source.img');
  const target = makeImage(folder, 48, 0, 'target.img');
  const out = join(folder, 'out.img');
  const server = await startVhostUser(t, [target]);
  const disk = blkio(server.socket);
  // Its own default for the target is unsafe: no flush.
  const into = ['-n', '-t', 'none', '-f', 'raw', '--target-image-opts', source, disk];
  await qemu('qemu-img', 'convert', ...into);
  await qemu('qemu-img', 'convert', '--image-opts', '-O', 'raw', disk, out);
  const wanted = readFileSync(source);
  assert.ok(wanted.equals(readFileSync(target)), 'what went in');
  assert.ok(wanted.equals(readFileSync(out)), 'what came out');
  const info = await qemu('qemu-img', 'info', '--image-opts', disk);
  assert.match(info.stdout, /virtual size: 48 MiB/);
  const [counters] = await server.stop();
  assert.equal(counters?.failed, 0);
  assert.ok((counters?.flushesAsked ?? 0) > 0, 'qemu-img flushes what it has written');
  assert.equal(counters?.unstableWrites, 0);
});

test('libblkio: qemu-io writes, flushes, discards and reads back', options, async (t) => {
  const folder = workspace(t);
  const image = makeImage(folder, 16);
  const server = await startVhostUser(t, [image]);
  const io = async (...commands: string[]): Promise<void> => {
    const args = commands.flatMap((command) => ['-c', command]);
    const said = await qemu('qemu-io', '-t', 'none', '--image-opts', blkio(server.socket), ...args);
    assert.doesNotMatch(said.stdout + said.stderr, /fail|error|pattern ver/i);
  };
  const first = await server.counter();
  await io('write -P 0x41 0 64k', 'write -P 0x42 1M 3M', 'flush');
  const second = await server.counter();
  assert.equal(second.unstableWrites, 0, 'P1: the flush has covered the writes');
  assert.ok(second.flushesAsked > first.flushesAsked && second.syncs > first.syncs);
  await io('write -z 2M 1M', 'discard 0 64k', 'write -f -P 0x43 8M 4k');
  await io('read -P 0 0 64k', 'read -P 0x42 1M 1M', 'read -P 0 2M 1M', 'read -P 0x42 3M 1M');
  await io('read -P 0x43 8M 4k', 'aio_write -P 0x44 9M 512k', 'aio_flush', 'read -P 0x44 9M 512k');
  const [counters] = await server.stop();
  assert.equal(counters?.failed, 0, server.stderr);
  assert.ok((counters?.zeroes ?? 0) > 0 && (counters?.discards ?? 0) > 0);
});

test('libblkio: qemu-img bench, a write load with flushes at depth', options, async (t) => {
  const folder = workspace(t);
  const image = makeImage(folder, 32);
  const server = await startVhostUser(t, [image]);
  const load = ['-c', '4000', '-d', '32', '-s', '4096', '-S', '8192', '-w', '--pattern=0x5a'];
  const disk = ['-t', 'none', '--image-opts', blkio(server.socket)];
  await qemu('qemu-img', 'bench', ...load, '--flush-interval=200', '--no-drain', ...disk);
  const [counters] = await server.stop();
  assert.equal(counters?.writes, 4000);
  assert.ok((counters?.flushesAsked ?? 0) >= 19, JSON.stringify(counters));
  assert.equal(counters?.failed, 0);
  const bytes = readFileSync(image);
  for (let i = 0; i < 4000; i += 1) {
    const at = (i * 8192) % bytes.length;
    assert.equal(bytes.readUInt32LE(at), 0x5a5a5a5a, `write ${i}`);
  }
});
