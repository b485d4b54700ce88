import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { ConfigError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import { ImageLock } from './lock.ts';
import { TestDirectory } from './testing.ts';

const IN_USE = /is in use/;

let directory: TestDirectory;
let path: string;
let fds: number[];
let children: ChildProcess[];

beforeEach(() => {
  directory = new TestDirectory();
  path = directory.image(MiB);
  fds = [];
  children = [];
});
afterEach(() => {
  for (const child of children) child.kill('SIGKILL');
  for (const fd of fds) closeSync(fd);
  directory.remove();
});

function lockOf(flags = 'r+'): ImageLock {
  const fd = openSync(path, flags);
  fds.push(fd);
  return new ImageLock(fd, path);
}

function hasQemu(context: TestContext): boolean {
  if (spawnSync('qemu-io', ['--version']).status === 0) return true;
  context.skip('qemu-img and qemu-io are not installed');
  return false;
}

function run(command: string, ...args: string[]): { status: number | null; stderr: string } {
  return spawnSync(command, args, { encoding: 'utf8' });
}

/** QEMU holds the image until the test ends. Resolves when it has it. */
async function qemuHolds(...options: string[]): Promise<void> {
  const child = spawn('qemu-io', ['-f', 'raw', ...options, path], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.push(child);
  await new Promise((resolve) => {
    child.stdout.once('data', resolve);
    child.stdin.write('length\n');
  });
}

void describe('the image lock', () => {
  test('one writer, or any number of readers', () => {
    const writer = lockOf();
    writer.acquire(true);
    assert.throws(() => lockOf().acquire(true), IN_USE);
    assert.throws(() => lockOf('r').acquire(false), IN_USE);
    writer.release();
    const readers = [lockOf('r'), lockOf('r')];
    for (const reader of readers) reader.acquire(false);
    assert.throws(() => lockOf().acquire(true), IN_USE);
    for (const reader of readers) reader.release();
    lockOf().acquire(true);
  });

  test('a refusal leaves what was held before, and no more', () => {
    const first = lockOf('r');
    const second = lockOf('r');
    first.acquire(false);
    second.acquire(false);
    assert.throws(() => first.acquire(true), IN_USE);
    assert.ok(!first.writer);
    lockOf('r').acquire(false);
    second.release();
    // The third reader is still there.
    assert.throws(() => first.acquire(true), IN_USE);
  });

  test('a reader becomes a writer, and stays one', () => {
    const lock = lockOf();
    lock.acquire(false);
    lock.acquire(true);
    assert.ok(lock.writer);
    lock.acquire(false);
    assert.ok(lock.writer);
    assert.throws(() => lockOf('r').acquire(false), IN_USE);
  });

  test('the lock goes with its descriptor', () => {
    const fd = openSync(path, 'r+');
    new ImageLock(fd, path).acquire(true);
    closeSync(fd);
    lockOf().acquire(true);
  });

  test('the refusal says what to do, and that it is a matter of time', () => {
    lockOf().acquire(true);
    assert.throws(
      () => lockOf().acquire(true),
      (error) =>
        error instanceof ConfigError &&
        error.hint.includes('stop the other') &&
        (error.cause as { code?: string }).code === 'EBUSY',
    );
  });
});

void describe('the image lock and QEMU', () => {
  test('QEMU’s tools refuse an image that is served', (context) => {
    if (!hasQemu(context)) return;
    lockOf().acquire(true);
    const copy = join(directory.path, 'copy.img');
    for (const [command, ...args] of [
      ['qemu-img', 'convert', '-f', 'raw', '-O', 'raw', path, copy],
      ['qemu-img', 'bench', '-f', 'raw', '-w', '-c', '1', path],
      ['qemu-img', 'resize', '-f', 'raw', path, '2M'],
      ['qemu-io', '-f', 'raw', '-c', 'write 0 512', path],
    ] as const) {
      const { status, stderr } = run(command, ...args);
      assert.notEqual(status, 0, `${command} ${args.join(' ')}`);
      assert.match(stderr, /Failed to get (shared )?"write" lock/);
    }
    assert.equal(run('qemu-img', 'info', '-U', '-f', 'raw', path).status, 0);
    assert.equal(run('qemu-img', 'convert', '-U', '-f', 'raw', '-O', 'raw', path, copy).status, 0);
  });

  test('an image served read-only can be read and not written', (context) => {
    if (!hasQemu(context)) return;
    lockOf('r').acquire(false);
    const copy = join(directory.path, 'copy.img');
    assert.equal(run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', path, copy).status, 0);
    assert.notEqual(run('qemu-io', '-f', 'raw', '-c', 'write 0 512', path).status, 0);
  });

  test('an image that QEMU writes is not served', async (context) => {
    if (!hasQemu(context)) return;
    await qemuHolds();
    assert.throws(() => lockOf().acquire(true), IN_USE);
    assert.throws(() => lockOf('r').acquire(false), IN_USE);
  });

  test('an image that QEMU only reads is served read-only', async (context) => {
    if (!hasQemu(context)) return;
    const socket = join(directory.path, 'socket');
    const args = ['-r', '-t', '-f', 'raw', '-k', socket, path];
    children.push(spawn('qemu-nbd', args, { stdio: 'inherit' }));
    while (!existsSync(socket)) await setTimeout(10);
    lockOf('r').acquire(false);
  });
});
