import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import { createImage } from './create.ts';
import { ImageLock } from './lock.ts';
import { TestDirectory } from './testing.ts';

let directory: TestDirectory;
let path: string;

beforeEach(() => {
  directory = new TestDirectory();
  path = join(directory.path, 'new.img');
});
afterEach(() => directory.remove());

function refused(body: () => void, what: RegExp): void {
  const before = readdirSync(directory.path);
  assert.throws(body, (error) => {
    assert.ok(error instanceof ConfigError, String(error));
    assert.match(error.message, what);
    assert.ok(error.hint.length > 0);
    return true;
  });
  assert.deepEqual(readdirSync(directory.path), before);
}

void describe('createImage', () => {
  test('sparse, reserved, or written in full', () => {
    for (const preallocate of ['off', 'falloc', 'full'] as const) {
      const image = join(directory.path, preallocate);
      createImage(image, 3 * MiB, { overwrite: false, preallocate });
      const { size, blocks } = statSync(image);
      assert.equal(size, 3 * MiB);
      assert.equal(blocks * 512 >= 3 * MiB, preallocate !== 'off', preallocate);
      assert.ok(readFileSync(image).every((byte) => byte === 0));
    }
  });

  test('refuses sizes that no disk can have', () => {
    for (const size of [0, -512, 513, 2 ** 51, Number.NaN]) {
      refused(() => createImage(path, size, { overwrite: false }), /cannot be made/);
    }
  });

  test('refuses what exists, and places that do not', () => {
    createImage(path, MiB, { overwrite: false });
    refused(() => createImage(path, MiB, { overwrite: false }), /it exists/);
    refused(() => createImage(join(path, 'x'), MiB, { overwrite: false }), /is not a directory/);
    const nowhere = join(directory.path, 'none/x.img');
    refused(() => createImage(nowhere, MiB, { overwrite: false }), /there is no directory/);
  });

  test('overwrites an image that nobody uses, and forgets what was remembered of it', () => {
    writeFileSync(path, 'old');
    writeFileSync(`${path}.holdfast`, 'old');
    createImage(path, MiB, { overwrite: true });
    assert.equal(statSync(path).size, MiB);
    assert.deepEqual(readdirSync(directory.path), ['new.img']);
  });

  test('does not overwrite an image in use, or a directory', () => {
    writeFileSync(path, 'old');
    const fd = openSync(path, 'r+');
    new ImageLock(fd, path).acquire(true);
    refused(() => createImage(path, MiB, { overwrite: true }), /is in use/);
    closeSync(fd);
    assert.equal(readFileSync(path, 'utf8'), 'old');
    const folder = join(directory.path, 'folder');
    mkdirSync(folder);
    refused(() => createImage(folder, MiB, { overwrite: true }), /not a regular file/);
  });

  test('a full file system: nothing is left behind, nothing old is lost', (context) => {
    const point = new TestDirectory();
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', point.path], {
      encoding: 'utf8',
    });
    if (mounted.status !== 0) {
      point.remove();
      context.skip(`mount: ${mounted.error?.message ?? mounted.stderr.trim()}`);
      return;
    }
    try {
      const image = join(point.path, 'disk.img');
      for (const preallocate of ['falloc', 'full'] as const) {
        assert.throws(
          () => createImage(image, 8 * MiB, { overwrite: false, preallocate }),
          /no space for 8 MiB/,
        );
        assert.deepEqual(readdirSync(point.path), []);
      }
      writeFileSync(image, 'old');
      assert.throws(
        () => createImage(image, 8 * MiB, { overwrite: true, preallocate: 'full' }),
        /no space/,
      );
      assert.equal(readFileSync(image, 'utf8'), 'old');
      assert.deepEqual(readdirSync(point.path), ['disk.img']);
    } finally {
      spawnSync('umount', ['-l', point.path]);
      point.remove();
    }
  });
});
