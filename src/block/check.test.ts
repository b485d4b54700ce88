import assert from 'node:assert/strict';
import test from 'node:test';
import { checkIo } from './check.ts';
import type { DeviceInfo } from './device.ts';
import type { BlockErrorCode } from './errors.ts';
import { Io, OP } from './io.ts';
import { Region } from './memory.ts';

const info: DeviceInfo = {
  name: 'test',
  sizeBytes: 2 ** 40,
  blockBytes: 4096,
  preferredBytes: 4096,
  maxTransferBytes: 65_536,
  readOnly: false,
  writeCache: true,
  ignoresFlush: false,
  fua: 'native',
  discard: true,
  fastZero: true,
  extents: true,
  rotational: false,
  memoryAlignment: 1,
};
const end = info.sizeBytes;
const B = 4096;

type Row = [keyof typeof OP, number, number, BlockErrorCode | null];

test('ranges: accepted, misaligned, and beyond the end', () => {
  const rows: Row[] = [
    ['READ', 0, B, null],
    ['READ', end - B, B, null],
    ['READ', end, 0, null],
    ['READ', 0, 0, null],
    ['READ', end, B, 'EINVAL'],
    ['READ', end - B, 2 * B, 'EINVAL'],
    ['READ', 512, B, 'EINVAL'],
    ['READ', 2 ** 33 + 512, B, 'EINVAL'],
    ['READ', 0, 512, 'EINVAL'],
    ['READ', -B, B, 'EINVAL'],
    ['READ', NaN, B, 'EINVAL'],
    ['READ', 2 ** 53, B, 'EINVAL'],
    ['READ', 0, 65_536, null],
    ['READ', 0, 65_536 + B, 'EINVAL'],
    ['WRITE', end - B, B, null],
    ['WRITE', end, B, 'ENOSPC'],
    ['WRITE', 2 ** 53, B, 'ENOSPC'],
    ['WRITE', 512, B, 'EINVAL'],
    ['WRITE', 0, 65_536 + B, 'EINVAL'],
    ['WRITE_ZEROES', 0, end, null],
    ['WRITE_ZEROES', B, end, 'ENOSPC'],
    ['WRITE_ZEROES', 0, 2 ** 33 + 512, 'EINVAL'],
    ['WRITE_ZEROES', 1, B, 'EINVAL'],
    ['DISCARD', 0, end, null],
    ['DISCARD', end, B, 'EINVAL'],
    ['CACHE', 0, end, null],
    ['CACHE', end, B, 'EINVAL'],
    ['EXTENTS', 0, end, null],
    ['EXTENTS', B, end, 'EINVAL'],
    ['FLUSH', 0, 0, null],
  ];
  for (const [op, offset, length, expected] of rows) {
    assert.equal(checkIo(make(op, offset, length), info), expected, `${op} ${offset} ${length}`);
  }
});

test('a read-only device takes what changes nothing', () => {
  const readOnly = { ...info, readOnly: true };
  for (const op of Object.keys(OP) as (keyof typeof OP)[]) {
    const changes = op === 'WRITE' || op === 'WRITE_ZEROES' || op === 'DISCARD';
    assert.equal(checkIo(make(op, 0, B), readOnly), changes ? 'EROFS' : null, op);
  }
});

test('the segments of READ and WRITE must add up to the length', () => {
  for (const op of [OP.READ, OP.WRITE]) {
    const io = new Io();
    io.reset(op, 0, 2 * B, 0);
    io.segments.push(Region.plain(B), 0, B);
    assert.equal(checkIo(io, info), 'EINVAL');
    io.segments.push(Region.plain(B), 0, B);
    assert.equal(checkIo(io, info), null);
    io.segments.push(Region.plain(B), 0, 1);
    assert.equal(checkIo(io, info), 'EINVAL');
  }
});

function make(op: keyof typeof OP, offset: number, length: number): Io {
  const io = new Io();
  io.reset(OP[op], offset, length, 0);
  if (op === 'READ' || op === 'WRITE') io.segments.push(Region.plain(length), 0, length);
  return io;
}
