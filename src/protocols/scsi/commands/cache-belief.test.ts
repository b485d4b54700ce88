import assert from 'node:assert/strict';
import test from 'node:test';
import { TMF } from '../scsi.ts';
import {
  be16,
  type Bench,
  bench,
  filled,
  read10,
  sync10,
  TestInitiator,
  write10,
} from '../testing.ts';

// What an initiator takes the write cache for: one that has switched it off lives over a restart of the server, after which
// it is on again, logs in again, and reads nothing.

const CACHING = 0x08;

function sense6(page: number, control = 0, allocated = 255): number[] {
  return [0x1a, 0, (control << 6) | page, 0, allocated, 0];
}

function sense10(page: number, allocated = 255): number[] {
  return [0x5a, 0, page, 0, 0, 0, 0, ...be16(allocated), 0];
}

function select(from: TestInitiator, page: readonly number[]): void {
  const list = [0, 0, 0, 0, ...page];
  from.good([0x15, 0x10, 0, 0, list.length, 0], { dataOut: Uint8Array.from(list) });
}

function caching(wce: boolean): number[] {
  return [CACHING, 0x12, wce ? 4 : 0, ...Array<number>(17).fill(0)];
}

const CONTROL = [0x0a, 0x0a, 2, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0];

/** An initiator that has logged in, and has only heard of the power on. */
function returning(at: Bench): TestInitiator {
  const from = new TestInitiator(at.target);
  from.attentions();
  return from;
}

let next = 0;

/** Whether a write of it is stable when it ends. */
function relies(at: Bench, from: TestInitiator): boolean {
  next += 1;
  from.good(write10(next % 512, 1), { dataOut: filled(1 + (next % 255)) });
  return at.store.stable[(next % 512) * 512] === 1 + (next % 255);
}

test('P3: the writes of an initiator that has not looked at WCE are stable when they end', () => {
  const at = bench();
  const from = returning(at);
  assert.ok(relies(at, from) && relies(at, from));
  const compare = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0];
  from.good(compare, { dataOut: new Uint8Array([...filled(0), ...filled(7)]) });
  assert.equal(at.store.stable[5 * 512], 7, 'whatever the command');
  assert.ok(!relies(at, at.initiator()), 'others, who have, pay nothing for it');
});

for (const [name, look] of [
  ['MODE SENSE (6) of the page', (from) => from.good(sense6(CACHING))],
  ['MODE SENSE (10) of the page', (from) => from.good(sense10(CACHING))],
  ['MODE SENSE of all pages', (from) => from.good(sense10(0x3f))],
  ['MODE SELECT of the page', (from) => select(from, caching(true))],
  ['MODE SELECT of it among others', (from) => select(from, [...CONTROL, ...caching(true)])],
  ['SYNCHRONIZE CACHE', (from) => from.good(sync10(0, 0))],
  ['SYNCHRONIZE CACHE of a range, immediate', (from) => from.good(sync10(8, 1, 2))],
] satisfies [string, (from: TestInitiator) => unknown][]) {
  test(`an initiator knows that the write cache is on after ${name}`, () => {
    const at = bench();
    const from = returning(at);
    look(from);
    assert.ok(!relies(at, from));
  });
}

for (const [name, look] of [
  ['the header alone', (from) => from.good(sense6(0x3f, 0, 4))],
  ['a page that is cut off before WCE', (from) => from.good(sense10(CACHING, 8 + 8 + 2))],
  ['a page that it has no room for', (from) => from.good(sense6(CACHING), { room: 8 })],
  ['other pages', (from) => from.good(sense6(0x0a))],
  ['default values', (from) => from.good(sense6(CACHING, 2))],
  ['changeable values', (from) => from.good(sense6(CACHING, 1))],
  ['MODE SELECT of another page', (from) => select(from, CONTROL)],
  ['READ with FUA', (from) => from.good(read10(0, 1, 8))],
  ['VERIFY', (from) => from.good([0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0])],
  ['START STOP UNIT', (from) => from.good([0x1b, 0, 0, 0, 0, 0])],
] satisfies [string, (from: TestInitiator) => unknown][]) {
  test(`an initiator knows nothing of the write cache from ${name}`, () => {
    const at = bench();
    const from = returning(at);
    at.initiator().good(write10(300, 1), { dataOut: filled(1) });
    look(from);
    assert.ok(relies(at, from));
  });
}

test('P3: who was told that it is off may rely on it when somebody else has switched it on, until told again', () => {
  const at = bench();
  const [from, other] = [at.initiator(), at.initiator()];
  select(from, caching(false));
  // A flush shows nothing while it is off: the disk is as the initiator believes.
  from.good(sync10(0, 0));
  other.attentions();
  select(other, caching(true));
  assert.ok(!relies(at, other));
  assert.deepEqual(from.attentions(), ['2a01']);
  assert.ok(relies(at, from), 'not everybody listens to a unit attention');
  from.good(sense6(CACHING));
  assert.ok(!relies(at, from));
});

test('P3: the same after a reset, which puts WCE back', () => {
  const at = bench();
  const from = at.initiator();
  select(from, caching(false));
  at.target.manage(from.nexus, TMF.LOGICAL_UNIT_RESET, 0, 0, () => {});
  from.attentions();
  assert.ok(relies(at, from));
  from.good(sync10(0, 0));
  assert.ok(!relies(at, from));
});

test('MODE SELECT of another page does not stop a switch that is under way', () => {
  const at = bench();
  const [from, other] = [at.initiator(), at.initiator()];
  from.good(write10(0, 1), { dataOut: filled(1) });
  at.store.holdsSyncs = true;
  const list = Uint8Array.from([0, 0, 0, 0, ...caching(false)]);
  const switching = from.send([0x15, 0x10, 0, 0, list.length, 0], { dataOut: list });
  assert.ok(!switching.done);
  select(other, CONTROL);
  at.store.finishSync();
  assert.equal(switching.status, 0);
});

test('until-flush: what reads from the medium is no flush of the initiator’s', () => {
  const at = bench({ mode: 'until-flush' });
  const from = at.initiator();
  from.good(read10(0, 1, 8));
  assert.ok(relies(at, from));
  from.good(sync10(0, 0));
  assert.ok(!relies(at, from));
});
