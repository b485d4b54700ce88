import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { FALLOCATE } from '../reactor.ts';
import { request } from '../conformance/harness.ts';
import { PortableFiles } from './portable-files.ts';

// What all reactors have in common is in ../conformance.test.ts; here is what is left where koffi does not load.

test('without system calls: holes are refused, hints ignored, all of a file is data', async () => {
  const directory = fs.mkdtempSync(join(tmpdir(), 'holdfast-portable-'));
  const fd = fs.openSync(join(directory, 'f'), 'w+');
  fs.ftruncateSync(fd, 10_000);
  const files = new PortableFiles(null);
  const mode = FALLOCATE.PUNCH_HOLE | FALLOCATE.KEEP_SIZE;
  assert.equal(await request((done) => files.allocate(done, fd, mode, 0, 4096)), -95);
  assert.equal(await request((done) => files.willNeed(done, fd, 0, 4096)), 0);
  assert.equal(files.seekData(fd, 0), 0);
  assert.equal(files.seekData(fd, 9999), 9999);
  assert.equal(files.seekData(fd, 10_000), -6);
  assert.equal(files.seekHole(fd, 0), 10_000);
  assert.equal(files.seekHole(fd, 10_000), -6);
  fs.closeSync(fd);
  assert.equal(files.seekData(fd, 0), -9);
  assert.equal(files.seekHole(fd, 0), -9);
  fs.rmSync(directory, { recursive: true });
});
