import assert from 'node:assert/strict';
import test from 'node:test';
import { PersistentReservations, type KeptReservations } from '../persistent-reservations.ts';
import { PR_TYPE } from '../reservation-state.ts';
import { STATUS, TMF } from '../scsi.ts';
import {
  addUnit,
  type Bench,
  be16,
  be32,
  be64,
  bench,
  filled,
  read10,
  type Sent,
  senseOf,
  type SendOptions,
  sync10,
  type TestInitiator,
  transportIdOf,
  write10,
} from '../testing.ts';

const TUR = [0, 0, 0, 0, 0, 0];
const MODE_SENSE = [0x1a, 0, 0x3f, 0, 255, 0];

const ACTION = {
  register: 0,
  reserve: 1,
  release: 2,
  clear: 3,
  preempt: 4,
  preemptAndAbort: 5,
  ignore: 6,
  move: 7,
} as const;

interface Out {
  readonly key?: number | bigint;
  readonly action?: number | bigint;
  readonly type?: number;
  readonly flags?: number;
  readonly ids?: readonly Uint8Array[];
}

function out(
  from: TestInitiator,
  action: keyof typeof ACTION,
  { key = 0, action: actionKey = 0, type = 0, flags = 0, ids }: Out = {},
  options: SendOptions = {},
): Sent {
  const extra = ids === undefined ? [] : ids.flatMap((id) => [...id]);
  const more = ids === undefined ? [] : [...be32(extra.length), ...extra];
  const list = [...be64(key), ...be64(actionKey), 0, 0, 0, 0, flags, 0, 0, 0, ...more];
  const cdb = [0x5f, ACTION[action], type, 0, 0, ...be32(list.length), 0];
  return from.send(cdb, { dataOut: Uint8Array.from(list), ...options });
}

function does(...args: Parameters<typeof out>): void {
  assert.equal(senseOf(out(...args)), 'GOOD', args[1]);
}

function register(from: TestInitiator, key: number): void {
  does(from, 'ignore', { action: key });
}

function reserveIn(from: TestInitiator, action: number, allocated = 4096): Uint8Array {
  return from.good([0x5e, action, 0, 0, 0, 0, 0, ...be16(allocated), 0]);
}

function keys(from: TestInitiator): number[] {
  const data = reserveIn(from, 0);
  const view = new DataView(data.buffer, data.byteOffset);
  assert.equal(view.getUint32(4), data.length - 8);
  const found: number[] = [];
  for (let at = 8; at < data.length; at += 8) found.push(Number(view.getBigUint64(at)));
  return found;
}

function generation(from: TestInitiator): number {
  return new DataView(reserveIn(from, 0, 4).buffer).getUint32(0);
}

/** [key, type] of the reservation, or null. */
function reservation(from: TestInitiator): [number, number] | null {
  const data = reserveIn(from, 1);
  if (data.length === 8) return null;
  assert.equal(data.length, 24);
  const view = new DataView(data.buffer, data.byteOffset);
  assert.equal(view.getUint32(4), 16);
  return [Number(view.getBigUint64(8)), data[21] as number];
}

function twoOn(at: Bench = bench()): [TestInitiator, TestInitiator, Bench] {
  const [a, b] = [at.initiator(), at.initiator()];
  register(a, 0xa);
  register(b, 0xb);
  return [a, b, at];
}

function canRead(from: TestInitiator): boolean {
  const sense = senseOf(from.send(read10(0, 1)));
  assert.ok(sense === 'GOOD' || sense === 'conflict', sense);
  return sense === 'GOOD';
}

function canWrite(from: TestInitiator): boolean {
  const sense = senseOf(from.send(write10(0, 1), { dataOut: filled(1) }));
  assert.ok(sense === 'GOOD' || sense === 'conflict', sense);
  return sense === 'GOOD';
}

test('each type lets those read and write that it says', () => {
  // [SPC-4 table 67]: registered may read and write, unregistered may read and write.
  const table: [number, boolean, boolean, boolean, boolean][] = [
    [PR_TYPE.WRITE_EXCLUSIVE, true, false, true, false],
    [PR_TYPE.EXCLUSIVE_ACCESS, false, false, false, false],
    [PR_TYPE.WRITE_EXCLUSIVE_REGISTRANTS_ONLY, true, true, true, false],
    [PR_TYPE.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, true, true, false, false],
    [PR_TYPE.WRITE_EXCLUSIVE_ALL_REGISTRANTS, true, true, true, false],
    [PR_TYPE.EXCLUSIVE_ACCESS_ALL_REGISTRANTS, true, true, false, false],
  ];
  for (const [type, readsAsRegistered, writesAsRegistered, reads, writes] of table) {
    const [a, b, at] = twoOn();
    const c = at.initiator();
    does(a, 'reserve', { key: 0xa, type });
    const allRegistrants = type >= PR_TYPE.WRITE_EXCLUSIVE_ALL_REGISTRANTS;
    assert.deepEqual(reservation(a), [allRegistrants ? 0 : 0xa, type]);
    assert.ok(canRead(a) && canWrite(a));
    assert.equal(canRead(b), readsAsRegistered, `type ${type}`);
    assert.equal(canWrite(b), writesAsRegistered, `type ${type}`);
    assert.equal(canRead(c), reads, `type ${type}`);
    assert.equal(canWrite(c), writes, `type ${type}`);
    // Always allowed; and what counts as a write.
    c.good(TUR);
    c.good([0x12, 0, 0, 0, 96, 0]);
    assert.equal(senseOf(c.send(sync10(0, 0))), 'conflict');
  }
});

test('REGISTER takes the key there is, and generation counts registrations only', () => {
  const at = bench();
  const a = at.initiator();
  assert.equal(generation(a), 0);
  assert.equal(senseOf(out(a, 'register', { key: 5, action: 1 })), 'conflict');
  does(a, 'register', { key: 0, action: 0 });
  assert.equal(generation(a), 0);
  does(a, 'register', { key: 0, action: 1 });
  assert.deepEqual(keys(a), [1]);
  assert.equal(senseOf(out(a, 'register', { key: 2, action: 3 })), 'conflict');
  does(a, 'register', { key: 1, action: 3 });
  assert.deepEqual(keys(a), [3]);
  does(a, 'ignore', { key: 99, action: 0xffff_ffff_ffff_ffffn });
  assert.deepEqual(reserveIn(a, 0).slice(8), filled(0xff).subarray(0, 8));
  does(a, 'reserve', { key: 0xffff_ffff_ffff_ffffn, type: 1 });
  does(a, 'release', { key: 0xffff_ffff_ffff_ffffn, type: 1 });
  assert.equal(generation(a), 3);
  does(a, 'register', { key: 0xffff_ffff_ffff_ffffn, action: 0 });
  assert.deepEqual(keys(a), []);
  assert.equal(generation(a), 4);
});

test('service actions of nexuses without the key conflict', () => {
  const [a, , at] = twoOn();
  const c = at.initiator();
  for (const action of ['reserve', 'release', 'clear', 'preempt', 'preemptAndAbort'] as const) {
    assert.equal(senseOf(out(c, action, { key: 0xa, action: 0xa, type: 1 })), 'conflict');
    assert.equal(senseOf(out(a, action, { key: 0xc, action: 0xb, type: 1 })), 'conflict');
  }
});

test('RESERVE: again by its holder is nothing, another type or another nexus conflicts', () => {
  const [a, b] = twoOn();
  does(a, 'reserve', { key: 0xa, type: 1 });
  does(a, 'reserve', { key: 0xa, type: 1 });
  assert.equal(senseOf(out(a, 'reserve', { key: 0xa, type: 3 })), 'conflict');
  assert.equal(senseOf(out(b, 'reserve', { key: 0xb, type: 1 })), 'conflict');
  assert.equal(senseOf(out(a, 'reserve', { key: 0xa, type: 2 })), '5 2400 C2.3');
  assert.equal(senseOf(out(a, 'reserve', { key: 0xa, type: 0x11 })), '5 2400 C2.7');
});

test('RELEASE: the wrong type is refused, others do nothing, registrants hear of theirs', () => {
  const [a, b] = twoOn();
  does(a, 'release', { key: 0xa, type: 1 });
  does(a, 'reserve', { key: 0xa, type: 5 });
  assert.equal(senseOf(out(a, 'release', { key: 0xa, type: 1 })), '5 2604');
  does(b, 'release', { key: 0xb, type: 5 });
  assert.deepEqual(reservation(a), [0xa, 5]);
  does(a, 'release', { key: 0xa, type: 5 });
  assert.equal(reservation(a), null);
  assert.deepEqual(b.attentions(), ['2a04']);
  assert.deepEqual(a.attentions(), []);
  does(a, 'reserve', { key: 0xa, type: 1 });
  does(a, 'release', { key: 0xa, type: 1 });
  assert.deepEqual(b.attentions(), []);
  // All registrants: any of them may release it.
  does(a, 'reserve', { key: 0xa, type: 7 });
  does(b, 'release', { key: 0xb, type: 7 });
  assert.deepEqual(a.attentions(), ['2a04']);
  assert.equal(reservation(a), null);
});

test('unregistering the holder releases, unless all registrants hold it', () => {
  for (const [type, code] of [
    [1, []],
    [6, ['2a04']],
  ] as const) {
    const [a, b] = twoOn();
    does(a, 'reserve', { key: 0xa, type });
    does(a, 'register', { key: 0xa, action: 0 });
    assert.equal(reservation(b.attentions().length === code.length ? b : a), null);
  }
  const [a, b] = twoOn();
  does(a, 'reserve', { key: 0xa, type: 8 });
  does(a, 'register', { key: 0xa, action: 0 });
  assert.deepEqual(reservation(b), [0, 8]);
  assert.ok(!canRead(a) && canRead(b));
  does(b, 'register', { key: 0xb, action: 0 });
  assert.equal(reservation(b), null);
});

test('CLEAR takes everything away, and the others hear of it', () => {
  const [a, b, at] = twoOn();
  const c = at.initiator();
  does(a, 'reserve', { key: 0xa, type: 3 });
  does(b, 'clear', { key: 0xb });
  assert.deepEqual(a.attentions(), ['2a03']);
  assert.deepEqual(b.attentions(), []);
  assert.deepEqual(c.attentions(), []);
  assert.deepEqual(keys(c), []);
  assert.equal(reservation(c), null);
  assert.equal(generation(c), 3);
});

test('PREEMPT of the holder takes the reservation over, with the type it asks for', () => {
  const [a, b, at] = twoOn();
  const c = at.initiator();
  register(c, 0xc);
  does(a, 'reserve', { key: 0xa, type: 1 });
  const before = generation(a);
  does(b, 'preempt', { key: 0xb, action: 0xa, type: 3 });
  assert.equal(generation(b), before + 1);
  assert.deepEqual(reservation(b), [0xb, 3]);
  assert.deepEqual(keys(b), [0xb, 0xc]);
  assert.deepEqual(a.attentions(), ['2a05']);
  // The type changed: the others hear that the old one was released.
  assert.deepEqual(c.attentions(), ['2a04']);
  assert.ok(!canRead(a) && canWrite(b));
});

test('PREEMPT of another key takes registrations only; unknown and zero keys are refused', () => {
  const [a, b, at] = twoOn();
  const c = at.initiator();
  register(c, 0xb);
  does(a, 'reserve', { key: 0xa, type: 5 });
  assert.equal(senseOf(out(a, 'preempt', { key: 0xa, action: 0x77, type: 5 })), 'conflict');
  assert.equal(senseOf(out(a, 'preempt', { key: 0xa, action: 0, type: 5 })), '5 2600');
  does(a, 'preempt', { key: 0xa, action: 0xb, type: 1 });
  assert.deepEqual(reservation(a), [0xa, 5]);
  assert.deepEqual(keys(a), [0xa]);
  assert.deepEqual(b.attentions(), ['2a05']);
  assert.deepEqual(c.attentions(), ['2a05']);
});

test('PREEMPT under all registrants: key zero takes over, another key only removes', () => {
  const [a, b, at] = twoOn();
  const c = at.initiator();
  register(c, 0xc);
  does(a, 'reserve', { key: 0xa, type: 7 });
  does(a, 'preempt', { key: 0xa, action: 0xc, type: 7 });
  assert.deepEqual(reservation(a), [0, 7]);
  assert.deepEqual(keys(a), [0xa, 0xb]);
  does(b, 'preempt', { key: 0xb, action: 0, type: 1 });
  assert.deepEqual(reservation(b), [0xb, 1]);
  assert.deepEqual(keys(b), [0xb]);
  assert.deepEqual(a.attentions(), ['2a05']);
});

test('PREEMPT AND ABORT ends the commands of those it preempts, and waits for them', () => {
  const [a, b, at] = twoOn();
  does(a, 'reserve', { key: 0xa, type: 1 });
  at.store.holds = true;
  const writing = a.send(write10(0, 1), { dataOut: filled(7) });
  const mine = b.send(read10(0, 1));
  const preempting = out(b, 'preemptAndAbort', { key: 0xb, action: 0xa, type: 1 });
  assert.ok(!preempting.done && writing.aborting);
  assert.equal(at.store.pending.length, 2);
  at.store.finish();
  assert.ok(writing.done && writing.task.aborted);
  assert.ok(preempting.done && !mine.done);
  at.store.finish();
  assert.ok(!mine.task.aborted);
  at.store.holds = false;
  // No answer to the command was sent: the nexus is told.
  assert.deepEqual(a.attentions(), ['2a05', '2f00']);
  assert.deepEqual(reservation(b), [0xb, 1]);
});

function move(
  from: TestInitiator,
  key: number,
  actionKey: number,
  name: string,
  flags = 0,
): string {
  const id = transportIdOf(name);
  const list = [...be64(key), ...be64(actionKey), 0, flags, 0, 1, ...be32(id.length), ...id];
  const cdb = [0x5f, 7, 0, 0, 0, ...be32(list.length), 0];
  return senseOf(from.send(cdb, { dataOut: Uint8Array.from(list) }));
}

test('REGISTER AND MOVE gives the reservation to a port that may not even be logged in', () => {
  const [a, b, at] = twoOn();
  const elsewhere = 'iqn.2026-11.example:elsewhere,i,0x00023d00ABCD';
  // Nothing to move; not the holder; all registrants.
  assert.equal(move(a, 0xa, 0xd, elsewhere), '5 2400');
  does(a, 'reserve', { key: 0xa, type: 1 });
  assert.equal(move(b, 0xb, 0xd, elsewhere), '5 2400');
  assert.equal(move(a, 0xe, 0xd, elsewhere), 'conflict');
  assert.equal(move(a, 0xa, 0, elsewhere), '5 2600');
  assert.equal(move(a, 0xa, 0xd, a.nexus.initiator.name), '5 2600');
  assert.equal(move(a, 0xa, 0xd, 'iqn.2026-11.example:device'), '5 2600 P24');
  assert.equal(move(a, 0xa, 0xd, elsewhere, 4), '5 2600 P17');
  assert.equal(move(a, 0xa, 0xd, elsewhere, 1), '5 2600 P17.0');
  assert.equal(move(a, 0xa, 0xd, elsewhere, 2), 'GOOD');
  assert.deepEqual(reservation(b), [0xd, 1]);
  assert.deepEqual(keys(b), [0xb, 0xd]);
  assert.ok(!canWrite(a));
  // Names know no case.
  const there = at.initiator(elsewhere.toLowerCase());
  assert.ok(canWrite(there));
  does(there, 'release', { key: 0xd, type: 1 });
});

test('SPEC_I_PT registers others by their TransportIDs, all or none', () => {
  const at = bench();
  const [a, b] = [at.initiator(), at.initiator()];
  const later = 'iqn.2026-11.example:later,i,0x00023d000001';
  const ids = [transportIdOf(later), transportIdOf(b.nexus.initiator.name)];
  does(a, 'register', { action: 5, flags: 8, ids });
  assert.deepEqual(keys(a), [5, 5, 5]);
  const full = reserveIn(a, 3);
  assert.equal(full.length, 8 + 3 * (24 + transportIdOf(later).length));
  // Registered already; no key; another action; lengths that do not fit; no TransportIDs.
  const sense = (options: Out, action: 'register' | 'ignore' = 'register'): string =>
    senseOf(out(a, action, options));
  assert.equal(sense({ key: 5, action: 6, flags: 8, ids }), '5 2400');
  assert.equal(sense({ action: 6, flags: 8, ids }, 'ignore'), '5 2600 P20.3');
  assert.equal(sense({ key: 5, action: 6, flags: 8 }), '5 1a00');
  assert.equal(sense({ key: 5, action: 6, flags: 0, ids }), '5 1a00');
  assert.equal(sense({ key: 5, action: 6, flags: 8, ids: [new Uint8Array(24)] }), '5 2600 P28');
  assert.equal(sense({ key: 5, action: 6, flags: 0x10 }), '5 2600 P20');
  // The key of somebody else is not taken from it.
  const c = at.initiator();
  assert.equal(senseOf(out(c, 'register', { action: 9, flags: 8, ids })), 'conflict');
  assert.deepEqual(keys(a), [5, 5, 5]);
  // A device's name: all ports of it that are logged in.
  const device = transportIdOf(b.nexus.initiator.name.split(',')[0] as string);
  does(a, 'clear', { key: 5 });
  does(c, 'register', { action: 9, flags: 8, ids: [device] });
  assert.deepEqual(keys(c), [9, 9]);
  const nobody = transportIdOf('iqn.2026-11.example:nobody');
  assert.equal(senseOf(out(a, 'register', { action: 1, flags: 8, ids: [nobody] })), '5 2600 P28');
});

test('READ FULL STATUS and ALL_TG_PT, byte by byte', () => {
  const at = bench();
  const name = 'iqn.2026-11.example:a,i,0x00023d000001';
  const a = at.initiator(name);
  does(a, 'register', { action: 0x0102, flags: 4 });
  does(a, 'reserve', { key: 0x0102, type: 6 });
  const id = transportIdOf(name);
  const expected = [
    0,
    0,
    0,
    1,
    ...be32(24 + id.length),
    0,
    0,
    0,
    0,
    0,
    0,
    1,
    2,
    0,
    0,
    0,
    0,
    0x03,
    0x06,
    0,
    0,
    0,
    0,
    0,
    0,
    ...be32(id.length),
    ...id,
  ];
  assert.deepEqual([...reserveIn(a, 3)], expected);
  assert.deepEqual([...reserveIn(a, 3, 10)], expected.slice(0, 10));
  // READ RESERVATION: SCOPE 0, TYPE 6.
  const held = [0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 6, 0, 0];
  assert.deepEqual([...reserveIn(a, 1)], held);
  // The same port at another target port shares it; the registration is one.
  assert.equal(at.unit.reservations.conflicts(a.nexus, 'writes'), false);
  does(a, 'register', { key: 0x0102, action: 7 });
  assert.deepEqual(keys(a), [7]);
});

test('REPORT CAPABILITIES says what is done', () => {
  const at = bench();
  const [a] = [at.initiator()];
  assert.deepEqual([...reserveIn(a, 2)], [0, 8, 0x1c, 0x80, 0xea, 0x01, 0, 0]);
  // Nothing can be kept here: APTPL is refused rather than forgotten.
  assert.equal(senseOf(out(a, 'register', { action: 1, flags: 1 })), '5 2600 P20.0');
  const kept = new PersistentReservations({
    store: { load: () => null, save: (_, done) => done(null) },
    log: () => {},
  });
  const b = bench({ unit: { reservations: kept } }).initiator();
  assert.deepEqual([...reserveIn(b, 2)].slice(2, 4), [0x1d, 0x80]);
  does(b, 'register', { action: 1, flags: 1 });
  assert.deepEqual([...reserveIn(b, 2)].slice(2, 4), [0x1d, 0x81]);
});

test('parameter lists: 24 bytes, and what did not come is not made up', () => {
  const a = bench().initiator();
  for (const bytes of [0, 23]) {
    assert.equal(a.refused([0x5f, 0, 0, 0, 0, ...be32(bytes), 0]), '5 1a00');
  }
  const list = new Uint8Array(24);
  assert.equal(
    a.refused([0x5f, 0, 0, 0, 0, ...be32(24), 0], { dataOut: list, announced: 20 }),
    '5 1a00',
  );
  assert.equal(
    a.refused([0x5f, 0, 0, 0, 0, ...be32(25), 0], { dataOut: new Uint8Array(25) }),
    '5 1a00',
  );
  assert.equal(a.refused([0x5f, 0, 0, 0, 0, ...be32(0xffff_ffff), 0]), '5 2400 C5');
  assert.equal(a.refused([0x5f, 0, 0, 1, 0, ...be32(24), 0]), '5 2400 C3.0');
  assert.equal(a.refused([0x5e, 0, 1, 0, 0, 0, 0, 0, 8, 0]), '5 2400 C2.0');
  for (const action of [4, 0x1f]) assert.equal(a.refused([0x5e, action]), '5 2400 C1.4');
});

test('APTPL: saved before the answer, kept over a restart, forgotten without it', () => {
  let saved: KeptReservations | null = null;
  const saves: ((error: Error | null) => void)[] = [];
  const store = {
    load: () => saved,
    save: (kept: KeptReservations | null, done: (error: Error | null) => void) => {
      saves.push((error) => {
        if (error === null) saved = kept;
        done(error);
      });
    },
  };
  const lines: string[] = [];
  const log = (line: string): void => void lines.push(line);
  const make = () => bench({ unit: { reservations: new PersistentReservations({ store, log }) } });
  const a = make().initiator('iqn.2026-11.example:a,i,0x000000000001');
  const registering = out(a, 'register', { action: 0xa, flags: 1 });
  // Not answered, and not in force, before it is saved; what comes meanwhile waits its turn.
  const reserving = out(a, 'reserve', { key: 0xa, type: 3 });
  assert.ok(!registering.done && !reserving.done && saved === null);
  assert.deepEqual(keys(a), []);
  saves.shift()?.(null);
  assert.equal(senseOf(registering), 'GOOD');
  assert.ok(!reserving.done);
  // A save that fails fails the command, and nothing of it holds.
  saves.shift()?.(new Error('disk full'));
  assert.equal(senseOf(reserving), '4 4400');
  assert.equal(reservation(a), null);
  assert.match(lines.join(), /disk full/);
  const again = out(a, 'reserve', { key: 0xa, type: 3 });
  saves.shift()?.(null);
  assert.equal(senseOf(again), 'GOOD');

  const restarted = make();
  const b = restarted.initiator();
  const back = restarted.initiator('iqn.2026-11.example:a,i,0x000000000001');
  assert.ok(!canRead(b) && canWrite(back));
  assert.equal(generation(b), 0);
  // The last APTPL counts: 0 forgets what was saved.
  const changing = out(back, 'ignore', { action: 0xc });
  saves.shift()?.(null);
  assert.equal(senseOf(changing), 'GOOD');
  assert.equal(saved, null);
  assert.deepEqual(keys(back), [0xc]);
  assert.deepEqual(keys(make().initiator()), []);
});

test('registrations outlive the session and resets; RESERVE (6) does not', () => {
  const [a, b, at] = twoOn();
  does(a, 'reserve', { key: 0xa, type: 3 });
  at.target.closeNexus(a.nexus, () => {});
  at.target.manage(b.nexus, TMF.LOGICAL_UNIT_RESET, 0, 0, () => {});
  assert.deepEqual(b.attentions(), ['2903']);
  assert.ok(!canRead(b));
  const back = at.initiator(a.nexus.initiator.name);
  assert.ok(canWrite(back));
  does(back, 'clear', { key: 0xa });
  assert.deepEqual(b.attentions(), ['2a03']);
  back.good([0x16, 0, 0, 0, 0, 0]);
  assert.ok(!canRead(b));
  at.target.closeNexus(back.nexus, () => {});
  assert.ok(canRead(b));
  b.good([0x16, 0, 0, 0, 0, 0]);
  const c = at.initiator();
  assert.ok(!canRead(c));
  at.target.manage(c.nexus, TMF.LOGICAL_UNIT_RESET, 0, 0, () => {});
  c.attentions();
  assert.ok(canRead(c));
});

test('RESERVE (6): everything but asking who is there conflicts for others', () => {
  const at = bench();
  const [a, b] = [at.initiator(), at.initiator()];
  const [reserve, release] = [
    [0x16, 0, 0, 0, 0, 0],
    [0x17, 0, 0, 0, 0, 0],
  ];
  a.good(reserve);
  a.good(reserve);
  assert.equal(senseOf(b.send(reserve)), 'conflict');
  // Of another's reservation RELEASE does nothing.
  b.good(release);
  assert.equal(senseOf(b.send(MODE_SENSE)), 'conflict');
  a.good(MODE_SENSE);
  assert.ok(!canRead(b) && canRead(a));
  b.good([0x12, 0, 0, 0, 96, 0]);
  b.good([0x03, 0, 0, 0, 18, 0]);
  b.good([0xa0, 0, 0, 0, 0, 0, ...be32(64), 0, 0]);
  // [SPC-2 5.5.1] Both commands of the other kind conflict, also for the holder.
  assert.equal(senseOf(out(a, 'ignore', { action: 1 })), 'conflict');
  assert.equal(senseOf(a.send([0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0])), 'conflict');
  a.good(release);
  b.good(reserve);
  b.good(release);
  assert.equal(a.refused([0x16, 1, 0, 0, 0, 0]), '5 2400 C1.0');
  assert.equal(a.refused([0x17, 0x10, 0, 0, 0, 0]), '5 2400 C1.4');
});

test('RESERVE (6) where somebody is registered: CRH', () => {
  const [a, b, at] = twoOn();
  const c = at.initiator();
  const reserve = [0x16, 0, 0, 0, 0, 0];
  const release = [0x17, 0, 0, 0, 0, 0];
  // Registered, but nothing is reserved: SPC-2's rule.
  for (const each of [a, b, c])
    assert.equal(each.send(reserve).status, STATUS.RESERVATION_CONFLICT);
  does(a, 'reserve', { key: 0xa, type: 1 });
  a.good(reserve);
  a.good(release);
  assert.deepEqual(reservation(a), [0xa, 1]);
  assert.equal(senseOf(b.send(reserve)), 'conflict');
  does(a, 'release', { key: 0xa, type: 1 });
  does(a, 'reserve', { key: 0xa, type: 5 });
  b.good(reserve);
  assert.equal(senseOf(c.send(release)), 'conflict');
  assert.ok(canWrite(a));
});

test('two targets that show one disk share its reservations', () => {
  const shared = new PersistentReservations({ store: null, log: () => {} });
  const at = bench({ unit: { reservations: shared } });
  const other = bench({ unit: { reservations: shared } });
  const [a, b] = [at.initiator(), other.initiator()];
  register(a, 1);
  register(b, 2);
  does(a, 'reserve', { key: 1, type: 6 });
  does(a, 'clear', { key: 1 });
  assert.deepEqual(b.attentions(), ['2a03']);
});

test('each logical unit has reservations of its own', () => {
  const at = bench();
  addUnit(at.target, 1);
  const a = at.initiator();
  const b = at.initiator();
  register(a, 1);
  does(a, 'reserve', { key: 1, type: 3 });
  assert.ok(!canRead(b));
  b.good(read10(0, 1), { lun: 1 });
});
