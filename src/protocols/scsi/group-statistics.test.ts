import assert from 'node:assert/strict';
import test from 'node:test';
import { be16, be32, be64, type Bench, bench, filled, type TestInitiator } from './testing.ts';

const CURRENT = 1;
const DEFAULT = 3;

function logSense(group: number, control = CURRENT, pointer = 0, allocated = 256): number[] {
  return [0x4d, 0, (control << 6) | 0x19, group, 0, ...be16(pointer), ...be16(allocated), 0];
}

/** The fields of a group's page: reads, writes, blocks received and transmitted, microseconds of reads and of writes. */
function fields(from: TestInitiator, group: number, control = CURRENT): number[] {
  const page = from.good(logSense(group, control));
  const view = new DataView(page.buffer, page.byteOffset);
  return Array.from({ length: 6 }, (_, i) => Number(view.getBigUint64(8 + 8 * i)));
}

type Command = readonly [cdb: number[], dataOut?: Uint8Array];

/** One of each command that counts, of blocks that each differ in number. */
function commands(group: number): Command[] {
  const list = [0, 22, 0, 16, 0, 0, 0, 0, ...be64(0), ...be32(2), 0, 0, 0, 0];
  return [
    [[0x28, 0, ...be32(0), group, ...be16(1), 0]],
    [[0xa8, 0, ...be32(0), ...be32(2), group, 0]],
    [[0x88, 0, ...be64(0), ...be32(4), group, 0]],
    [[0x2a, 0, ...be32(0), group, ...be16(1), 0], filled(1, 1)],
    [[0xaa, 0, ...be32(0), ...be32(2), group, 0], filled(1, 2)],
    [[0x8a, 0, ...be64(0), ...be32(4), group, 0], filled(1, 4)],
    [[0x2e, 0, ...be32(0), group, ...be16(8), 0], filled(1, 8)],
    [[0xae, 0, ...be32(0), ...be32(16), group, 0], filled(1, 16)],
    [[0x8e, 0, ...be64(0), ...be32(32), group, 0], filled(1, 32)],
    [[0x42, 0, 0, 0, 0, 0, group, ...be16(list.length), 0], Uint8Array.from(list)],
  ];
}

function run(at: Bench, group: number): void {
  const from = at.initiator();
  for (const [cdb, dataOut] of commands(group)) {
    from.good(cdb, dataOut === undefined ? {} : { dataOut });
  }
}

test('commands are counted in the group that they name, whoever sends them, and in no other', () => {
  const at = bench({ unit: { thin: true } });
  for (const group of [5, 31, 5]) run(at, group);
  const from = at.initiator();
  assert.deepEqual(fields(from, 5), [6, 14, 126, 14, 0, 0]);
  assert.deepEqual(fields(from, 31), [3, 7, 63, 7, 0, 0]);
  assert.deepEqual(fields(from, 4), [0, 0, 0, 0, 0, 0]);
  assert.deepEqual(fields(from, 5, DEFAULT), [0, 0, 0, 0, 0, 0]);
});

test('no group, and groups that have no page, are accepted and not counted', () => {
  const at = bench({ unit: { thin: true } });
  for (const group of [0, 32, 63]) run(at, group);
  const from = at.initiator();
  for (let group = 1; group < 32; group += 1) {
    assert.deepEqual(fields(from, group), [0, 0, 0, 0, 0, 0]);
  }
});

test('time counts from the begin of a command to its end; blocks, when all have been moved', () => {
  const at = bench();
  const from = at.initiator();
  at.store.holds = true;
  const read = from.send([0x28, 0, ...be32(0), 3, ...be16(2), 0]);
  at.timers.now += 2.5;
  at.store.finish();
  assert.ok(read.done);
  const failing = from.send([0x2a, 0, ...be32(0), 3, ...be16(2), 0], { dataOut: filled(1, 2) });
  at.timers.now += 4;
  at.store.finish(undefined, 'EIO');
  assert.equal(failing.status, 2);
  assert.equal(from.refused([0x28, 0, ...be32(4096), 3, ...be16(2), 0]), '5 2100');
  assert.deepEqual(fields(from, 3), [2, 1, 0, 2, 2500, 4000]);
});

test('the page, byte by byte, and what it cannot be asked for', () => {
  const from = bench().initiator();
  const page = [...from.good(logSense(9))];
  assert.deepEqual(page.slice(0, 8), [0xd9, 9, 0, 52, 0, 1, 0x22, 48]);
  assert.equal(page.length, 56);
  assert.equal(from.good(logSense(9, CURRENT, 1)).length, 56);
  assert.deepEqual([...from.good(logSense(9, CURRENT, 0, 5))], page.slice(0, 5));
  assert.equal(from.refused(logSense(9, CURRENT, 2)), '5 2400 C5');
  for (const threshold of [0, 2]) {
    assert.equal(from.refused(logSense(9, threshold)), '5 2400 C2.7');
  }
  for (const group of [0, 32, 255]) assert.equal(from.refused(logSense(group)), '5 2400 C2.5');
});

test('a group narrows no flush: what another group wrote is covered as well', () => {
  const at = bench();
  const from = at.initiator();
  from.good([0x2a, 0, ...be32(0), 1, ...be16(1), 0], { dataOut: filled(7) });
  from.good([0x35, 0, ...be32(0), 2, ...be16(0), 0]);
  assert.equal(at.store.stable[0], 7);
});
