import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { ConfigError } from '../base/errors.ts';
import { Prng } from '../base/prng.ts';
import { KiB, MiB } from '../base/units.ts';
import { FLAG, OP } from '../block/io.ts';
import { TraceBuilder } from './builder.ts';
import { exportDmLogWrites } from './dm-log-writes-export.ts';
import { END_MARK, importDmLogWrites, LOG_FLAG } from './dm-log-writes.ts';
import { TraceError } from './format.ts';
import { openTrace } from './reader.ts';
import type { Trace } from './trace.ts';

test('import: entries are requests in the order of the log, PREFLUSH a FLUSH of its own', () => {
  inDirectory((directory) => {
    const log = new LogBytes(512);
    log.entry({ sector: 2, data: new Uint8Array(1024).fill(1) });
    log.entry({ flags: LOG_FLAG.FLUSH });
    log.entry({
      sector: 0,
      flags: LOG_FLAG.FLUSH | LOG_FLAG.FUA,
      data: new Uint8Array(512).fill(2),
    });
    log.entry({ flags: LOG_FLAG.MARK, text: 'here' });
    log.entry({ sector: 4, flags: LOG_FLAG.DISCARD, sectors: 8 });
    log.entry({ sector: 7, flags: LOG_FLAG.METADATA, data: new Uint8Array(512).fill(3) });
    log.entry({ flags: LOG_FLAG.MARK, text: END_MARK });
    const trace = imported(directory, log.bytes());
    const { requests } = trace;
    assert.deepEqual(
      [...requests.op],
      [OP.WRITE, OP.FLUSH, OP.FLUSH, OP.WRITE, OP.DISCARD, OP.WRITE],
    );
    assert.deepEqual([...requests.flags], [0, 0, 0, FLAG.FUA, 0, 0]);
    assert.deepEqual([...requests.offset], [1024, 0, 0, 0, 2048, 3584]);
    assert.deepEqual([...requests.length], [1024, 0, 0, 512, 4096, 512]);
    assert.deepEqual([...requests.issued], [0, 2, 4, 6, 9, 11]);
    assert.deepEqual([...requests.done], [1, 3, 5, 7, 10, 12]);
    assert.deepEqual(trace.marks, [{ event: 8, kind: 'ack', text: 'here' }]);
    assert.deepEqual(dataOf(trace, 3), new Uint8Array(512).fill(2));
    assert.deepEqual(dataOf(trace, 5), new Uint8Array(512).fill(3));
    assert.equal(trace.disks[0]?.sizeBytes, 6144);
    assert.ok(trace.complete);
  });
});

test('import: sectors are of the size that the log names', () => {
  inDirectory((directory) => {
    const log = new LogBytes(4096);
    log.entry({ sector: 3, data: new Uint8Array(8192).fill(1) });
    const trace = imported(directory, log.bytes(), { sizeBytes: MiB });
    assert.deepEqual([trace.requests.offset[0], trace.requests.length[0]], [12_288, 8192]);
    assert.deepEqual([trace.disks[0]?.sizeBytes, trace.disks[0]?.blockBytes], [MiB, 4096]);
  });
});

test('import: what the super does not count is not there', () => {
  inDirectory((directory) => {
    const log = new LogBytes(512);
    log.entry({ sector: 0, data: new Uint8Array(512).fill(1) });
    log.entry({ sector: 1, data: new Uint8Array(512).fill(2) });
    assert.equal(imported(directory, log.bytes(1)).requests.count, 1);
  });
});

const DAMAGED: readonly [string, RegExp, (bytes: DataView) => Uint8Array | null][] = [
  ['magic', /no dm-log-writes log/, (v) => (v.setUint8(0, 1), null)],
  ['version', /version 2/, (v) => (v.setUint8(8, 2), null)],
  ['sector size', /sectors of 513 bytes/, (v) => (v.setUint32(24, 513, true), null)],
  ['no sector size', /sectors of 0 bytes/, (v) => (v.setUint32(24, 0, true), null)],
  ['many entries', /byte 2560, entry 3: the log ends/, (v) => (v.setUint8(23, 255), null)],
  ['flags', /byte 512, entry 0: flags 33 /, (v) => (v.setUint8(512 + 16, 33), null)],
  ['place', /beyond the end of any disk/, (v) => (v.setUint8(512 + 7, 1), null)],
  ['length', /more than 4 GiB/, (v) => (v.setUint8(512 + 8 + 4, 1), null)],
  ['a little length', /ends inside its data/, (v) => (v.setUint8(512 + 8, 9), null)],
  ['mark', /entry 2: a mark cannot/, (v) => (v.setUint16(2048 + 24, 481, true), null)],
  ['end', /entry 2: the log ends before it/, (v) => new Uint8Array(v.buffer, 0, 2400)],
];

for (const [what, expected, change] of DAMAGED) {
  test(`import: a damaged log is refused, and leaves no trace: ${what}`, () => {
    inDirectory((directory) => {
      const log = new LogBytes(512);
      log.entry({ sector: 0, data: new Uint8Array(512).fill(1) });
      log.entry({ flags: LOG_FLAG.FLUSH, data: new Uint8Array(0) });
      log.entry({ flags: LOG_FLAG.MARK, text: 'x' });
      const bytes = log.bytes();
      const changed = change(new DataView(bytes.buffer)) ?? bytes;
      assert.throws(
        () => imported(directory, changed),
        (error) => error instanceof TraceError && expected.test(error.message),
      );
      assert.ok(!existsSync(join(directory, 'x.trace')));
    });
  });
}

test('import: random changes end in a trace or a TraceError', () => {
  inDirectory((directory) => {
    const prng = new Prng(3);
    const log = new LogBytes(512);
    for (let i = 0; i < 4; i += 1) log.entry({ sector: i, data: new Uint8Array(512).fill(i) });
    const bytes = log.bytes();
    for (let round = 0; round < 300; round += 1) {
      const changed = bytes.slice();
      for (let i = 0; i < 3; i += 1) {
        const entry = prng.below(5) === 0 ? 0 : 512 + 1024 * prng.below(4);
        changed[entry + prng.below(32)] = prng.below(256);
      }
      try {
        imported(directory, changed);
      } catch (error) {
        assert.ok(error instanceof TraceError, String(error));
      }
      rmSync(join(directory, 'x.trace'), { force: true });
    }
  });
});

test('import: a disk that is too small is refused', () => {
  inDirectory((directory) => {
    const log = new LogBytes(512);
    log.entry({ sector: 8, data: new Uint8Array(512) });
    for (const sizeBytes of [4096, 4700]) {
      assert.throws(() => imported(directory, log.bytes(), { sizeBytes }), ConfigError);
    }
  });
});

test('export: what the kernel documents: what a flush covers comes before it, FUA at once', () => {
  // [log-writes.rst]: W1,W2,W3,C3,C2,Wflush,C1,Cflush is logged as W3,W2,flush,W1.
  const t = new TraceBuilder();
  const w1 = t.write({ offset: 0, data: 1 });
  const w2 = t.write({ offset: 512, data: 2 });
  const w3 = t.write({ offset: 1024, data: 3 });
  t.done(w3);
  t.done(w2);
  const flush = t.flush();
  t.done(w1);
  t.done(flush);
  t.wrote({ offset: 1536, data: 4, fua: true });
  t.mark('ack', 'four');
  t.mark('note', 'for people');
  assert.deepEqual(exported(t), [
    '2 1 0 3',
    '1 1 0 2',
    '0 0 FLUSH',
    '3 1 FUA 4',
    'MARK four',
    '0 1 0 1',
    `MARK ${END_MARK}`,
  ]);
});

test('export: an older change of the same place comes before one that is stable by itself', () => {
  const t = new TraceBuilder();
  t.wrote({ offset: 0, data: 1 });
  t.wrote({ offset: 0, data: 2, length: 1024 });
  t.wrote({ offset: 4096, data: 3 });
  t.wrote({ offset: 512, data: 4, fua: true });
  assert.deepEqual(exported(t), ['0 1 0 1', '0 2 0 2', '1 1 FUA 4', '8 1 0 3', `MARK ${END_MARK}`]);
});

test('export: failures, ranges, zeroes, discards, flushes that overlap, other disks', () => {
  const t = new TraceBuilder({ disks: [{}, {}] });
  t.failed(t.write({ offset: 0, data: 1 }));
  t.wrote({ offset: 512, data: 2 });
  t.wrote({ offset: 4096, data: 3 });
  t.wrote({ disk: 1, offset: 0, data: 9 });
  t.failed(t.flush());
  t.flushed({ offset: 4096, length: 4096 });
  t.done(t.zeroes({ offset: 8192, length: 1024 }));
  t.done(t.trim({ offset: 0, length: 4096 }));
  const first = t.flush();
  const second = t.flush();
  t.done(second);
  t.failed(first);
  t.write({ offset: 0, data: 8 });
  assert.deepEqual(exported(t), [
    '8 1 0 3',
    '0 0 FLUSH',
    '1 1 0 2',
    '16 2 0 0',
    '0 8 DISCARD',
    '0 0 FLUSH',
    `MARK ${END_MARK}`,
  ]);
});

test('export and import: the same requests in the order of the log, in sectors of either size', () => {
  for (const sectorBytes of [512, 4096]) {
    inDirectory((directory) => {
      const t = new TraceBuilder({ disks: [{ blockBytes: sectorBytes, sizeBytes: 4 * MiB }] });
      const prng = new Prng(sectorBytes);
      for (let i = 0; i < 60; i += 1) {
        const offset = sectorBytes * prng.below(100);
        const length = sectorBytes * (1 + prng.below(200));
        const kind = prng.below(6);
        if (kind < 3) t.wrote({ offset, data: 1 + i, length, fua: kind === 0 });
        else if (kind === 3) t.flushed();
        else if (kind === 4) t.done(t.trim({ offset, length }));
        else t.mark('ack', `mark ${i}`);
      }
      t.flushed();
      const trace = t.trace();
      const log = join(directory, 'log');
      exportDmLogWrites(trace, log);
      importDmLogWrites(log, join(directory, 'x.trace'), { sizeBytes: 4 * MiB });
      const again = openTrace(join(directory, 'x.trace'));
      exportDmLogWrites(again, join(directory, 'log2'));
      assert.ok(readFileSync(join(directory, 'log2')).equals(readFileSync(log)));
      assert.ok(Buffer.compare(imageAfter(again), imageAfter(trace)) === 0);
      assert.equal(again.marks.length, trace.marks.length);
      again.close();
    });
  }
});

test('export: what does not fit into sectors is refused, and leaves no log', () => {
  inDirectory((directory) => {
    const log = join(directory, 'log');
    const odd = new TraceBuilder({ disks: [{ blockBytes: 8 }] });
    odd.wrote({ offset: 8, data: 1 });
    assert.throws(() => exportDmLogWrites(odd.trace(), log), /8 bytes at 8: no whole sectors/);
    const long = new TraceBuilder();
    long.mark('ack', 'x'.repeat(481));
    assert.throws(() => exportDmLogWrites(long.trace(), log), /481 bytes does not fit/);
    assert.throws(() => exportDmLogWrites(long.trace(), log, { disk: 1 }), /no disk 1/);
    assert.ok(!existsSync(log));
    exportDmLogWrites(long.trace(), log, { sectorBytes: 4096 });
    assert.throws(() => exportDmLogWrites(long.trace(), log), /cannot be written/);
  });
});

interface EntryOptions {
  readonly sector?: number;
  readonly sectors?: number;
  readonly flags?: number;
  readonly data?: Uint8Array;
  readonly text?: string;
}

/** A log as the kernel would write it. */
class LogBytes {
  readonly #sectorBytes: number;
  readonly #parts: Uint8Array[] = [];
  #count = 0;

  constructor(sectorBytes: number) {
    this.#sectorBytes = sectorBytes;
  }

  entry({ sector = 0, sectors, flags = 0, data, text = '' }: EntryOptions): void {
    const head = Buffer.alloc(this.#sectorBytes);
    head.writeBigUInt64LE(BigInt(sector), 0);
    head.writeBigUInt64LE(BigInt(sectors ?? (data?.length ?? 0) / this.#sectorBytes), 8);
    head.writeBigUInt64LE(BigInt(flags), 16);
    head.writeBigUInt64LE(BigInt(text.length), 24);
    head.write(text, 32);
    this.#parts.push(head, data ?? new Uint8Array(0));
    this.#count += 1;
  }

  bytes(count = this.#count): Uint8Array {
    const first = Buffer.alloc(this.#sectorBytes);
    first.writeBigUInt64LE(0x6a736677736872n, 0);
    first.writeBigUInt64LE(1n, 8);
    first.writeBigUInt64LE(BigInt(count), 16);
    first.writeUInt32LE(this.#sectorBytes, 24);
    return new Uint8Array(Buffer.concat([first, ...this.#parts]));
  }
}

function imported(
  directory: string,
  bytes: Uint8Array,
  options?: Parameters<typeof importDmLogWrites>[2],
): Trace {
  writeFileSync(join(directory, 'log'), bytes);
  importDmLogWrites(join(directory, 'log'), join(directory, 'x.trace'), options);
  const trace = openTrace(join(directory, 'x.trace'));
  rmSync(join(directory, 'x.trace'));
  return trace;
}

/** The entries of disk 0's log in words: sector, sectors, flags, first byte. */
function exported(builder: TraceBuilder): string[] {
  const words: string[] = [];
  inDirectory((directory) => {
    const path = join(directory, 'log');
    exportDmLogWrites(builder.trace(), path);
    const log = readFileSync(path);
    const entries = Number(log.readBigUInt64LE(16));
    let at = 512;
    for (let i = 0; i < entries; i += 1) {
      const [sector, sectors, flags, textBytes] = [0, 8, 16, 24].map((field) =>
        Number(log.readBigUInt64LE(at + field)),
      ) as [number, number, number, number];
      const names = Object.entries(LOG_FLAG).flatMap(([name, bit]) =>
        (flags & bit) === 0 ? [] : [name],
      );
      const text = log.toString('utf8', at + 32, at + 32 + textBytes);
      at += 512;
      if (flags === LOG_FLAG.MARK) words.push(`MARK ${text}`);
      else {
        const hasData = sectors > 0 && (flags & LOG_FLAG.DISCARD) === 0;
        const data = hasData ? ` ${log[at]}` : '';
        words.push(`${sector} ${sectors} ${names.join('|') || '0'}${data}`);
        if (hasData) at += sectors * 512;
      }
    }
    assert.equal(at, log.length);
  });
  return words;
}

/** What the disk holds when all is done in the order of completion. */
function imageAfter(trace: Trace): Uint8Array {
  const { requests } = trace;
  const image = new Uint8Array(4 * MiB);
  const order = Array.from({ length: requests.count }, (_, i) => i).toSorted(
    (a, b) => (requests.done[a] as number) - (requests.done[b] as number),
  );
  for (const i of order) {
    const offset = requests.offset[i] as number;
    const length = requests.length[i] as number;
    if (requests.op[i] === OP.WRITE) image.set(dataOf(trace, i), offset);
    else if (requests.op[i] !== OP.FLUSH) image.fill(0, offset, offset + length);
  }
  return image.slice(0, 512 * KiB);
}

function dataOf(trace: Trace, request: number): Uint8Array {
  const data = new Uint8Array(trace.requests.length[request] as number);
  trace.readData(trace.requests.dataAt[request] as number, data);
  return data;
}

function inDirectory(body: (directory: string) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-log-'));
  try {
    body(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}
