import assert from 'node:assert/strict';
import test from 'node:test';
import { TMF } from '../scsi.ts';
import {
  be16,
  be32,
  type Bench,
  bench,
  filled,
  read10,
  type Sent,
  senseOf,
  type TestInitiator,
  write10,
} from '../testing.ts';

const CACHING = 0x08;
const CONTROL = 0x0a;

function sense6(page: number, control = 0, allocated = 255, subpage = 0): number[] {
  return [0x1a, 8, (control << 6) | page, subpage, allocated, 0];
}

/** The page itself, without header and block descriptor. */
function page(from: TestInitiator, code: number, control = 0): number[] {
  return [...from.good(sense6(code, control)).subarray(4)];
}

function select6(from: TestInitiator, list: readonly number[], flags = 0x10): Sent {
  const dataOut = Uint8Array.from(list);
  return from.send([0x15, flags, 0, 0, list.length, 0], { dataOut });
}

function caching(wce: boolean): number[] {
  return [CACHING, 0x12, wce ? 4 : 0, ...Array<number>(17).fill(0)];
}

function control(dSense: boolean, swp: boolean): number[] {
  return [CONTROL, 0x0a, dSense ? 6 : 2, 0x10, swp ? 8 : 0, 0, 0, 0, 0xff, 0xff, 0, 0];
}

function setCache(from: TestInitiator, on: boolean): Sent {
  return select6(from, [0, 0, 0, 0, ...caching(on)]);
}

function wce(from: TestInitiator): boolean {
  return ((page(from, CACHING)[2] as number) & 4) !== 0;
}

test('MODE SENSE (6) and (10), byte by byte', () => {
  const at = bench();
  const from = at.initiator();
  const descriptor = [...be32(512), 0, 0, 2, 0];
  assert.deepEqual(
    [...from.good([0x1a, 0, CACHING, 0, 255, 0])],
    [31, 0, 0x10, 8, ...descriptor, ...caching(true)],
  );
  assert.deepEqual(
    [...from.good([0x5a, 0, CACHING, 0, 0, 0, 0, ...be16(255), 0])],
    [0, 34, 0, 0x10, 0, 0, 0, 8, ...descriptor, ...caching(true)],
  );
  // LLBAA: the long descriptor.
  assert.deepEqual(
    [...from.good([0x5a, 0x10, CACHING, 0, 0, 0, 0, ...be16(255), 0])],
    [0, 42, 0, 0x10, 1, 0, 0, 16, 0, 0, 0, 0, ...be32(512), 0, 0, 0, 0, ...be32(512)].concat(
      caching(true),
    ),
  );
  assert.deepEqual(page(from, CONTROL), control(false, false));
  assert.deepEqual([...from.good(sense6(CACHING, 0, 5))], [23, 0, 0x10, 0, CACHING]);
  const all = page(from, 0x3f);
  const codes: number[] = [];
  for (let i = 0; i < all.length; i += 2 + (all[i + 1] as number)) codes.push(all[i] as number);
  assert.deepEqual(codes, [1, 2, 8, 10, 0x1c]);
  assert.deepEqual([...from.good(sense6(0x3f, 0, 255, 0xff))].slice(4), all);
});

test('page control: changeable bits, defaults, no saved values', () => {
  const at = bench();
  const from = at.initiator();
  setCache(from, false);
  assert.equal(page(from, CACHING, 0)[2], 0);
  assert.equal(page(from, CACHING, 1)[2], 4);
  assert.equal(page(from, CACHING, 2)[2], 4);
  assert.equal(from.refused(sense6(CACHING, 3)), '5 3900');
  assert.deepEqual(page(from, CONTROL, 1), [CONTROL, 0x0a, 4, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
  assert.ok(
    page(from, 1, 1)
      .slice(2)
      .every((byte) => byte === 0),
  );
  assert.equal(from.refused(sense6(0x07)), '5 2400 C2.5');
  assert.equal(from.refused(sense6(CACHING, 0, 255, 1)), '5 2400 C2.5');
  // Where WCE means nothing it cannot be changed.
  const unsafe = bench({ mode: 'unsafe' }).initiator();
  assert.equal(page(unsafe, CACHING, 1)[2], 0);
  assert.equal(senseOf(setCache(unsafe, false)), '5 2600 P6');
  assert.equal(senseOf(setCache(unsafe, true)), 'GOOD');
  const readOnly = bench({ store: { readOnly: true } }).initiator();
  assert.equal(page(readOnly, CACHING, 1)[2], 0);
  assert.equal(readOnly.good(sense6(CACHING))[2], 0x90);
  const strict = bench({ mode: 'writethrough' }).initiator();
  assert.deepEqual(page(strict, CACHING), caching(false));
});

const change = (bytes: number[], place: number, value: number): number[] =>
  bytes.map((byte, i) => (i === place ? value : byte));

test('MODE SELECT: what cannot be is refused with its place, and nothing of the list is done', () => {
  const at = bench();
  const from = at.initiator();
  const header = [0, 0, 0, 0];
  const cases: [number[], string][] = [
    [[0, 0, 0], '5 1a00'],
    [[0, 0, 0, 8, 1, 2], '5 1a00'],
    [[0, 0, 0, 4, 0, 0, 0, 0, ...caching(true)], '5 2600 P4'],
    [[0, 0, 0, 8, ...be32(511), 0, 0, 2, 0], '5 2600 P4'],
    [[0, 0, 0, 8, ...be32(512), 0, 0, 4, 0], '5 2600 P4'],
    [[...header, CACHING], '5 1a00'],
    [[...header, ...caching(true).slice(0, 19)], '5 1a00'],
    [[...header, ...change(caching(true), 1, 0x0a)], '5 2600 P5'],
    [[...header, ...change(caching(true), 2, 5)], '5 2600 P6'],
    [[...header, ...change(caching(true), 19, 1)], '5 2600 P23'],
    [[...header, 0x07, 0x0a, ...Array<number>(10).fill(0)], '5 2600 P4'],
    [[...header, 0x48, 1, 0, 0], '5 2600 P4'],
    // Two pages, the second wrong: the first is not applied.
    [[...header, ...caching(false), ...change(control(true, false), 3, 0)], '5 2600 P27'],
    [[...header, ...control(true, true), ...caching(false).slice(0, 10)], '5 1a00'],
  ];
  for (const [list, expected] of cases) {
    assert.equal(senseOf(select6(from, list)), expected, list.join(' '));
  }
  assert.equal(senseOf(select6(from, [...header, ...caching(true)], 0)), '5 2400 C1.4');
  assert.equal(senseOf(select6(from, [...header, ...caching(true)], 0x11)), '5 2400 C1.0');
  assert.ok(wce(from) && !at.unit.modes.descriptorSense && !at.unit.modes.softwareWriteProtect);
  // Not an error: nothing, a header, a descriptor that says what is, and PS as a sense has it.
  for (const list of [
    [],
    header,
    [0, 0, 0, 8, ...be32(512), 0, 0, 2, 0],
    [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
    [...header, 0x80 | CACHING, ...caching(true).slice(1)],
  ]) {
    assert.equal(senseOf(select6(from, list)), 'GOOD');
  }
});

test('MODE SELECT (10), with the long descriptor too', () => {
  const at = bench();
  const from = at.initiator();
  const select = (list: readonly number[]): string =>
    senseOf(
      from.send([0x55, 0x10, 0, 0, 0, 0, 0, ...be16(list.length), 0], {
        dataOut: Uint8Array.from(list),
      }),
    );
  const long = [0, 0, 0, 0, ...be32(512), 0, 0, 0, 0, ...be32(512)];
  assert.equal(select([0, 0, 0, 0, 1, 0, 0, 16, ...long, ...caching(false)]), 'GOOD');
  assert.ok(!wce(from));
  assert.equal(select([0, 0, 0, 0, 0, 0, 0, 16, ...long]), '5 2600 P8');
  assert.equal(select([0, 0, 0, 0, 0, 0, 0, 0, ...caching(true), ...control(true, false)]), 'GOOD');
  assert.ok(wce(from) && at.unit.modes.descriptorSense);
});

test('D_SENSE: sense data in descriptor format, with the LBA and the field in it', () => {
  const at = bench();
  const from = at.initiator();
  assert.equal(senseOf(select6(from, [0, 0, 0, 0, ...control(true, false)])), 'GOOD');
  const refused = from.send([0x28, 0x20]);
  assert.deepEqual(
    [...(refused.task.sense as Uint8Array)],
    [0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xcd, 0, 1, 0],
  );
  at.store.holds = true;
  const reading = from.send(read10(7, 1));
  at.store.finish(at.store.pending[0], 'EIO');
  assert.deepEqual(
    [...(reading.task.sense as Uint8Array)],
    [0x72, 3, 0x11, 0, 0, 0, 0, 12, 0, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 7],
  );
});

test('SWP: writes are refused, MODE SENSE shows it, others hear of it', () => {
  const at = bench();
  const [from, other] = [at.initiator(), at.initiator()];
  assert.equal(senseOf(select6(from, [0, 0, 0, 0, ...control(false, true)])), 'GOOD');
  assert.deepEqual(other.attentions(), ['2a01']);
  assert.deepEqual(from.attentions(), []);
  assert.equal(other.refused(write10(0, 1), { dataOut: filled(1) }), '7 2702');
  assert.equal(from.good(sense6(CACHING))[2], 0x90);
  assert.equal(senseOf(select6(from, [0, 0, 0, 0, ...control(false, false)])), 'GOOD');
  other.attentions();
  other.good(write10(0, 1), { dataOut: filled(1) });
});

test('P4: WCE off ends after a flush of all before it; P3: a write in flight then ends stable', () => {
  const at = bench();
  const [from, other] = [at.initiator(), at.initiator()];
  from.good(write10(0, 1), { dataOut: filled(1) });
  at.store.holds = true;
  at.store.holdsSyncs = true;
  const flying = other.send(write10(8, 1), { dataOut: filled(2) });
  const switching = setCache(from, false);
  assert.ok(!switching.done && !flying.done);
  // Not yet: the page says on while the promise does not hold.
  assert.ok(wce(from));
  at.store.finish();
  assert.ok(!flying.done, 'P3: submitted with the cache on, completed with it going off');
  at.store.finishSync();
  assert.equal(senseOf(switching), 'GOOD');
  assert.ok(!wce(from));
  assert.equal(at.store.stable[0], 1);
  if (!flying.done) at.store.finishSync();
  assert.equal(senseOf(flying), 'GOOD');
  assert.equal(at.store.stable[8 * 512], 2);
  const after = from.send(write10(16, 1), { dataOut: filled(3) });
  at.store.finish();
  assert.ok(!after.done);
  at.store.finishSync();
  assert.equal(senseOf(after), 'GOOD');
  assert.equal(at.store.stable[16 * 512], 3);
  // And on again: at once, and writes no longer wait.
  assert.equal(senseOf(setCache(from, true)), 'GOOD');
  const last = from.send(write10(24, 1), { dataOut: filled(4) });
  at.store.finish();
  assert.equal(senseOf(last), 'GOOD');
});

test('P4: a flush that fails fails the switch, and the page still says on', () => {
  const at = bench();
  const from = at.initiator();
  from.good(write10(0, 1), { dataOut: filled(1) });
  at.store.nextSync = 'EIO';
  assert.equal(senseOf(setCache(from, false)), '3 0c00');
  assert.ok(wce(from));
});

test('switches of the cache: other nexuses hear of them, from whatever face', () => {
  const at = bench();
  const [from, other] = [at.initiator(), at.initiator()];
  assert.equal(senseOf(setCache(from, false)), 'GOOD');
  assert.deepEqual(from.attentions(), []);
  assert.deepEqual(other.attentions(), ['2a01']);
  assert.equal(senseOf(setCache(from, false)), 'GOOD');
  assert.deepEqual(other.attentions(), []);
  // Another protocol switched it: all hear of it.
  at.disk.setWriteCache(true, () => {});
  assert.deepEqual(from.attentions(), ['2a01']);
  assert.deepEqual(other.attentions(), ['2a01']);
});

test('two switches at once: each initiator hears of the other’s', () => {
  const at = bench();
  const [a, b] = [at.initiator(), at.initiator()];
  a.good(write10(0, 1), { dataOut: filled(1) });
  at.store.holdsSyncs = true;
  const off = setCache(a, false);
  assert.ok(!off.done);
  const on = setCache(b, true);
  assert.equal(senseOf(on), 'GOOD');
  at.store.finishSync();
  // Overtaken: the cache is on, and the one who switched it off is told that it did not hold.
  assert.notEqual(senseOf(off), 'GOOD');
  assert.ok(wce(b));
});

test('a reset puts WCE, D_SENSE and SWP back, and all hear of the reset', () => {
  const at: Bench = bench();
  const from = at.initiator();
  const both = [...caching(false), ...control(true, true)];
  assert.equal(senseOf(select6(from, [0, 0, 0, 0, ...both])), 'GOOD');
  let done = false;
  at.target.manage(from.nexus, TMF.LOGICAL_UNIT_RESET, 0, 0, () => {
    done = true;
  });
  assert.ok(done);
  assert.equal(from.attentions()[0], '2903');
  assert.ok(wce(from));
  assert.deepEqual(page(from, CONTROL), control(false, false));
});
