import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { onBothReactors } from './support/both.ts';
import { run, succeed } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';

const MAIN = resolve(import.meta.dirname, '../../src/cli/main.ts');

onBothReactors(
  'qemu-img refuses an image that is being served',
  ['qemu-img'],
  async (t, reactor) => {
    const folder = workspace(t);
    const image = makeImage(folder, 8, 1);
    const before = readFileSync(image);
    const server = await startHoldfast(t, [image], { reactor });
    // Needs the image for itself: a write while guests write would corrupt it.
    for (const command of [
      ['qemu-img', 'resize', '-f', 'raw', image, '16M'],
      ['qemu-io', '-f', 'raw', '-c', 'write -P 1 0 4k', image],
      ['qemu-img', 'convert', '-f', 'raw', '-O', 'raw', image, join(folder, 'copy.img')],
    ]) {
      const result = await run(command);
      assert.notEqual(result.status, 0, command.join(' '));
      assert.match(result.stderr, /lock/i, command.join(' '));
    }
    // Asked to share, it may read.
    await succeed(['qemu-img', 'info', '-U', image]);
    await server.stop();
    assert.ok(readFileSync(image).equals(before), 'nothing was written');
    await succeed(['qemu-io', '-f', 'raw', '-c', 'write -P 1 0 4k', image]);
  },
);

onBothReactors('an image that QEMU has open is not served', ['qemu-nbd'], async (t, reactor) => {
  const folder = workspace(t);
  const image = makeImage(folder, 8, 1);
  const socket = join(folder, 'q.sock');
  const pidFile = join(folder, 'q.pid');
  await succeed([
    'qemu-nbd',
    '--fork',
    '-t',
    '-f',
    'raw',
    '-k',
    socket,
    '--pid-file',
    pidFile,
    image,
  ]);
  const pid = Number(readFileSync(pidFile, 'utf8'));
  t.after(() => process.kill(pid, 'SIGKILL'));
  const ours = ['serve', image, '-U', join(folder, 'h.sock')];
  const result = await run([process.execPath, MAIN, ...ours], {
    env: { HOLDFAST_REACTOR: reactor },
    timeoutMs: 20_000,
  });
  assert.ok(result.status === 69 || result.status === 78, `exit code ${result.status}`);
  assert.equal(result.stderr.trim().split('\n').length, 1, result.stderr);
  assert.match(result.stderr, /disk\.img/);
  assert.match(result.stderr, /lock|use/i);
});

onBothReactors('two servers do not write to one image', [], async (t, reactor) => {
  const folder = workspace(t);
  const image = makeImage(folder, 8, 1);
  const first = await startHoldfast(t, [image], { reactor });
  const result = await run([process.execPath, MAIN, 'serve', image, '-U', join(folder, 'b.sock')], {
    env: { HOLDFAST_REACTOR: reactor },
    timeoutMs: 20_000,
  });
  assert.ok(result.status === 69 || result.status === 78, `exit code ${result.status}`);
  assert.match(result.stderr, /disk\.img/);
  await first.stop();
  // The lock is gone with the first.
  const second = await startHoldfast(t, [image], { reactor });
  await second.stop();
  assert.equal(statSync(image).size, 8 * 1024 * 1024);
});
