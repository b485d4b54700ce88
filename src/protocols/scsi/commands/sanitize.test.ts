import assert from 'node:assert/strict';
import test from 'node:test';
import { OP } from '../../../block/io.ts';
import { TMF } from '../scsi.ts';
import {
  be16,
  be32,
  type Bench,
  bench,
  describeSense,
  filled,
  read10,
  type Sent,
  senseOf,
  type SendOptions,
  type TestInitiator,
  write10,
} from '../testing.ts';

const IMMED = 0x80;
const AUSE = 0x20;
const EXIT_FAILURE_MODE = [0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0];

function overwrite(
  from: TestInitiator,
  pattern: Uint8Array,
  head: readonly number[] = [1, 0],
  flags = 0,
  options: SendOptions = {},
): Sent {
  const list = Uint8Array.from([...head, ...be16(pattern.length), ...pattern]);
  const cdb = [0x48, flags | 1, 0, 0, 0, 0, 0, ...be16(list.length), 0];
  return from.send(cdb, { dataOut: list, ...options });
}

function dirty(options: Parameters<typeof bench>[0] = {}): [Bench, TestInitiator] {
  const at = bench(options);
  at.store.bytes.fill(0x5a);
  return [at, at.initiator()];
}

/** 512 bytes of pattern, and that there are `length`. */
const listSaying = (length: number): Uint8Array =>
  Uint8Array.from([1, 0, ...be16(length), ...filled(0)]);

test('OVERWRITE fills every block with the pattern, and it is stable when the command ends', () => {
  const [at, from] = dirty();
  const sent = overwrite(from, filled(0xaa));
  assert.ok(!sent.done);
  at.timers.run();
  assert.equal(senseOf(sent), 'GOOD');
  assert.ok(at.store.stable.every((byte) => byte === 0xaa));
  // A short pattern is repeated from the start of each block on.
  const short = overwrite(from, Uint8Array.of(1, 2, 3));
  at.timers.run();
  assert.equal(senseOf(short), 'GOOD');
  const { stable } = at.store;
  assert.ok(stable.every((byte, i) => byte === ((i % 512) % 3) + 1));
});

test('OVERWRITE: several passes, inverted from one to the next, each made stable', () => {
  const [at, from] = dirty();
  const seen: number[] = [];
  const sent = overwrite(from, filled(0x0f), [0x80 | 3, 0]);
  while (at.timers.step()) {
    const first = at.store.stable[0] as number;
    if (seen.at(-1) !== first) seen.push(first);
  }
  assert.equal(senseOf(sent), 'GOOD');
  assert.deepEqual(seen.slice(-3), [0x0f, 0xf0, 0x0f]);
  assert.ok(at.store.stable.every((byte) => byte === 0x0f));
});

test('parameter lists of OVERWRITE, and CDBs', () => {
  const [at, from] = dirty();
  for (const length of [0, 1, 4, 517, 0xffff]) {
    assert.equal(from.refused([0x48, 1, 0, 0, 0, 0, 0, ...be16(length), 0]), '5 2400 C7');
  }
  assert.equal(senseOf(overwrite(from, filled(1), [0, 0])), '5 2600 P0.4');
  assert.equal(senseOf(overwrite(from, filled(1), [0x21, 0])), '5 2600 P0.6');
  for (const length of [0, 513, 516]) {
    const cdb = [0x48, 1, 0, 0, 0, 0, 0, ...be16(516), 0];
    assert.equal(from.refused(cdb, { dataOut: listSaying(length) }), '5 2600 P2');
  }
  assert.equal(senseOf(overwrite(from, filled(1), [1, 0], 0, { announced: 9 })), '5 1a00');
  // ZNR and reserved bytes; service actions that are not there.
  assert.equal(from.refused([0x48, 0x41, 0, 0, 0, 0, 0, 0, 8, 0]), '5 2400 C1.6');
  for (let i = 2; i < 7; i += 1) {
    const cdb = [0x48, 1, 0, 0, 0, 0, 0, 0, 8, 0];
    cdb[i] = 1;
    assert.equal(from.refused(cdb), `5 2400 C${i}.0`);
  }
  for (let action = 0; action < 0x20; action += 1) {
    if (action === 1 || action === 0x1f) continue;
    assert.equal(from.refused([0x48, action, 0, 0, 0, 0, 0, 0, 0, 0]), '5 2400 C1.4');
  }
  assert.equal(from.refused([0x48, 0x1f, 0, 0, 0, 0, 0, 0, 8, 0]), '5 2400 C7');
  assert.equal(at.unit.medium.sanitizing, null);
  assert.ok(at.store.bytes.every((byte) => byte === 0x5a));
});

test('BLOCK ERASE of a thin disk: everything is deallocated and reads as zeroes', () => {
  const [at, from] = dirty({ unit: { thin: true } });
  from.good(write10(0, 2), { dataOut: filled(1, 2) });
  const sent = from.send([0x48, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
  at.timers.run();
  assert.equal(senseOf(sent), 'GOOD');
  assert.ok(at.store.stable.every((byte) => byte === 0));
  const status = from.good([0x9e, 0x12, ...Array<number>(8).fill(0), ...be32(256), 0, 0]);
  assert.deepEqual([...status.subarray(16, 21)], [0, 0, 2, 0, 1]);
  assert.equal(from.refused([0x48, 2, 0, 0, 0, 0, 0, 0, 8, 0]), '5 2400 C7');
  // WABEREQ 01b where it is offered.
  assert.equal(from.good([0x12, 1, 0xb1, 0, 64, 0])[7], 0x40);
  assert.equal(bench().initiator().good([0x12, 1, 0xb1, 0, 64, 0])[7], 0);
});

test('meanwhile: NOT READY with progress for all that needs the medium, but not for INQUIRY', () => {
  const [at, from] = dirty({
    store: { sizeBytes: 4 * 1024 * 1024 },
    unit: { sanitizeBytesPerSecond: 1024 * 1024 },
  });
  const sent = overwrite(from, filled(0), [1, 0], IMMED);
  assert.equal(senseOf(sent), 'GOOD');
  at.timers.step();
  assert.ok((at.unit.medium.sanitizing ?? 0) > 0);
  const refused = from.send([0, 0, 0, 0, 0, 0]);
  assert.equal(senseOf(refused), '2 041b');
  const progress = new DataView((refused.task.sense as Uint8Array).buffer).getUint16(16);
  assert.equal(progress, Math.floor((at.unit.medium.sanitizing ?? 0) * 65_536));
  for (const cdb of [
    read10(0, 1),
    [0x1b, 1, 0, 0, 1, 0],
    [0x1a, 0, 0x3f, 0, 255, 0],
    [0x1a, 0, 0x01, 0, 255, 0],
    [0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0],
  ]) {
    assert.equal(from.refused(cdb), '2 041b');
  }
  // What is still allowed [SBC-4 4.11.2].
  for (const cdb of [
    [0x12, 0, 0, 0, 96, 0],
    [0x25, ...Array<number>(9).fill(0)],
    [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
    [0x1a, 0, 0x08, 0, 255, 0],
    [0x5a, 0, 0x0a, 0, 0, 0, 0, 0, 255, 0],
    [0x1a, 0, 0x1c, 0, 255, 0],
  ]) {
    from.good(cdb);
  }
  assert.equal(describeSense(from.good([3, 0, 0, 0, 18, 0])), '2 041b');
  // Another one is refused; at 1 MiB/s this one takes 4 s.
  assert.equal(senseOf(overwrite(from, filled(0))), '2 041b');
  at.timers.run();
  assert.ok(at.timers.now >= 3000 && at.timers.now <= 4100, `${at.timers.now}`);
  from.good(read10(0, 1));
  assert.equal(describeSense(from.good([3, 0, 0, 0, 18, 0])), '0 0000');
});

test('aborts, resets and the end of the session end the command, not the operation', () => {
  const [at, from] = dirty();
  const sent = overwrite(from, filled(0xaa));
  let ended = 0;
  const end = (): void => {
    ended += 1;
  };
  at.target.manage(from.nexus, TMF.ABORT_TASK, 0, sent.task.tag, end);
  assert.ok(sent.done && sent.task.aborted && ended === 1);
  at.target.manage(from.nexus, TMF.LOGICAL_UNIT_RESET, 0, 0, end);
  at.target.reset(end);
  at.target.closeNexus(from.nexus, end);
  assert.equal(ended, 4);
  const other = at.initiator();
  assert.equal(other.refused([0, 0, 0, 0, 0, 0]), '2 041b');
  at.timers.run();
  other.good([0, 0, 0, 0, 0, 0]);
  assert.ok(at.store.stable.every((byte) => byte === 0xaa));
});

test('writes that were under way come before it, those of others while it runs not at all', () => {
  const [at, from] = dirty();
  at.store.holds = true;
  const writing = from.send(write10(0, 1), { dataOut: filled(7) });
  // Its parameter list is not there yet: it is refused when it is.
  const list = Uint8Array.from([0, 0x16, 0, 0x10, 0, 0, 0, 0, ...Array<number>(16).fill(0)]);
  const late = from.send([0x55, 0x10, 0, 0, 0, 0, 0, ...be16(24), 0], {
    dataOut: list,
    late: true,
  });
  const sent = overwrite(from, filled(0xaa));
  at.timers.run();
  assert.equal(at.store.pending.length, 1);
  late.give();
  assert.equal(senseOf(late), '2 041b');
  at.store.finish();
  assert.equal(senseOf(writing), 'GOOD');
  at.store.holds = false;
  at.store.settle();
  at.timers.run();
  assert.equal(senseOf(sent), 'GOOD');
  assert.ok(at.store.stable.every((byte) => byte === 0xaa));
});

test('a failure stays until another SANITIZE is done, or EXIT FAILURE MODE where AUSE allowed it', () => {
  for (const unrestricted of [false, true]) {
    const [at, from] = dirty();
    at.store.failures.set(OP.WRITE, 'EIO');
    const sent = overwrite(from, filled(0xaa), [1, 0], unrestricted ? AUSE : 0);
    at.timers.run();
    assert.equal(senseOf(sent), '3 3103');
    assert.match(at.lines.join(), /SANITIZE failed with EIO/);
    assert.equal(from.refused(read10(0, 1)), '3 3103');
    assert.equal(from.refused([0, 0, 0, 0, 0, 0]), '3 3103');
    assert.equal(describeSense(from.good([3, 0, 0, 0, 18, 0])), '3 3103');
    from.good([0x12, 0, 0, 0, 96, 0]);
    if (unrestricted) from.good(EXIT_FAILURE_MODE);
    else {
      assert.equal(from.refused(EXIT_FAILURE_MODE), '5 2400 C1.4');
      const again = overwrite(from, filled(0xaa));
      at.timers.run();
      assert.equal(senseOf(again), 'GOOD');
    }
    from.good(read10(0, 1));
  }
  bench().initiator().good(EXIT_FAILURE_MODE);
});

test('a sync that fails fails it: it is not over before it is stable', () => {
  const [at, from] = dirty();
  at.store.nextSync = 'EIO';
  const sent = overwrite(from, filled(0xaa));
  at.timers.run();
  assert.equal(senseOf(sent), '3 3103');
});

test('write protection, reservations, an ejected medium', () => {
  const [, reader] = dirty({ store: { readOnly: true } });
  assert.equal(senseOf(overwrite(reader, filled(1))), '7 2700');
  const at = bench({ unit: { removable: true } });
  const [a, b] = [at.initiator(), at.initiator()];
  a.good([0x16, 0, 0, 0, 0, 0]);
  assert.equal(senseOf(overwrite(b, filled(1))), 'conflict');
  a.good([0x1b, 0, 0, 0, 2, 0]);
  assert.equal(senseOf(overwrite(a, filled(1))), '2 3a00');
});
