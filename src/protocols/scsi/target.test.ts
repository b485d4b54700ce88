import assert from 'node:assert/strict';
import test from 'node:test';
import { SERVICE_RESPONSE, TASK_ATTRIBUTE, TMF, type Tmf } from './scsi.ts';
import {
  addUnit,
  type Bench,
  be16,
  bench,
  filled,
  read10,
  senseOf,
  sync10,
  type TestInitiator,
  write10,
} from './testing.ts';

const { FUNCTION_COMPLETE, FUNCTION_SUCCEEDED, FUNCTION_REJECTED } = SERVICE_RESPONSE;

function manage(at: Bench, from: TestInitiator, tmf: Tmf, tag = 0, lun = 0): string[] {
  const responses: string[] = [];
  at.target.manage(from.nexus, tmf, lun, tag, (response) => responses.push(response));
  return responses;
}

test('ABORT TASK ends one task, wherever it is, and answers when nothing of it is under way', () => {
  const at = bench();
  const from = at.initiator();
  at.store.holds = true;
  // With the transport, with its data in flight.
  const writing = from.send(write10(0, 40), { dataOut: filled(1, 40) });
  const answer = manage(at, from, TMF.ABORT_TASK, writing.task.tag);
  assert.ok(writing.aborting && !writing.done && answer.length === 0);
  at.store.finish();
  assert.ok(writing.done && writing.task.aborted);
  assert.deepEqual(answer, [FUNCTION_COMPLETE]);
  assert.equal(at.store.pending.length, 0, 'the rest was not written');
  // Waiting for its data.
  const late = from.send(write10(0, 1), { dataOut: filled(1), late: true });
  assert.deepEqual(manage(at, from, TMF.ABORT_TASK, late.task.tag), [FUNCTION_COMPLETE]);
  assert.ok(late.done && late.task.aborted);
  // Dormant behind an ORDERED one.
  const ordered = from.send(read10(0, 1), { attribute: TASK_ATTRIBUTE.ORDERED });
  const dormant = from.send(read10(0, 1));
  assert.deepEqual(manage(at, from, TMF.ABORT_TASK, dormant.task.tag), [FUNCTION_COMPLETE]);
  assert.ok(dormant.done && !dormant.ready && !ordered.done);
  at.store.settle();
  assert.equal(senseOf(ordered), 'GOOD');
  // With the device: a flush cannot be called back.
  at.store.holds = false;
  from.good(write10(0, 1), { dataOut: filled(1) });
  at.store.holdsSyncs = true;
  const flushing = from.send(sync10(0, 0));
  const waits = manage(at, from, TMF.ABORT_TASK, flushing.task.tag);
  assert.deepEqual(waits, []);
  at.store.finishSync();
  assert.ok(flushing.done && flushing.task.aborted);
  assert.deepEqual(waits, [FUNCTION_COMPLETE]);
  // Gone already, or another's.
  assert.deepEqual(manage(at, from, TMF.ABORT_TASK, 12_345), [FUNCTION_COMPLETE]);
});

test('a task that waits for its range, aborted: it never writes', () => {
  const at = bench();
  const from = at.initiator();
  at.store.holds = true;
  const writing = from.send(write10(0, 1), { dataOut: filled(1) });
  const both = Uint8Array.from([...filled(1), ...filled(2)]);
  const waiting = from.send([0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], {
    dataOut: both,
  });
  assert.ok(!waiting.ready);
  const answer = manage(at, from, TMF.ABORT_TASK, waiting.task.tag);
  assert.deepEqual(answer, []);
  at.store.settle();
  assert.equal(senseOf(writing), 'GOOD');
  assert.ok(waiting.done && !waiting.ready);
  assert.deepEqual(answer, [FUNCTION_COMPLETE]);
  assert.equal(at.store.bytes[0], 1);
});

test('ABORT TASK SET: those of the nexus; CLEAR TASK SET: all, and the others hear of it', () => {
  const at = bench();
  const [a, b] = [at.initiator(), at.initiator()];
  at.store.holds = true;
  const mine = a.send(read10(0, 1));
  const others = b.send(read10(0, 1));
  manage(at, a, TMF.ABORT_TASK_SET);
  assert.ok(mine.aborting && !others.aborting);
  const again = a.send(read10(0, 1));
  const answer = manage(at, a, TMF.CLEAR_TASK_SET);
  assert.ok(again.aborting && others.aborting);
  assert.deepEqual(answer, []);
  at.store.settle();
  assert.deepEqual(answer, [FUNCTION_COMPLETE]);
  at.store.holds = false;
  assert.deepEqual(b.attentions(), ['2f00']);
  assert.deepEqual(a.attentions(), []);
});

test('queries, functions that are not there, logical units that are not', () => {
  const at = bench();
  const [a, b] = [at.initiator(), at.initiator()];
  at.store.holds = true;
  const sent = a.send(read10(0, 1));
  assert.deepEqual(manage(at, a, TMF.QUERY_TASK, sent.task.tag), [FUNCTION_SUCCEEDED]);
  assert.deepEqual(manage(at, b, TMF.QUERY_TASK, sent.task.tag), [FUNCTION_COMPLETE]);
  assert.deepEqual(manage(at, a, TMF.QUERY_TASK_SET), [FUNCTION_SUCCEEDED]);
  assert.deepEqual(manage(at, b, TMF.QUERY_TASK_SET), [FUNCTION_COMPLETE]);
  assert.deepEqual(manage(at, b, TMF.QUERY_ASYNCHRONOUS_EVENT), [FUNCTION_COMPLETE]);
  at.unit.attentions.establish(0x2a09);
  assert.deepEqual(manage(at, b, TMF.QUERY_ASYNCHRONOUS_EVENT), [FUNCTION_SUCCEEDED]);
  assert.deepEqual(manage(at, a, TMF.CLEAR_ACA), [FUNCTION_REJECTED]);
  assert.deepEqual(manage(at, a, TMF.I_T_NEXUS_RESET), [FUNCTION_REJECTED]);
  assert.deepEqual(manage(at, a, TMF.LOGICAL_UNIT_RESET, 0, 5), [
    SERVICE_RESPONSE.INCORRECT_LOGICAL_UNIT_NUMBER,
  ]);
  at.store.settle();
});

test('a reset of the unit, and of the target, ends what is under way first', () => {
  const at = bench();
  const second = addUnit(at.target, 1);
  const [a, b] = [at.initiator(), at.initiator()];
  at.store.holds = true;
  second.store.holds = true;
  const first = a.send(write10(0, 1), { dataOut: filled(1) });
  const other = b.send(read10(0, 1), { lun: 1 });
  const answer = manage(at, a, TMF.LOGICAL_UNIT_RESET);
  assert.ok(first.aborting && !other.aborting && answer.length === 0);
  at.store.settle();
  assert.deepEqual(answer, [FUNCTION_COMPLETE]);
  let done = false;
  at.target.reset(() => (done = true));
  assert.ok(!done && other.aborting);
  second.store.settle();
  assert.ok(done);
  for (const each of [a, b]) {
    assert.deepEqual(each.attentions(0), ['2903']);
    assert.deepEqual(each.attentions(1), ['2903']);
  }
});

test('P11: the end of a session waits for its requests, and its successor for them', () => {
  const at = bench();
  const from = at.initiator('iqn.2026-11.example:p11,i,0x000000000001');
  at.store.holds = true;
  const writing = from.send(write10(0, 1), { dataOut: filled(1) });
  const dormant = from.send(read10(0, 1), { attribute: TASK_ATTRIBUTE.ORDERED });
  let closed = false;
  at.target.closeNexus(from.nexus, () => (closed = true));
  assert.ok(!closed && dormant.done && dormant.task.aborted && !writing.done);
  at.store.settle();
  assert.ok(closed && writing.done && writing.task.aborted);
});

test('ORDERED is order and no flush: what is before it is done, not stable', () => {
  const at = bench();
  const from = at.initiator();
  at.store.holds = true;
  const first = from.send(write10(0, 1), { dataOut: filled(1) });
  const ordered = from.send(write10(0, 1), {
    dataOut: filled(2),
    attribute: TASK_ATTRIBUTE.ORDERED,
  });
  const head = from.send(read10(0, 1), { attribute: TASK_ATTRIBUTE.HEAD_OF_QUEUE });
  const after = from.send(read10(0, 1));
  assert.ok(first.ready && head.ready && !ordered.ready && !after.ready);
  at.store.settle();
  assert.deepEqual(after.data, filled(2));
  assert.ok(ordered.done);
  assert.equal(at.store.syncs, 0);
});

const startStop = (bits: number, flags = 0, power = 0): number[] => [
  0x1b,
  flags,
  0,
  0,
  (power << 4) | bits,
  0,
];

const prevent = (on: boolean): number[] => [0x1e, 0, 0, 0, on ? 1 : 0, 0];

test('START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL', () => {
  const at = bench({ unit: { removable: true } });
  const [a, b] = [at.initiator(), at.initiator()];
  const [eject, load, stop, start] = [2, 3, 0, 1];
  a.good(write10(0, 1), { dataOut: filled(1) });
  // Stopping makes stable, NO_FLUSH does not; nothing is stopped.
  a.good(startStop(stop | 4));
  assert.equal(at.store.syncs, 0);
  a.good(startStop(stop));
  assert.equal(at.store.stable[0], 1);
  a.good([0, 0, 0, 0, 0, 0]);
  a.good(startStop(start));
  for (let power = 1; power < 16; power += 1) a.good(startStop(eject, 1, power));
  a.good(prevent(true));
  assert.equal(a.refused(startStop(eject)), '5 5302');
  assert.equal(b.refused(startStop(eject)), '5 5302');
  a.good(prevent(false));
  a.good(startStop(eject));
  assert.equal(b.refused([0, 0, 0, 0, 0, 0]), '2 3a00');
  a.good(startStop(eject));
  // libiscsi's suite: while it is prevented nothing is loaded either.
  a.good(prevent(true));
  assert.equal(a.refused(startStop(load)), '5 5302');
  a.good(prevent(false));
  a.good(startStop(load));
  assert.deepEqual(b.attentions(), ['2800']);
  assert.deepEqual(a.attentions(), []);
  // A session that ends prevents nothing, nor does a reset leave anything prevented.
  b.good(prevent(true));
  at.target.closeNexus(b.nexus, () => {});
  a.good(startStop(eject));
  a.good(startStop(load));
  a.good(prevent(true));
  manage(at, a, TMF.LOGICAL_UNIT_RESET);
  a.attentions();
  a.good(startStop(eject));
  assert.equal(bench().initiator().refused(startStop(eject)), '5 2400 C4.1');
  const failing = bench();
  const c = failing.initiator();
  c.good(write10(0, 1), { dataOut: filled(1) });
  failing.store.nextSync = 'EIO';
  assert.equal(c.refused(startStop(stop)), '3 0c00');
});

test('reservations and START STOP UNIT, PREVENT ALLOW: what would disturb the holder conflicts', () => {
  const at = bench({ unit: { removable: true } });
  const [a, b] = [at.initiator(), at.initiator()];
  a.good([0x16, 0, 0, 0, 0, 0]);
  b.good([0x1b, 0, 0, 0, 1, 0]);
  assert.equal(senseOf(b.send([0x1b, 0, 0, 0, 2, 0])), 'conflict');
  assert.equal(senseOf(b.send([0x1e, 0, 0, 0, 1, 0])), 'conflict');
  b.good([0x1e, 0, 0, 0, 0, 0]);
  assert.equal(senseOf(b.send([0x55, 0x10, 0, 0, 0, 0, 0, ...be16(0), 0])), 'conflict');
});
