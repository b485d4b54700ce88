import assert from 'node:assert/strict';
import test from 'node:test';
import { FLAG, OP } from '../../block/io.ts';
import { STATUS } from '../scsi/scsi.ts';
import { compare16, read16, write16 } from './initiator/cdbs.ts';
import type { CommandOptions, CommandResult, TargetPdu } from './initiator/initiator.ts';
import { BLOCK_BYTES, type Client, World } from './testing.ts';
import {
  BHS_BYTES,
  COMMAND_FLAG,
  FIELD,
  FLAG_FINAL,
  ISCSI_OP,
  RESERVED_TAG,
  targetTransferTag,
  writeDataOut,
  writeRequestSequence,
  writeScsiCommand,
} from './wire.ts';

const ABORTED_COMMAND = 0x0b;
const ILLEGAL_REQUEST = 0x05;

function start({ initiator }: Client, options: CommandOptions): CommandResult[] {
  const results: CommandResult[] = [];
  initiator.command(options, (told) => results.push(told));
  return results;
}

function run(world: World, client: Client, options: CommandOptions): CommandResult {
  const results = start(client, options);
  world.settle();
  assert.equal(results.length, 1, 'the command has not ended');
  return results[0] as CommandResult;
}

function pattern(bytes: number, seed = 1): Uint8Array {
  return new Uint8Array(bytes).map((_, i) => (i * 31 + (i >> 9) * seed) & 0xff);
}

function senseOf({ sense }: CommandResult): { key: number; code: number } {
  const view = new DataView(sense.buffer, sense.byteOffset);
  return { key: (sense[2] as number) & 0xf, code: view.getUint16(12) };
}

function watch({ initiator }: Client, opcode: number): TargetPdu[] {
  const found: TargetPdu[] = [];
  initiator.watch = (pdu) => {
    if (pdu.opcode === opcode) found.push(pdu);
  };
  return found;
}

/** Sends one Data-Out PDU as it is told. */
function dataOut(
  { initiator }: Client,
  itt: number,
  ttt: number,
  at: { dataSn: number; offset: number; final: boolean },
  data: Uint8Array,
): void {
  const view = new DataView(new ArrayBuffer(BHS_BYTES));
  const flags = at.final ? FLAG_FINAL : 0;
  writeDataOut(view, 0, itt, ttt, flags, at.dataSn, at.offset, data.length);
  writeRequestSequence(view, 0, 0, initiator.expStatSn);
  initiator.send(view, data);
}

for (const immediateData of ['Yes', 'No']) {
  for (const initialR2T of ['Yes', 'No']) {
    for (const digests of ['None', 'CRC32C']) {
      for (const firstBurst of [512, 1500, 65_536]) {
        const keys = {
          ImmediateData: immediateData,
          InitialR2T: initialR2T,
          FirstBurstLength: String(firstBurst),
          MaxBurstLength: '70000',
          HeaderDigest: digests,
          DataDigest: digests,
        };
        const name = `immediate ${immediateData}, R2T first ${initialR2T}, ${firstBurst} unasked`;
        void test(`WRITEs with ${name}, digests ${digests}`, () => {
          const world = new World();
          const client = world.login({ keys });
          for (const blocks of [1, 2, 3, 8, 128, 500]) {
            const data = pattern(blocks * BLOCK_BYTES, blocks);
            const result = run(world, client, { cdb: write16(7, blocks), write: data });
            assert.equal(result.status, STATUS.GOOD);
            assert.equal(result.residual, 0);
            assert.deepEqual(world.bytes(7 * BLOCK_BYTES, data.length), data);
            const unasked = immediateData === 'No' && initialR2T === 'Yes' ? 0 : firstBurst;
            const rest = Math.max(0, data.length - unasked);
            assert.equal(result.r2ts, Math.ceil(rest / 70_000));
            assert.equal(result.expDataSn, result.r2ts);
          }
          client.stream.cut();
          world.settle();
          assert.equal(world.reactor.pool.inUse, 0);
        });
      }
    }
  }
}

void test('Data-Out in pieces that are no whole blocks, arriving byte by byte', () => {
  const world = new World();
  const client = world.login({ keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
  const r2ts = watch(client, ISCSI_OP.READY_TO_TRANSFER);
  const data = pattern(4 * BLOCK_BYTES);
  const results = start(client, { cdb: write16(0, 4), write: data, silent: true });
  world.settle();
  const ttt = targetTransferTag((r2ts[0] as TargetPdu).header, 0);
  let offset = 0;
  let dataSn = 0;
  for (const length of [100, 500, 1, 511, 700, 236]) {
    const final = offset + length === data.length;
    const part = data.subarray(offset, offset + length);
    dataOut(client, 2, ttt, { dataSn, offset, final }, part);
    offset += length;
    dataSn += 1;
  }
  client.stream.pieceBytes = 1;
  world.settle();
  assert.equal(results[0]?.status, STATUS.GOOD);
  assert.deepEqual(world.bytes(0, data.length), data);
});

function range({ header }: TargetPdu): [number, number] {
  return [
    header.getUint32(FIELD.BUFFER_OFFSET),
    header.getUint32(FIELD.DESIRED_DATA_TRANSFER_LENGTH),
  ];
}

void test('R2Ts go out in order, as many as may be outstanding', () => {
  const world = new World();
  const keys = { MaxOutstandingR2T: '3', MaxBurstLength: '1024', ImmediateData: 'No' };
  const client = world.login({ keys });
  const r2ts = watch(client, ISCSI_OP.READY_TO_TRANSFER);
  const data = pattern(5000 - (5000 % BLOCK_BYTES));
  const results = start(client, {
    cdb: write16(0, data.length / BLOCK_BYTES),
    write: data,
    silent: true,
  });
  world.settle();
  assert.equal(r2ts.length, 3);
  assert.deepEqual(r2ts.map(range), [
    [0, 1024],
    [1024, 1024],
    [2048, 1024],
  ]);
  for (let i = 0; i < r2ts.length; i += 1) {
    const [offset, length] = range(r2ts[i] as TargetPdu);
    const ttt = targetTransferTag((r2ts[i] as TargetPdu).header, 0);
    client.initiator.sendData(2, ttt, data, offset, length);
    world.settle();
  }
  assert.equal(r2ts.length, 5);
  assert.equal(results[0]?.status, STATUS.GOOD);
  assert.deepEqual(world.bytes(0, data.length), data);
});

// [RFC 7143 11.4.5.1]; half a block is not written.
const RESIDUALS: readonly {
  readonly blocks: number;
  readonly sent: number;
  /** Bytes. */
  readonly written: number;
  readonly kind: 'overflow' | 'underflow' | null;
  readonly residual: number;
}[] = [
  { blocks: 1, sent: 0, written: 0, kind: 'overflow', residual: 512 },
  { blocks: 1, sent: 200, written: 0, kind: 'overflow', residual: 312 },
  { blocks: 2, sent: 512, written: 512, kind: 'overflow', residual: 512 },
  { blocks: 1, sent: 512, written: 512, kind: null, residual: 0 },
  { blocks: 1, sent: 1024, written: 512, kind: 'underflow', residual: 512 },
  { blocks: 1, sent: 10_000, written: 512, kind: 'underflow', residual: 9488 },
  { blocks: 0, sent: 512, written: 0, kind: 'underflow', residual: 512 },
];

for (const { blocks, sent, written, kind, residual } of RESIDUALS) {
  for (const immediateData of ['Yes', 'No']) {
    const how = `immediate data ${immediateData}`;
    void test(`residuals: WRITE of ${blocks} blocks with ${sent} bytes sent, ${how}`, () => {
      const world = new World();
      const client = world.login({ keys: { ImmediateData: immediateData, InitialR2T: 'No' } });
      const data = pattern(sent);
      const result = run(world, client, { cdb: write16(0, blocks), write: data });
      if (sent % BLOCK_BYTES !== 0 && kind === 'overflow') {
        assert.deepEqual(senseOf(result), { key: ILLEGAL_REQUEST, code: 0x0e03 });
      } else {
        assert.equal(result.status, STATUS.GOOD);
      }
      assert.equal(result.overflow, kind === 'overflow');
      assert.equal(result.underflow, kind === 'underflow');
      assert.equal(result.residual, residual);
      const expected = new Uint8Array(16_384);
      expected.set(data.subarray(0, written));
      assert.deepEqual(world.bytes(0, expected.length), expected);
    });
  }
}

// What an initiator can do wrong with Data-Out. Nothing of a wrong PDU gets to the disk.
const WRONG: readonly {
  readonly name: string;
  readonly pdus: readonly { dataSn: number; offset: number; length: number; final: boolean }[];
}[] = [
  {
    name: 'DataSN twice 0',
    pdus: [
      { dataSn: 0, offset: 0, length: 512, final: false },
      { dataSn: 0, offset: 512, length: 512, final: true },
    ],
  },
  { name: 'DataSN 27', pdus: [{ dataSn: 27, offset: 0, length: 1024, final: true }] },
  { name: 'DataSN -1', pdus: [{ dataSn: 0xffffffff, offset: 0, length: 1024, final: true }] },
  { name: 'an offset too far', pdus: [{ dataSn: 0, offset: 512, length: 512, final: true }] },
  { name: 'too short', pdus: [{ dataSn: 0, offset: 0, length: 512, final: true }] },
  { name: 'too long', pdus: [{ dataSn: 0, offset: 0, length: 1536, final: true }] },
  {
    name: 'the second before the first',
    pdus: [
      { dataSn: 1, offset: 512, length: 512, final: false },
      { dataSn: 0, offset: 0, length: 512, final: true },
    ],
  },
];

for (const { name, pdus } of WRONG) {
  void test(`wrong Data-Out: ${name}: the command fails and the session lives`, () => {
    const world = new World();
    const client = world.login({ keys: { ImmediateData: 'No' } });
    const r2ts = watch(client, ISCSI_OP.READY_TO_TRANSFER);
    const results = start(client, {
      cdb: write16(0, 2),
      write: new Uint8Array(1024),
      silent: true,
    });
    world.settle();
    const ttt = targetTransferTag((r2ts[0] as TargetPdu).header, 0);
    for (const { length, ...at } of pdus) {
      dataOut(client, 2, ttt, at, new Uint8Array(length).fill(0xee));
      world.settle();
    }
    assert.equal(results.length, 1);
    assert.deepEqual(senseOf(results[0] as CommandResult), { key: ABORTED_COMMAND, code: 0x0c0d });
    // Blocks that came in order are there; what came wrong is not.
    const disk = world.bytes(0, 4096);
    for (let i = 1024; i < disk.length; i += 1) assert.equal(disk[i], 0);
    assert.equal(run(world, client, { cdb: write16(0, 1), write: pattern(512) }).status, 0);
  });
}

void test('data that nobody asked for fails its command', () => {
  const world = new World();
  const client = world.login({ keys: { ImmediateData: 'No', InitialR2T: 'Yes' } });
  const immediate = run(world, client, {
    cdb: write16(0, 1),
    write: pattern(512),
    immediateBytes: 512,
  });
  assert.deepEqual(senseOf(immediate), { key: ABORTED_COMMAND, code: 0x0c0c });
  const results = start(client, { cdb: write16(0, 1), write: pattern(512), silent: true });
  dataOut(client, 3, RESERVED_TAG, { dataSn: 0, offset: 0, final: true }, pattern(512));
  const r2ts = watch(client, ISCSI_OP.READY_TO_TRANSFER);
  world.settle();
  const ttt = targetTransferTag((r2ts[0] as TargetPdu).header, 0);
  dataOut(client, 3, ttt, { dataSn: 0, offset: 0, final: true }, pattern(512));
  world.settle();
  assert.deepEqual(senseOf(results[0] as CommandResult), { key: ABORTED_COMMAND, code: 0x0c0c });
  assert.deepEqual(world.bytes(0, 512), new Uint8Array(512));
});

void test('a Data-Out PDU that is damaged is rejected, and its command fails; not the session', () => {
  const world = new World();
  const keys = { DataDigest: 'CRC32C', ImmediateData: 'No' };
  const client = world.login({ keys });
  const { initiator, stream } = client;
  const rejects: TargetPdu[] = [];
  const r2ts: TargetPdu[] = [];
  initiator.watch = (pdu) => {
    if (pdu.opcode === ISCSI_OP.REJECT) rejects.push(pdu);
    if (pdu.opcode === ISCSI_OP.READY_TO_TRANSFER) r2ts.push(pdu);
  };
  const results = start(client, { cdb: write16(0, 2), write: pattern(1024), silent: true });
  world.settle();
  const view = new DataView(new ArrayBuffer(BHS_BYTES));
  const ttt = targetTransferTag((r2ts[0] as TargetPdu).header, 0);
  writeDataOut(view, 0, 2, ttt, FLAG_FINAL, 0, 0, 1024);
  const bytes = initiator.frame(view, pattern(1024));
  bytes[100] = (bytes[100] as number) ^ 1;
  stream.write(bytes);
  world.settle();
  assert.equal(rejects.length, 1);
  const reject = rejects[0] as TargetPdu;
  assert.equal(reject.header.getUint8(FIELD.RESPONSE), 0x02);
  assert.deepEqual(reject.data, new Uint8Array(view.buffer));
  assert.deepEqual(senseOf(results[0] as CommandResult), { key: ABORTED_COMMAND, code: 0x4705 });
  assert.deepEqual(world.bytes(0, 1024), new Uint8Array(1024));
  assert.equal(run(world, client, { cdb: write16(0, 2), write: pattern(1024) }).status, 0);
});

void test('a command whose immediate data is damaged has not been received; its number can be used again', () => {
  const world = new World();
  const client = world.login({ keys: { DataDigest: 'CRC32C', HeaderDigest: 'CRC32C' } });
  const { initiator, stream } = client;
  const rejects = watch(client, ISCSI_OP.REJECT);
  const send = initiator.send.bind(initiator);
  initiator.send = (header, data) => {
    const bytes = initiator.frame(header, data);
    bytes[60] = (bytes[60] as number) ^ 0x80;
    stream.write(bytes);
  };
  const lost = start(client, { cdb: write16(0, 1), write: pattern(512) });
  initiator.send = send;
  // The next one comes before the gap is filled, and waits.
  const later = start(client, { cdb: write16(1, 1), write: pattern(512, 5) });
  world.settle();
  assert.equal(rejects.length, 1);
  assert.equal(lost.length, 0);
  assert.equal(later.length, 0);
  initiator.cmdSn -= 2;
  const again = start(client, { cdb: write16(0, 1), write: pattern(512) });
  initiator.cmdSn += 1;
  world.settle();
  assert.equal(again[0]?.status, STATUS.GOOD);
  assert.equal(later[0]?.status, STATUS.GOOD);
  assert.deepEqual(world.bytes(0, 512), pattern(512));
  assert.deepEqual(world.bytes(512, 512), pattern(512, 5));
});

void test('a wrong header digest ends the connection', () => {
  const world = new World();
  const { initiator, stream } = world.login({ keys: { HeaderDigest: 'CRC32C' } });
  const view = new DataView(new ArrayBuffer(BHS_BYTES));
  const bytes = initiator.frame(view);
  bytes[BHS_BYTES] = (bytes[BHS_BYTES] as number) ^ 1;
  stream.write(bytes);
  world.settle();
  assert.ok(stream.closed);
  assert.match(world.lines.join('\n'), /header digest/);
});

void test('FUA goes with every piece of a write', () => {
  const world = new World();
  const client = world.login();
  const flags: number[] = [];
  world.device.fails = (io) => {
    if (io.op === OP.WRITE) flags.push(io.flags);
    return false;
  };
  const data = pattern(1000 * BLOCK_BYTES);
  run(world, client, { cdb: write16(0, 1000, true), write: data });
  assert.ok(flags.length > 1);
  assert.ok(flags.every((flag) => (flag & FLAG.FUA) !== 0));
});

void test('a WRITE that fails says so when all of its data has come, and its rest is not written', () => {
  const world = new World();
  const keys = { ImmediateData: 'No', MaxBurstLength: '1024', FirstBurstLength: '1024' };
  const client = world.login({ keys });
  world.device.fails = (io) => io.op === OP.WRITE;
  const result = run(world, client, { cdb: write16(0, 64), write: pattern(64 * BLOCK_BYTES) });
  assert.equal(result.status, STATUS.CHECK_CONDITION);
  assert.equal(senseOf(result).key, 0x03);
  assert.equal(result.r2ts, 1);
  assert.equal(world.device.writes, 1);
});

void test('a command that is refused waits for the data that its initiator is sending', () => {
  const world = new World();
  const client = world.login({ keys: { InitialR2T: 'No' } });
  const beyond = 1_000_000;
  const results = start(client, {
    cdb: write16(beyond, 4),
    write: pattern(2048),
    immediateBytes: 512,
    unsolicitedBytes: 0,
  });
  // It says that more comes: F is not set.
  client.stream.write(new Uint8Array(0));
  world.settle();
  assert.equal(results[0]?.status, STATUS.CHECK_CONDITION);
  const withMore = start(client, {
    cdb: write16(beyond, 4),
    write: pattern(2048),
    immediateBytes: 512,
    unsolicitedBytes: 1536,
  });
  world.settle();
  assert.equal(withMore[0]?.status, STATUS.CHECK_CONDITION);
  assert.equal(withMore[0]?.underflow, true);
  assert.equal(run(world, client, { cdb: read16(0, 1), read: 512 }).status, STATUS.GOOD);
});

void test('commands that take their data as a whole get what came, within a budget', () => {
  const world = new World({ collectedBytes: 300_000 });
  const client = world.login({ keys: { ImmediateData: 'No' } });
  const data = pattern(400 * BLOCK_BYTES);
  run(world, client, { cdb: write16(0, 400), write: data });
  const r2ts = watch(client, ISCSI_OP.READY_TO_TRANSFER);
  const first = start(client, { cdb: compare16(0, 400), write: data, silent: true });
  const second = start(client, { cdb: compare16(0, 400), write: data, silent: true });
  world.settle();
  assert.equal(r2ts.length, 1, 'both are asked for');
  const answer = (index: number): void => {
    const { header } = r2ts[index] as TargetPdu;
    const itt = header.getUint32(FIELD.INITIATOR_TASK_TAG);
    client.initiator.sendData(itt, targetTransferTag(header, 0), data, 0, data.length);
    world.settle();
  };
  answer(0);
  assert.equal(first[0]?.status, STATUS.GOOD);
  assert.equal(r2ts.length, 2);
  answer(1);
  assert.equal(second[0]?.status, STATUS.GOOD);
  const other = data.slice();
  other[12_345] = (other[12_345] as number) ^ 1;
  const differs = run(world, client, { cdb: compare16(0, 400), write: other });
  assert.equal(senseOf(differs).key, 0x0e);
  assert.equal(world.sessions.budget.usedBytes, 0);
});

void test('data that comes early for a command that has to wait is kept; where that is too much it is BUSY', () => {
  const world = new World({ collectedBytes: 3072 });
  const client = world.login({ keys: { InitialR2T: 'No', FirstBurstLength: '1024' } });
  // An ORDERED command waits for the one before it.
  world.device.holds = (io) => io.op === OP.WRITE;
  const slow = start(client, { cdb: write16(0, 1), write: pattern(512) });
  world.settle();
  const ordered = start(client, { cdb: write16(2, 2), write: pattern(1024, 3), attribute: 2 });
  const busy = start(client, { cdb: write16(8, 2), write: pattern(1024, 5) });
  const rest = start(client, { cdb: write16(16, 1), write: pattern(512, 7) });
  world.settle();
  assert.equal(world.device.held.length, 1);
  world.device.holds = () => false;
  world.device.release();
  world.settle();
  assert.equal(slow[0]?.status, STATUS.GOOD);
  assert.equal(ordered[0]?.status, STATUS.GOOD);
  assert.equal(busy[0]?.status, STATUS.BUSY);
  assert.equal(rest[0]?.status, STATUS.GOOD);
  assert.deepEqual(world.bytes(1024, 1024), pattern(1024, 3));
  assert.deepEqual(world.bytes(4096, 1024), new Uint8Array(1024));
  assert.deepEqual(world.bytes(8192, 512), pattern(512, 7));
  assert.equal(world.sessions.budget.usedBytes, 0);
});

void test('data of commands that wait leaves room for the command that they wait for', () => {
  const world = new World({ collectedBytes: 2048 });
  const client = world.login({ keys: { InitialR2T: 'No', FirstBurstLength: '512' } });
  world.device.holds = (io) => io.op === OP.WRITE;
  const slow = start(client, { cdb: write16(0, 2), write: new Uint8Array(1024) });
  world.settle();
  // It takes its data when it may run: by then the others hold what they may.
  const cdb = compare16(0, 2);
  const ordered = start(client, {
    cdb,
    write: new Uint8Array(1024),
    attribute: 2,
    immediateBytes: 0,
    unsolicitedBytes: 0,
  });
  const rest = [8, 9, 10].map((lba) =>
    start(client, { cdb: write16(lba, 1), write: pattern(512, lba) }),
  );
  world.settle();
  assert.equal(world.sessions.budget.usedBytes, 1024);
  world.device.holds = () => false;
  world.device.release(2);
  world.settle();
  const statuses = [slow, ordered, ...rest].map(([result]) => result?.status);
  const { GOOD, BUSY } = STATUS;
  assert.deepEqual(statuses, [GOOD, GOOD, GOOD, GOOD, BUSY]);
  assert.equal(world.sessions.budget.usedBytes, 0);
});

void test('an initiator that does not send the data of its write is given up, its command with it', () => {
  const world = new World();
  const client = world.login({ keys: { ImmediateData: 'No' } });
  start(client, { cdb: write16(0, 1), write: pattern(512), silent: true });
  world.settle();
  for (let i = 0; i < 8; i += 1) {
    world.pass(10_000);
    client.initiator.ping(new Uint8Array(0), () => {});
  }
  assert.ok(client.stream.closed);
  assert.match(world.lines.join('\n'), /does not send the data/);
  assert.equal(world.sessions.size, 0);
});

void test('data that was to come unasked and does not: the same', () => {
  const world = new World();
  const client = world.login({ keys: { InitialR2T: 'No', FirstBurstLength: '1024' } });
  // The first block goes with the command, and the last bit is not set.
  const view = new DataView(new ArrayBuffer(BHS_BYTES));
  const flags = COMMAND_FLAG.WRITE | 1;
  writeScsiCommand(view, 0, 0x7000, flags, 0, 1024, write16(0, 2), 512);
  writeRequestSequence(view, 0, client.initiator.cmdSn, client.initiator.expStatSn);
  client.initiator.send(view, pattern(512));
  world.settle();
  for (let i = 0; i < 8; i += 1) {
    world.pass(10_000);
    alive(client);
  }
  assert.ok(client.stream.closed);
  assert.match(world.lines.join('\n'), /does not send the data/);
  assert.equal(world.sessions.size, 0);
});

void test('an initiator that sends a little now and then does not keep the memory from others', () => {
  const world = new World({ collectedBytes: 300_000 });
  const keys = { ImmediateData: 'No' };
  const slow = world.login({ keys });
  const other = world.login({ keys, isid: Uint8Array.of(0, 2, 0x3d, 0, 0, 2) });
  const data = pattern(400 * BLOCK_BYTES);
  run(world, other, { cdb: write16(0, 400), write: data });
  const r2ts = watch(slow, ISCSI_OP.READY_TO_TRANSFER);
  const itt = slow.initiator.command(
    { cdb: compare16(0, 400), write: data, silent: true },
    () => {},
  );
  world.settle();
  const ttt = targetTransferTag((r2ts[0] as TargetPdu).header, 0);
  const waits = start(other, { cdb: compare16(0, 400), write: data });
  for (let i = 0; i < 8 && !slow.stream.closed; i += 1) {
    dataOut(
      slow,
      itt,
      ttt,
      { dataSn: i, offset: i * 4, final: false },
      data.subarray(i * 4, i * 4 + 4),
    );
    alive(other);
    world.pass(10_000);
  }
  assert.ok(slow.stream.closed);
  assert.match(world.lines.join('\n'), /too slowly/);
  assert.equal(waits[0]?.status, STATUS.GOOD);
  assert.equal(world.sessions.budget.usedBytes, 0);
});

/** A sign of life. */
function alive({ initiator, stream }: Client): void {
  if (!stream.closed) initiator.ping(new Uint8Array(0), () => {});
}
