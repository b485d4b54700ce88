import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Prng } from '../../base/prng.ts';
import { KiB } from '../../base/units.ts';
import { Segments, type Region } from '../../block/memory.ts';
import { FALLOCATE, type Completion, type FileTraits } from '../reactor.ts';
import { randomSegments, request, type Bench } from './harness.ts';

const EBADF = 9;
const ENXIO = 6;
const ENOSPC = 28;
const EOPNOTSUPP = 95;

/** One file through a reactor's Files, each request a promise. */
class File {
  readonly fd: number;
  readonly traits: FileTraits;
  readonly #bench: Bench;

  constructor(bench: Bench, path: string, flags: string | number = 'w+') {
    this.#bench = bench;
    this.fd = fs.openSync(path, flags);
    this.traits = bench.reactor.files.probeFile(this.fd);
  }

  read(segments: Segments, offset: number, skip = 0): Promise<number> {
    const { files } = this.#bench.reactor;
    return request((done) => files.read(done, this.fd, this.traits, segments, skip, offset));
  }

  write(segments: Segments, offset: number, skip = 0, dsync = false): Promise<number> {
    const { files } = this.#bench.reactor;
    return request((done) =>
      files.write(done, this.fd, this.traits, segments, skip, offset, dsync),
    );
  }

  allocate(mode: number, offset: number, length: number): Promise<number> {
    return request((done) =>
      this.#bench.reactor.files.allocate(done, this.fd, mode, offset, length),
    );
  }

  datasync(): Promise<number> {
    return request((done) => this.#bench.reactor.files.datasync(done, this.fd));
  }

  close(): void {
    fs.closeSync(this.fd);
  }
}

function one(region: Region, start: number, length: number): Segments {
  const segments = new Segments();
  segments.push(region, start, length);
  return segments;
}

/** Where files can lie: on the drive, and in memory, where a reactor may do requests at once. */
function places(): string[] {
  return [tmpdir(), '/dev/shm'].filter((path) => fs.existsSync(path));
}

export function fileTests(get: () => Bench): void {
  for (const place of places()) {
    test(`files in ${place}: random reads and writes against a model`, async () => {
      const path = fs.mkdtempSync(join(place, 'holdfast-file-'));
      const file = new File(get(), join(path, 'f'));
      try {
        await againstModel(get(), file);
      } finally {
        file.close();
        fs.rmSync(path, { recursive: true });
      }
    });

    test(`files in ${place}: a read is short at the end, and 0 behind it`, async () => {
      const bench = get();
      const path = fs.mkdtempSync(join(place, 'holdfast-file-'));
      const file = new File(bench, join(path, 'f'));
      const region = bench.region();
      fs.writeSync(file.fd, Buffer.alloc(1000, 9));
      region.bytes.fill(0);
      assert.equal(await file.read(one(region, 10, 600), 500), 500);
      assert.equal(region.bytes[509], 9);
      assert.equal(region.bytes[510], 0);
      assert.equal(await file.read(one(region, 0, 10), 1000), 0);
      assert.equal(await file.read(one(region, 0, 10), 2 ** 40), 0);
      file.close();
      fs.rmSync(path, { recursive: true });
    });
  }

  test('files: syncs and hints', async () => {
    const bench = get();
    const file = new File(bench, bench.path());
    const region = bench.region();
    assert.equal(await file.write(one(region, 0, 4096), 0), 4096);
    assert.equal(await file.datasync(), 0);
    if (file.traits.dsync) {
      assert.equal(await file.write(one(region, 0, 4096), 4096, 0, true), 4096);
    }
    const { files } = bench.reactor;
    const hint = (done: Completion): void => files.willNeed(done, file.fd, 0, 8192);
    assert.equal(await request(hint), 0);
    file.close();
  });

  test('files: holes are punched, found, and read as zeroes', (t) => holes(t, get()));

  test('files: many requests at once', async () => {
    const bench = get();
    const file = new File(bench, bench.path());
    const region = bench.region();
    const punches = await Promise.all(
      Array.from({ length: 300 }, (_, i) => file.allocate(0, i * 4096, 4096)),
    );
    assert.ok(
      punches.every((result) => result === 0) || punches.every((result) => result === -EOPNOTSUPP),
    );
    const reads = await Promise.all(
      Array.from({ length: 300 }, (_, i) => file.write(one(region, i * 64, 64), i * 64)),
    );
    assert.ok(reads.every((result) => result === 64));
    file.close();
  });

  test('files: what is wrong is a negated errno', async () => {
    const bench = get();
    const region = bench.region();
    const path = bench.path();
    fs.writeFileSync(path, Buffer.alloc(4096));
    const readOnly = new File(bench, path, 'r');
    assert.equal(await readOnly.write(one(region, 0, 512), 0), -EBADF);
    readOnly.close();

    const full = new File(bench, '/dev/full', 'r+');
    assert.equal(await full.write(one(region, 0, 512), 0), -ENOSPC);
    full.close();

    // A number that nothing has open.
    const gone = new File(bench, path, 'r');
    gone.close();
    assert.equal(await gone.read(one(region, 0, 512), 0), -EBADF);
    assert.equal(await gone.write(one(region, 0, 512), 0), -EBADF);
    assert.equal(await gone.datasync(), -EBADF);
    assert.ok([-EBADF, -EOPNOTSUPP].includes(await gone.allocate(0, 0, 4096)));
    assert.equal(bench.reactor.files.seekData(gone.fd, 0), -EBADF);
    assert.equal(bench.reactor.files.seekHole(gone.fd, 0), -EBADF);
  });

  test('files: pages of the pool are good for O_DIRECT', async (t) => {
    const bench = get();
    const path = bench.path();
    fs.writeFileSync(path, Buffer.alloc(64 * KiB));
    let file: File;
    try {
      file = new File(bench, path, fs.constants.O_RDWR | fs.constants.O_DIRECT);
    } catch {
      t.skip('the file system has no O_DIRECT');
      return;
    }
    const region = bench.region();
    assert.equal(region.address % 4096, 0);
    new Prng(11).fill(region.bytes.subarray(0, 8192));
    assert.equal(await file.write(one(region, 0, 8192), 4096), 8192);
    assert.equal(await file.read(one(region, 16384, 8192), 4096), 8192);
    assert.deepEqual(region.bytes.subarray(16384, 24576), region.bytes.subarray(0, 8192));
    file.close();
  });
}

async function againstModel(bench: Bench, file: File): Promise<void> {
  const prng = new Prng(7);
  const size = 256 * KiB;
  const model = Buffer.alloc(size);
  fs.writeSync(file.fd, model);
  const regions = [bench.region(), bench.region()];
  for (let step = 0; step < 200; step += 1) {
    for (const region of regions) prng.fill(region.bytes.subarray(0, 8 * KiB));
    const segments = randomSegments(prng, prng.chance(0.5) ? regions : regions.slice(1), 3000);
    const skip = prng.chance(0.3) ? prng.below(segments.totalBytes) : 0;
    const length = segments.totalBytes - skip;
    const offset = prng.below(size - length);
    const bytes = Buffer.alloc(length);
    if (prng.chance(0.5)) {
      segments.copyTo(bytes, skip);
      const dsync = file.traits.dsync && prng.chance(0.1);
      assert.equal(await file.write(segments, offset, skip, dsync), length);
      model.set(bytes, offset);
    } else {
      const before = Buffer.alloc(skip);
      segments.copyTo(before);
      assert.equal(await file.read(segments, offset, skip), length);
      segments.copyTo(bytes, skip);
      assert.ok(
        bytes.equals(model.subarray(offset, offset + length)),
        `step ${step}: read differs`,
      );
      const untouched = Buffer.alloc(skip);
      segments.copyTo(untouched);
      assert.ok(untouched.equals(before), `step ${step}: bytes before skip were touched`);
    }
  }
  const whole = Buffer.alloc(size);
  fs.readSync(file.fd, whole, 0, size, 0);
  assert.ok(whole.equals(model));
}

async function holes(t: TestContext, bench: Bench): Promise<void> {
  const file = new File(bench, bench.path());
  const region = bench.region();
  region.bytes.fill(1);
  const { files } = bench.reactor;
  const block = 64 * KiB;
  assert.equal(await file.write(one(region, 0, 3 * block), 0), 3 * block);
  const mode = FALLOCATE.PUNCH_HOLE | FALLOCATE.KEEP_SIZE;
  const punched = await file.allocate(mode, block, block);
  if (punched === -EOPNOTSUPP) {
    t.skip('this host cannot punch holes');
    file.close();
    return;
  }
  assert.equal(punched, 0);
  assert.equal(await file.read(one(region, 0, block), block), block);
  assert.ok(region.bytes.subarray(0, block).every((byte) => byte === 0));
  assert.equal(files.seekHole(file.fd, 0), block);
  assert.equal(files.seekData(file.fd, block), 2 * block);
  assert.equal(files.seekData(file.fd, 10), 10);
  assert.equal(files.seekHole(file.fd, 2 * block), 3 * block);
  assert.equal(files.seekData(file.fd, 3 * block), -ENXIO);
  // Beyond 2^32: a length that an int could not carry.
  assert.equal(await file.allocate(mode, 2 ** 33, 2 ** 33), 0);
  file.close();
}
