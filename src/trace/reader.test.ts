import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import { crc32 } from 'node:zlib';
import { ConfigError } from '../base/errors.ts';
import { Prng } from '../base/prng.ts';
import { KiB, MiB } from '../base/units.ts';
import { FLAG, OP } from '../block/io.ts';
import { PortableFiles } from '../reactor/portable/portable-files.ts';
import { recordBase } from './base.ts';
import { TraceBuilder } from './builder.ts';
import { crc32Zeroes } from './crc32-zeroes.ts';
import { HEADER_BYTES, RECORD, RecordHeader, TraceError } from './format.ts';
import { openSharedTrace, openTrace, openTraceBytes, traceParts } from './reader.ts';
import { NEVER, type Trace } from './trace.ts';

test('a trace holds what was put into it: requests, events, marks, times', () => {
  const { builder } = example();
  const trace = builder.trace();
  const { requests } = trace;
  assert.deepEqual(
    [...requests.op],
    [OP.WRITE, OP.WRITE, OP.FLUSH, OP.DISCARD, OP.WRITE_ZEROES, OP.READ],
  );
  assert.deepEqual([...requests.flags], [0, FLAG.FUA, 0, 0, FLAG.NO_HOLE, 0]);
  assert.deepEqual([...requests.disk], [0, 1, 0, 0, 1, 0]);
  assert.deepEqual([...requests.source], [7, 0, 0, 0, 0, 0]);
  assert.deepEqual([...requests.offset], [512, 0, 1024, 0, 4096, 0]);
  assert.deepEqual([...requests.length], [1024, 24, 512, 512, 8, 512]);
  assert.deepEqual([...requests.issued], [0, 1, 4, 6, 8, 10]);
  assert.deepEqual([...requests.done], [5, 2, 7, 9, NEVER, NEVER]);
  assert.deepEqual([...requests.failed], [0, 0, 0, 1, 0, 0]);
  assert.deepEqual(trace.marks, [
    { event: 3, kind: 'ack', text: 'grüße' },
    { event: 11, kind: 'note', text: '' },
  ]);
  assert.deepEqual(
    [...trace.timeNs],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map((step) => step * 1000),
  );
  assert.equal(trace.events, 12);
  assert.ok(trace.complete);
  assert.deepEqual(dataOf(trace, 0), new Uint8Array(1024).fill(7));
  assert.deepEqual(dataOf(trace, 1), SOME);
  assert.equal(requests.dataAt[2], -1);
});

test('events are in the order of time, then of place; marks may stand late', () => {
  const builder = new TraceBuilder();
  const first = builder.write({ offset: 0, data: 1 });
  const at = builder.nowNs;
  builder.done(first);
  builder.mark('ack', 'as the write was issued, written after it', at);
  builder.mark('ack', 'before everything', at - 10);
  builder.mark('note', 'as the write was issued, later still', at);
  const trace = builder.trace();
  assert.deepEqual(
    trace.marks.map(({ event, text }) => `${event} ${text}`),
    [
      '0 before everything',
      '2 as the write was issued, written after it',
      '3 as the write was issued, later still',
    ],
  );
  assert.deepEqual([trace.requests.issued[0], trace.requests.done[0]], [1, 4]);
  assert.deepEqual([...trace.timeNs], [0, 10, 10, 10, 1010]);
});

test('cut short anywhere, a trace is read up to its last complete record', () => {
  const { builder, ends } = example();
  const bytes = builder.bytes();
  for (let length = HEADER_BYTES; length < bytes.length; length += 1) {
    const trace = openTraceBytes(bytes.subarray(0, length), 'cut');
    assert.equal(trace.complete, false);
    assert.equal(trace.requests.count, ends.filter((end) => end <= length).length, `at ${length}`);
  }
  for (let length = 0; length < HEADER_BYTES; length += 1) {
    assert.throws(() => openTraceBytes(bytes.subarray(0, length), 'cut'), /too short for a trace/);
  }
});

test('zeroes at the end, as a crashed host leaves them, end it the same way', () => {
  const { builder, ends } = example();
  const bytes = builder.bytes();
  for (let length = HEADER_BYTES; length < bytes.length; length += 1) {
    for (const more of [8, 5000]) {
      const file = new Uint8Array(bytes.length + more);
      file.set(bytes.subarray(0, length));
      const trace = openTraceBytes(file, 'zeroes');
      // A record whose last bytes are zeroes anyway may be whole.
      const least = ends.filter((end) => end <= length).length;
      assert.ok(trace.requests.count === least || trace.requests.count === least + 1);
    }
  }
});

test('damage is refused, with the place, wherever it is', () => {
  const bytes = example().builder.bytes();
  for (let at = 0; at < bytes.length; at += 1) {
    const damaged = bytes.slice();
    damaged[at] = (damaged[at] as number) ^ 0x40;
    try {
      const trace = openTraceBytes(damaged, 'damaged.trace');
      // Only the padding of a payload has no checksum; it means nothing.
      assert.equal(trace.requests.count, 6, `byte ${at}`);
      assert.equal(bytes[at], 0);
    } catch (error) {
      assert.ok(error instanceof TraceError, String(error));
      assert.ok(error.at <= at && error.at + 2000 > at);
      if (at >= HEADER_BYTES) {
        assert.match(error.message, /^damaged\.trace: damaged at byte \d+, record \d+: /);
      }
    }
  }
});

test('the last record is damaged and the file goes on: no end, but damage', () => {
  const bytes = example().builder.bytes({ end: false });
  const damaged = Buffer.concat([bytes, Buffer.from('something that is no record and not zero')]);
  assert.equal(openTraceBytes(damaged, 'x').complete, false, 'shorter than a record');
  const longer = Buffer.concat([damaged, Buffer.alloc(100, 1)]);
  assert.throws(
    () => openTraceBytes(longer, 'x'),
    new RegExp(`byte ${bytes.length}, record 14: no record`),
  );
});

test('bytes behind the end are damage, zeroes are not', () => {
  const bytes = example().builder.bytes();
  assert.ok(openTraceBytes(Buffer.concat([bytes, Buffer.alloc(640)]), 'x').complete);
  assert.throws(
    () => openTraceBytes(Buffer.concat([bytes, Buffer.alloc(64, 1)]), 'x'),
    /bytes follow the end/,
  );
});

const IMPOSSIBLE: readonly [string, RegExp, (header: RecordHeader) => void][] = [
  ['a type', /type 9/, (h) => (h.type = 9)],
  ['an operation', /operation 5/, (h) => (h.op = OP.CACHE)],
  ['flags', /flags/, (h) => (h.flags = 32)],
  ['an error', /flags/, (h) => (h.error = 1)],
  ['a disk', /no disk 2/, (h) => (h.disk = 2)],
  ['a number out of order', /request 3 is out of order/, (h) => (h.request = 3)],
  ['a place behind the end', /beyond the end/, (h) => (h.offset = MiB - 512)],
  ['half a block', /whole blocks/, (h) => (h.offset = 100)],
  ['a length that is not of its data', /another length/, (h) => (h.length = 512)],
  ['an enormous number', /larger than any/, (h) => (h.offset = 2 ** 60)],
  ['a time before the last one', /backwards/, (h) => (h.timeNs = 999)],
  [
    'a completion of nothing',
    /never issued/,
    (h) => {
      h.type = RECORD.COMPLETE;
      h.request = 5;
    },
  ],
  [
    'a second completion',
    /completes twice/,
    (h) => {
      h.type = RECORD.COMPLETE;
      h.request = 0;
    },
  ],
  [
    'a completion on another disk',
    /another disk/,
    (h) => {
      h.type = RECORD.COMPLETE;
      h.request = 1;
      h.disk = 1;
    },
  ],
  [
    'an unknown outcome',
    /error 15/,
    (h) => {
      h.type = RECORD.COMPLETE;
      h.request = 1;
      h.error = 15;
    },
  ],
  ['an unknown mark', /kind 3/, (h) => ((h.type = RECORD.MARK), (h.op = 3))],
  ['a mark that is no text', /not UTF-8/, (h) => ((h.type = RECORD.MARK), (h.op = 1))],
  ['a disk that is none', /not UTF-8/, (h) => (h.type = RECORD.DISK)],
  ['another count at the end', /another count/, (h) => ((h.type = RECORD.END), (h.request = 1))],
];

for (const [what, expected, change] of IMPOSSIBLE) {
  test(`impossible, though the checksums are right: ${what}`, () => {
    const builder = new TraceBuilder({ disks: [{}, {}] });
    builder.wrote({ offset: 0, data: 1 });
    builder.write({ offset: 0, data: 1 });
    const start = builder.bytes({ end: false });
    const header = new RecordHeader();
    header.reset(RECORD.ISSUE, 5000);
    header.op = OP.WRITE;
    header.request = 2;
    header.length = 1024;
    const payload = new Uint8Array(1024).fill(0xff);
    const fileWith = (data: Uint8Array): Uint8Array => {
      header.payloadBytes = data.length;
      header.payloadCrc = crc32(data);
      header.encode();
      return Buffer.concat([start, header.bytes, data]);
    };
    assert.equal(openTraceBytes(fileWith(payload), 'x').requests.count, 3, 'else it is a trace');
    change(header);
    const bare = header.type === RECORD.COMPLETE || header.type === RECORD.END;
    const file = fileWith(bare ? new Uint8Array(0) : payload);
    assert.throws(() => openTraceBytes(file, 'x'), expected);
  });
}

test('disks that cannot be are refused', () => {
  const good = {
    number: 0,
    name: 'a',
    sizeBytes: MiB,
    blockBytes: 512,
    base: { kind: 'zeroes' },
    discard: 'zeroes',
    flushCovers: 'everyone',
  };
  const bad: [object | null, RegExp][] = [
    [{ ...good, number: 1 }, /not numbered in order/],
    [{ ...good, number: -1 }, /number/],
    [{ ...good, name: 5 }, /name/],
    [{ ...good, name: 'x'.repeat(5000) }, /name/],
    [{ ...good, sizeBytes: 2 ** 60 }, /size/],
    [{ ...good, sizeBytes: 100 }, /size/],
    [{ ...good, blockBytes: 0 }, /block size/],
    [{ ...good, blockBytes: 513 }, /block size/],
    [{ ...good, base: null }, /base/],
    [{ ...good, base: { kind: 'file', path: '', crc32: 0 } }, /base/],
    [{ ...good, base: { kind: 'file', path: 'a\0b', crc32: 0 } }, /base/],
    [{ ...good, base: { kind: 'file', path: 'a', crc32: -1 } }, /base/],
    [{ ...good, discard: 'maybe' }, /discard/],
    [{ ...good, flushCovers: 'nobody' }, /flushCovers/],
    [{ ...good, ignoresFlush: 1 }, /ignoresFlush/],
    [[good], /no object/],
    [null, /no object/],
  ];
  assert.equal(openTraceBytes(withDisk(good), 'x').disks.length, 1);
  for (const [disk, expected] of bad) {
    assert.throws(() => openTraceBytes(withDisk(disk), 'x'), expected);
  }
});

test('random bytes and random changes end in a trace or a TraceError, nothing else', () => {
  const prng = new Prng(11);
  const bytes = example().builder.bytes();
  for (let round = 0; round < 3000; round += 1) {
    const file = bytes.slice(0, 64 + prng.below(bytes.length - 63));
    const changes = 1 + prng.below(4);
    for (let i = 0; i < changes; i += 1) file[prng.below(file.length)] = prng.below(256);
    try {
      openTraceBytes(file, 'x');
    } catch (error) {
      assert.ok(error instanceof TraceError, String(error));
    }
  }
});

test('headers of random fields with checksums that are right do not hurt either', () => {
  const prng = new Prng(12);
  const start = new TraceBuilder().bytes({ end: false });
  const header = new RecordHeader();
  for (let round = 0; round < 3000; round += 1) {
    const parts: Uint8Array[] = [start];
    for (let i = 0; i < 4; i += 1) {
      header.reset(prng.below(7), prng.below(4) * 1000);
      header.op = prng.below(8);
      header.flags = prng.below(40);
      header.disk = prng.below(3) === 0 ? prng.below(65_536) : 0;
      header.request = prng.below(4) === 0 ? 2 ** (20 + prng.below(40)) : i;
      header.offset = prng.below(3) === 0 ? 2 ** (10 + prng.below(53)) : 512;
      header.length = prng.below(3) === 0 ? 2 ** (10 + prng.below(53)) : 0;
      header.payloadBytes = prng.below(3) === 0 ? prng.below(0xffff_ffff) : 0;
      header.encode();
      parts.push(header.bytes.slice());
    }
    try {
      openTraceBytes(Buffer.concat(parts), 'x');
    } catch (error) {
      assert.ok(error instanceof TraceError, String(error));
    }
  }
});

test('a file is opened, read in small and large pieces, and refused beyond its end', () => {
  inDirectory((directory) => {
    const builder = new TraceBuilder({ disks: [{ sizeBytes: 4 * MiB }] });
    const data = new Uint8Array(300 * KiB).map((_, i) => (i * 31) ^ (i >> 9));
    builder.wrote({ offset: 0, data });
    const trace = builder.save(join(directory, 'a.trace'));
    const at = trace.requests.dataAt[0] as number;
    const whole = new Uint8Array(data.length);
    trace.readData(at, whole);
    assert.deepEqual(whole, data);
    for (let skip = 0; skip + 512 <= data.length; skip += 512) {
      const piece = new Uint8Array(512);
      trace.readData(at + skip, piece);
      assert.deepEqual(piece, data.subarray(skip, skip + 512));
    }
    assert.throws(() => trace.readData(at + data.length, new Uint8Array(129)), TraceError);
    assert.throws(() => trace.readData(-1, new Uint8Array(1)), TraceError);
    trace.close();
    assert.throws(() => openTrace(join(directory, 'b.trace')), ConfigError);
    writeFileSync(join(directory, 'c.trace'), 'x'.repeat(1000));
    assert.throws(() => openTrace(join(directory, 'c.trace')), /c\.trace: it is not a trace/);
  });
});

test('another thread opens the same trace without reading it again', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-trace-'));
  const builder = new TraceBuilder();
  builder.wrote({ offset: 0, data: 5 });
  const inFile = builder.save(join(directory, 'a.trace'));
  try {
    for (const trace of [builder.trace(), inFile]) {
      const parts = traceParts(trace);
      const script = `
        const { parentPort, workerData } = require('node:worker_threads');
        import(${JSON.stringify(new URL('reader.ts', import.meta.url).href)}).then(({ openSharedTrace }) => {
          const trace = openSharedTrace(workerData);
          const data = new Uint8Array(512);
          trace.readData(trace.requests.dataAt[0], data);
          trace.requests.flags[0] = 16;
          parentPort.postMessage([trace.fingerprint, data[511], trace.disks[0].name]);
          trace.close();
        });`;
      const worker = new Worker(script, { eval: true, workerData: parts });
      const answer = await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      assert.deepEqual(answer, [trace.fingerprint, 5, 'disk0']);
      assert.equal(trace.requests.flags[0], 16, 'the arrays are shared');
      const again = openSharedTrace(parts);
      assert.equal(again.requests.flags[0], 16);
      again.close();
      await worker.terminate();
    }
  } finally {
    inFile.close();
    rmSync(directory, { recursive: true });
  }
});

test('fingerprints tell traces apart by what they hold', () => {
  assert.match(oneWrite(1).fingerprint, /^[0-9a-f]{8}$/);
  assert.equal(oneWrite(1).fingerprint, oneWrite(1).fingerprint);
  assert.notEqual(oneWrite(1).fingerprint, oneWrite(2).fingerprint);
});

test('a base has to be there, and as it was', () => {
  inDirectory((directory) => {
    const image = join(directory, 'a.img');
    writeFileSync(image, Buffer.alloc(MiB, 3));
    const base = recordBase(image, 'a.img');
    const path = join(directory, 'a.trace');
    new TraceBuilder({ disks: [{ base }] }).save(path).close();
    openTrace(path).close();
    const changed = Buffer.alloc(MiB, 3);
    changed[MiB - 1] = 4;
    writeFileSync(image, changed);
    assert.throws(() => openTrace(path), /a\.img, has changed since the recording began/);
    openTrace(path, { bases: 'trust' }).close();
    truncateSync(image, 512);
    assert.throws(() => openTrace(path), /has 512 bytes; the disk had 1048576/);
    rmSync(image);
    assert.throws(
      () => openTrace(path),
      /a\.trace: the base of disk 0 \('disk0'\), .*cannot be read/,
    );
  });
});

test('the checksum of an image is the same whether its holes are read or not', () => {
  inDirectory((directory) => {
    const image = join(directory, 'a.img');
    const bytes = new Uint8Array(3 * MiB);
    bytes.fill(1, MiB, MiB + 5000);
    bytes.fill(2, 2 * MiB + 100, 2 * MiB + 200);
    writeFileSync(image, bytes.subarray(MiB, MiB + 5000));
    const sparse = join(directory, 'b.img');
    writeFileSync(sparse, '');
    truncateSync(sparse, MiB);
    writeFileSync(sparse, bytes.subarray(MiB, 2 * MiB + 200), { flag: 'a' });
    truncateSync(sparse, 3 * MiB);
    const found = recordBase(sparse, sparse, new PortableFiles());
    assert.deepEqual(found, recordBase(sparse));
    assert.deepEqual(found, { kind: 'file', path: sparse, crc32: crc32(bytes) });
  });
});

test('the checksum of zeroes without reading them', () => {
  const start = crc32('something');
  for (const count of [0, 1, 7, 8, 4095, 65_536, 1_000_003]) {
    assert.equal(crc32Zeroes(start, count), crc32(new Uint8Array(count), start));
    assert.equal(crc32Zeroes(0, count), crc32(new Uint8Array(count)));
  }
});

const SOME = Uint8Array.from({ length: 24 }, (_, i) => i + 1);

/** A trace with some of everything, and where in the file each request's ISSUE ends. */
function example(): { builder: TraceBuilder; ends: number[] } {
  const builder = new TraceBuilder({ disks: [{}, { blockBytes: 8, discard: 'undefined' }] });
  const ends: number[] = [];
  const issued = (request: number): number => {
    ends.push(builder.bytes({ end: false }).length);
    return request;
  };
  const a = issued(builder.write({ offset: 512, data: 7, length: 1024, source: 7 }));
  const b = issued(builder.write({ disk: 1, offset: 0, data: SOME, fua: true }));
  builder.done(b);
  builder.mark('ack', 'grüße');
  const flush = issued(builder.flush({ offset: 1024, length: 512 }));
  builder.done(a);
  const trim = issued(builder.trim({ offset: 0, length: 512 }));
  builder.done(flush);
  issued(builder.zeroes({ disk: 1, offset: 4096, length: 8, flags: FLAG.NO_HOLE }));
  builder.failed(trim, 'ENOSPC');
  issued(builder.read({ offset: 0, length: 512 }));
  builder.mark('note', '');
  return { builder, ends };
}

function oneWrite(fill: number): Trace {
  const builder = new TraceBuilder();
  builder.wrote({ offset: 0, data: fill });
  return builder.trace();
}

function dataOf(trace: Trace, request: number): Uint8Array {
  const data = new Uint8Array(trace.requests.length[request] as number);
  trace.readData(trace.requests.dataAt[request] as number, data);
  return data;
}

function withDisk(disk: object | null): Uint8Array {
  const payload = Buffer.from(JSON.stringify(disk));
  const header = new RecordHeader();
  header.reset(RECORD.DISK, 0);
  header.payloadBytes = payload.length;
  header.payloadCrc = crc32(payload);
  header.encode();
  const padding = new Uint8Array((8 - (payload.length % 8)) % 8);
  const start = new TraceBuilder({ disks: [] }).bytes({ end: false });
  return Buffer.concat([start, header.bytes, payload, padding]);
}

function inDirectory(body: (directory: string) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-trace-'));
  try {
    body(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}
