import assert from 'node:assert/strict';
import test from 'node:test';
import { BlockError, codeOfErrno } from './errors.ts';
import { FLAG, Io, IoPool, OP, type IoOwner } from './io.ts';
import { MAX_LAYERS } from './limits.ts';
import { Region } from './memory.ts';

test('owners are told in reverse order, each with the number it stored', () => {
  const io = new Io();
  io.reset(OP.WRITE, 4096, 512, FLAG.FUA);
  const told: [string, number, string | null][] = [];
  const owner = (name: string, error: 'EIO' | null | undefined): IoOwner => ({
    ioDone(done) {
      told.push([name, done.saved, done.error]);
      if (error !== undefined) done.complete(error);
    },
  });
  io.push(owner('maker', undefined), 11);
  io.push(owner('layer', 'EIO'), 22);
  io.push(owner('lower', null), 33);
  assert.ok(io.inFlight);
  io.complete('ENOSPC');
  assert.deepEqual(told, [
    ['lower', 33, 'ENOSPC'],
    ['layer', 22, null],
    ['maker', 11, 'EIO'],
  ]);
  assert.ok(!io.inFlight);
});

test('our own mistakes with an Io stop the process', () => {
  const io = new Io();
  const owner: IoOwner = { ioDone() {} };
  assert.throws(() => io.complete(null), { message: 'an Io completed twice' });
  io.push(owner);
  assert.throws(() => io.reset(OP.READ, 0, 0, 0), { message: 'an Io is reused while in flight' });
  assert.throws(() => new IoPool().give(io), { message: 'an Io is given back in flight' });
  io.complete(null);
  assert.throws(() => io.complete(null), { message: 'an Io completed twice' });
  for (let i = 0; i < MAX_LAYERS; i += 1) io.push(owner);
  assert.throws(() => io.push(owner), { message: 'too many layers over one store' });
});

test('reset leaves nothing of the last use', () => {
  const io = new Io();
  io.reset(OP.READ, 1, 2, 3);
  io.segments.push(Region.plain(4), 0, 4);
  io.extents.push(5, 0);
  io.push({ ioDone() {} });
  io.complete('EIO');
  io.reset(OP.FLUSH, 0, 0, 0);
  assert.deepEqual(
    [io.op, io.offset, io.length, io.flags, io.error, io.segments.count, io.extents.count],
    [OP.FLUSH, 0, 0, 0, null, 0, 0],
  );
});

test('mutates is true for what changes the disk', () => {
  const io = new Io();
  for (const [name, op] of Object.entries(OP)) {
    io.reset(op, 0, 0, 0);
    assert.equal(io.mutates, ['WRITE', 'WRITE_ZEROES', 'DISCARD'].includes(name), name);
  }
});

test('flags are distinct bits, ops distinct numbers', () => {
  const flags = Object.values(FLAG);
  assert.equal(
    flags.reduce((sum, flag) => sum | flag, 0),
    flags.reduce((sum, flag) => sum + flag, 0),
  );
  assert.equal(new Set(Object.values(OP)).size, Object.keys(OP).length);
});

test('a pool lends again what was given back, without its context, and keeps no more than its limit', () => {
  const pool = new IoPool(1);
  const [a, b] = [pool.take(), pool.take()];
  assert.notEqual(a, b);
  a.context = { mine: true };
  pool.give(a);
  pool.give(b);
  assert.equal(pool.take(), a);
  assert.equal(a.context, null);
  assert.notEqual(pool.take(), b);
});

test('errno becomes the code of the same name, and EIO where we have none', () => {
  const table: [number, string][] = [
    [5, 'EIO'],
    [28, 'ENOSPC'],
    [27, 'ENOSPC'],
    [122, 'ENOSPC'],
    [30, 'EROFS'],
    [95, 'EOPNOTSUPP'],
    [9, 'EIO'],
    [71, 'EIO'],
  ];
  for (const [errno, code] of table) assert.equal(codeOfErrno(errno), code);
  const error = new BlockError('ENOSPC', 'full');
  assert.deepEqual([error.name, error.code, error.message], ['BlockError', 'ENOSPC', 'full']);
});
