import assert from 'node:assert/strict';
import test from 'node:test';
import { OP } from '../../../block/io.ts';
import { TMF } from '../scsi.ts';
import {
  addUnit,
  be16,
  be32,
  be64,
  bench,
  filled,
  read10,
  senseOf,
  type Sent,
  type SendOptions,
  type TestInitiator,
  write10,
} from '../testing.ts';

/** Identification descriptor of a logical unit of the bench. */
function cscd(lun: number, change: Readonly<Record<number, number>> = {}): number[] {
  const naa = [0x30, 1, 2, 3, 4, 5, 6, lun];
  const bytes = [0xe4, 0, 0, 0, 1, 3, 0, 8, ...naa, ...Array<number>(12).fill(0), 0, 0, 2, 0];
  for (const [at, byte] of Object.entries(change)) bytes[Number(at)] = byte;
  return bytes;
}

function blocks(from: number, to: number, count: number, source = 0, target = 0): number[] {
  const head = [2, 0, 0, 0x18, ...be16(source), ...be16(target)];
  return [...head, 0, 0, ...be16(count), ...be64(from), ...be64(to)];
}

function bytes(from: number, to: number, count: number, offsets = [0, 0]): number[] {
  const head = [0x0a, 0, 0, 0x1c, 0, 0, 0, 0, ...be32(count), ...be64(from), ...be64(to)];
  return [...head, ...be16(offsets[0] ?? 0), ...be16(offsets[1] ?? 0)];
}

interface Copy {
  readonly id?: number;
  readonly usage?: number;
  readonly cscds?: readonly number[][];
  readonly segments?: readonly number[][];
  readonly cut?: number;
}

function copy(from: TestInitiator, what: Copy = {}, options: SendOptions = {}): Sent {
  const { id = 0, usage = 0, cut = 0 } = what;
  const cscds = (what.cscds ?? [cscd(0)]).flat();
  const segments = (what.segments ?? [blocks(0, 100, 8)]).flat();
  const head = [id, usage << 3, ...be16(cscds.length), 0, 0, 0, 0, ...be32(segments.length)];
  const list = Uint8Array.from([...head, 0, 0, 0, 0, ...cscds, ...segments]);
  const dataOut = list.subarray(0, list.length - cut);
  const cdb = [0x83, 0, ...Array<number>(8).fill(0), ...be32(dataOut.length), 0, 0];
  return from.send(cdb, { dataOut, ...options });
}

function results(from: TestInitiator, action: number, id = 0, allocated = 1024): Sent {
  return from.send([0x84, action, id, 0, 0, 0, 0, 0, 0, 0, ...be32(allocated), 0, 0]);
}

test('blocks go from one place to another, and to another logical unit', () => {
  const at = bench();
  const other = addUnit(at.target, 1);
  const from = at.initiator();
  at.store.bytes.fill(0x11, 0, 16 * 512);
  assert.equal(senseOf(copy(from, { segments: [blocks(0, 100, 16)] })), 'GOOD');
  assert.ok(at.store.bytes.subarray(100 * 512, 116 * 512).every((byte) => byte === 0x11));
  assert.equal(at.store.bytes[116 * 512], 0);
  const cscds = [cscd(0), cscd(1)];
  const segments = [blocks(0, 3, 2, 0, 1), bytes(0, 5, 1024, [512, 512])];
  assert.equal(senseOf(copy(from, { cscds, segments })), 'GOOD');
  assert.ok(other.store.bytes.subarray(3 * 512, 5 * 512).every((byte) => byte === 0x11));
  // The second has byte offsets, within LUN 0.
  assert.equal(at.store.bytes[6 * 512], 0x11);
});

test('an empty list, and one of no segments, is no error', () => {
  const from = bench().initiator();
  from.good([0x83, 0, ...Array<number>(14).fill(0)]);
  assert.equal(senseOf(copy(from, { segments: [] })), 'GOOD');
  assert.equal(senseOf(copy(from, { segments: [blocks(0, 0, 0)] })), 'GOOD');
});

test('parameter lists: lengths, limits, types, as libiscsi’s suite wants them', () => {
  const from = bench().initiator();
  const cases: [Copy, string][] = [
    [{ cut: 1 }, '5 1a00'],
    [{ cut: 28 }, '5 1a00'],
    [{ cut: 80 }, '5 1a00'],
    [{ cscds: Array.from({ length: 17 }, () => cscd(0)) }, '5 2606'],
    [{ segments: Array.from({ length: 65 }, () => blocks(0, 1, 1)) }, '5 2608'],
    [
      {
        cscds: Array.from({ length: 17 }, () => cscd(0)),
        segments: Array.from({ length: 75 }, () => blocks(0, 1, 1)),
      },
      '5 1a00',
    ],
    [{ cscds: [cscd(0, { 0: 0xe0 })] }, '5 2607'],
    [{ segments: [[3, ...blocks(0, 1, 1).slice(1)]] }, '5 2609'],
    [{ cscds: [cscd(0, { 1: 1 })] }, '5 2600 P17'],
    [{ cscds: [cscd(0, { 30: 4 })] }, '5 2600 P45'],
    [{ cscds: [cscd(0).slice(0, 31)], segments: [] }, '5 2600 P2'],
    [{ segments: [[2, 0, 0, 0x17, ...blocks(0, 1, 1).slice(4)]] }, '5 2600 P50'],
    [{ segments: [bytes(0, 0, 64 * 1024 * 1024 + 512)] }, '5 2600 P56'],
    [{ usage: 1 }, '5 2600 P1'],
    [{ usage: 3, id: 1 }, '5 2600 P0'],
    // LU ID TYPE is ignored.
    [{ cscds: [cscd(0, { 1: 0x80 })] }, 'GOOD'],
    [{ usage: 3 }, 'GOOD'],
  ];
  for (const [what, expected] of cases) {
    assert.equal(senseOf(copy(from, what)), expected, JSON.stringify(what).slice(0, 80));
  }
  assert.equal(senseOf(copy(from, {}, { announced: 40 })), '5 1a00');
  assert.equal(from.refused([0x83, 0, ...Array<number>(8).fill(0), ...be32(15), 0, 0]), '5 1a00');
  assert.equal(from.refused([0x83, 1, ...Array<number>(14).fill(0)]), '5 2400 C1.4');
});

test('segments that cannot be copied abort the copy; those before them stay copied', () => {
  const at = bench();
  const readOnly = addUnit(at.target, 1, { store: { readOnly: true } });
  const from = at.initiator();
  at.store.bytes.fill(0x22, 0, 512);
  const last = 512 - 1;
  const aborts = (segments: number[][], cscds = [cscd(0), cscd(1), cscd(9)]): string =>
    senseOf(copy(from, { cscds, segments }));
  assert.equal(aborts([blocks(0, 9, 1), blocks(0, 1, 1, 0, 7)]), 'a 0d02');
  assert.equal(at.store.bytes[9 * 512], 0x22);
  assert.equal(aborts([blocks(0, 1, 1, 2, 0)]), 'a 0d02');
  assert.equal(aborts([blocks(0, last, 2)]), 'a 0000');
  assert.equal(aborts([blocks(last, 0, 2)]), 'a 0000');
  assert.equal(aborts([blocks(2 ** 53 + 2, 0, 1)]), 'a 0000');
  assert.equal(aborts([blocks(0, 0, 1, 0, 1)]), 'a 0d01');
  assert.equal(aborts([bytes(0, 0, 100)]), 'a 260a');
  assert.equal(aborts([bytes(0, 0, 512, [1, 0])]), 'a 260a');
  assert.ok(readOnly.unit.writeProtected);
  at.store.failures.set(OP.READ, 'EIO');
  assert.equal(aborts([blocks(0, 1, 1)]), 'a 0d01');
  at.store.failures.set(OP.WRITE, 'EIO');
  assert.equal(aborts([blocks(0, 1, 1)]), 'a 0d01');
});

test('RECEIVE COPY RESULTS: status once, details of failures, operating parameters', () => {
  const at = bench();
  const from = at.initiator();
  assert.equal(senseOf(results(from, 0, 1)), '5 2400 C2');
  copy(from, { id: 1, segments: [blocks(0, 10, 4), blocks(0, 20, 4)] });
  // Another nexus has other lists.
  assert.equal(senseOf(results(at.initiator(), 0, 1)), '5 2400 C2');
  assert.deepEqual([...results(from, 1, 1).data], [0, 0, 0, 0]);
  assert.deepEqual([...results(from, 4, 1).data], [0, 0, 0, 0]);
  assert.deepEqual([...results(from, 0, 1).data], [0, 0, 0, 8, 1, 0, 2, 0, ...be32(8 * 512)]);
  assert.equal(senseOf(results(from, 0, 1)), '5 2400 C2');
  // Discarded when done well, kept when not.
  copy(from, { id: 2, usage: 2 });
  assert.equal(senseOf(results(from, 0, 2)), '5 2400 C2');
  copy(from, { id: 2, usage: 2, segments: [blocks(0, 10, 4), blocks(0, 10, 1, 0, 5)] });
  const failed = [0, 0, 0, 8, 2, 0, 1, 0, ...be32(4 * 512)];
  assert.deepEqual([...results(from, 0, 2).data], failed);
  const details = results(from, 4, 2).data;
  assert.equal(details.length, 60 + 18);
  assert.deepEqual([...details.subarray(0, 4)], be32(74));
  assert.deepEqual([...details.subarray(56, 60)], [2, 0, 0, 18]);
  assert.deepEqual([details[62], details[72], details[73]], [0x0a, 0x0d, 0x02]);
  const parameters = [...results(from, 3).data];
  assert.deepEqual(parameters, [
    ...be32(43),
    1,
    0,
    0,
    0,
    ...be16(16),
    ...be16(64),
    ...be32(2560),
    ...be32(64 * 1024 * 1024),
    ...Array<number>(14).fill(0),
    ...be16(16),
    16,
    9,
    0,
    0,
    0,
    0,
    0,
    3,
    0x02,
    0x0a,
    0xe4,
  ]);
  assert.deepEqual([...results(from, 3, 0, 5).data], parameters.slice(0, 5));
});

test('a copy under way: its status, its list identifier, its end by an abort', () => {
  const at = bench({ store: { sizeBytes: 8 * 1024 * 1024 } });
  const from = at.initiator();
  at.store.holds = true;
  const copying = copy(from, { id: 7, segments: [blocks(0, 8192, 4096)] });
  assert.ok(!copying.done);
  assert.deepEqual([...results(from, 0, 7).data], [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
  assert.equal(senseOf(copy(from, { id: 7 })), '5 0016');
  let aborted = false;
  at.target.manage(from.nexus, TMF.ABORT_TASK, 0, copying.task.tag, () => {
    aborted = true;
  });
  assert.ok(!aborted);
  at.store.settle();
  assert.ok(aborted && copying.done && copying.task.aborted);
  assert.deepEqual([...results(from, 0, 7).data.subarray(4, 7)], [2, 0, 0]);
});

test('a copy is a write to others: no COMPARE AND WRITE in the middle of it', () => {
  const at = bench();
  const from = at.initiator();
  at.store.bytes.fill(1, 0, 512);
  at.store.holds = true;
  const copying = copy(from, { segments: [blocks(0, 50, 1)] });
  const compare = [0x89, 0, ...be64(50), 0, 0, 0, 1, 0, 0];
  const dataOut = Uint8Array.from([...filled(1), ...filled(2)]);
  const comparing = from.send(compare, { dataOut });
  assert.ok(!comparing.ready);
  at.store.settle();
  assert.equal(senseOf(copying), 'GOOD');
  assert.equal(senseOf(comparing), 'GOOD');
  at.store.holds = false;
  assert.deepEqual(from.good(read10(50, 1)), filled(2));
});

test('reservations of the other end count too', () => {
  const at = bench();
  addUnit(at.target, 1);
  const [from, other] = [at.initiator(), at.initiator()];
  other.good([0x16, 0, 0, 0, 0, 0], { lun: 1 });
  const cscds = [cscd(0), cscd(1)];
  assert.equal(senseOf(copy(from, { cscds, segments: [blocks(0, 0, 1, 0, 1)] })), 'a 0d01');
  other.good([0x17, 0, 0, 0, 0, 0], { lun: 1 });
  other.good([0x16, 0, 0, 0, 0, 0]);
  assert.equal(senseOf(copy(from)), 'conflict');
});

test('the Third-party Copy page lists what there is', () => {
  const from = bench().initiator();
  const page = [...from.good([0x12, 1, 0x8f, 1, 0, 0])];
  assert.deepEqual(page.slice(0, 4), [0, 0x8f, 0, page.length - 4]);
  const commands = [0x83, 1, 0, 0x84, 4, 0, 1, 3, 4];
  assert.deepEqual(page.slice(4, 20), [0, 1, 0, 12, 9, ...commands, 0, 0]);
  const types: number[] = [];
  for (let at = 4; at < page.length; at += 4 + (page[at + 3] as number)) {
    types.push((page[at] as number) * 256 + (page[at + 1] as number));
    assert.equal((page[at + 3] as number) % 4, 0);
  }
  assert.deepEqual(types, [1, 4, 8, 0x8001]);
  from.good(write10(0, 1), { dataOut: filled(1) });
});
