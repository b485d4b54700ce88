import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { MiB } from '../../src/base/units.ts';
import { onBothReactors } from './support/both.ts';
import { succeed } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';

/** Runs qemu-io commands; a pattern that does not verify fails it. */
async function qemuIo(uri: string, ...commands: readonly string[]): Promise<string> {
  const flags = commands.flatMap((command) => ['-c', command]);
  const text = await succeed(['qemu-io', '-f', 'raw', '-d', 'unmap', '-t', 'none', ...flags, uri]);
  assert.doesNotMatch(text, /failed|error/i);
  return text;
}

onBothReactors(
  'qemu-io: writes, zeroes and discards read back',
  ['qemu-io'],
  async (t, reactor) => {
    const image = makeImage(workspace(t), 64);
    const server = await startHoldfast(t, [image], { reactor });
    const uri = server.uri();
    await qemuIo(
      uri,
      'write -P 0x11 0 1M',
      'write -P 0x22 512k 4k',
      'write -z 64k 64k',
      'write -z -u 128k 64k',
      'aio_write -P 0x33 2M 1M',
      'aio_write -P 0x44 3M 1M',
      'aio_flush',
      'flush',
      'read -P 0x11 0 64k',
      'read -P 0 64k 128k',
      'read -P 0x22 512k 4k',
      'read -P 0x33 2M 1M',
      'read -P 0x44 3M 1M',
    );
    const full = statSync(image).blocks;
    await qemuIo(uri, 'discard 2M 2M', 'flush', 'read -P 0x11 516k 4k');
    assert.ok(
      statSync(image).blocks * 512 <= full * 512 - 2 * MiB + 8192,
      'discard gives back space',
    );
    const counters = await server.stop();
    assert.ok((counters[0]?.discards ?? 0) >= 1);
    assert.ok((counters[0]?.zeroes ?? 0) >= 2);
  },
);

onBothReactors(
  'qemu-io: FUA is FUA, and a flush is a sync only once',
  ['qemu-io'],
  async (t, reactor) => {
    const image = makeImage(workspace(t), 16);
    const server = await startHoldfast(t, [image], { reactor });
    const uri = server.uri();
    const start = await server.counter();
    await qemuIo(uri, 'write -f -P 0x55 0 4k', 'read -P 0x55 0 4k');
    const fua = await server.counter();
    assert.equal(fua.fuaNative + fua.fuaEmulated, start.fuaNative + start.fuaEmulated + 1);
    assert.equal(fua.unstableWrites, 0, 'a FUA write leaves nothing unstable');
    await qemuIo(uri, 'write -P 0x66 4k 4k', 'flush', 'flush', 'flush');
    const flushed = await server.counter();
    assert.ok(flushed.syncs > fua.syncs, 'the write was made stable');
    assert.equal(flushed.unstableWrites, 0);
    await server.stop();
  },
);
