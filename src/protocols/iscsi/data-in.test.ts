import assert from 'node:assert/strict';
import test from 'node:test';
import { OP } from '../../block/io.ts';
import { STATUS } from '../scsi/scsi.ts';
import { inquiry, read16, readCapacity16, write16 } from './initiator/cdbs.ts';
import type { CommandOptions, CommandResult, TargetPdu } from './initiator/initiator.ts';
import { BLOCK_BYTES, type Client, World } from './testing.ts';
import { COMMAND_FLAG, DATA_IN_FLAG, FLAG_FINAL, ISCSI_OP } from './wire.ts';

const MiB = 1024 * 1024;

function run(world: World, { initiator }: Client, options: CommandOptions): CommandResult {
  const results: CommandResult[] = [];
  initiator.command(options, (told) => results.push(told));
  world.settle();
  assert.equal(results.length, 1, 'the command has not ended');
  return results[0] as CommandResult;
}

/** Writes a pattern and returns it. */
function fill(world: World, client: Client, blocks: number): Uint8Array {
  const data = new Uint8Array(blocks * BLOCK_BYTES).map((_, i) => (i * 13 + (i >> 9) * 7) & 0xff);
  assert.equal(run(world, client, { cdb: write16(0, blocks), write: data }).status, STATUS.GOOD);
  return data;
}

function collect({ initiator }: Client, opcode: number): TargetPdu[] {
  const found: TargetPdu[] = [];
  initiator.watch = (pdu) => {
    if (pdu.opcode === opcode) found.push(pdu);
  };
  return found;
}

for (const [segment, burst] of [
  [262_144, 262_144],
  [8192, 262_144],
  [8192, 8192],
  [512, 512],
  [1000, 3000],
  [4096, 10_000],
  [16_777_215, 16_776_192],
] as const) {
  for (const digests of ['None', 'CRC32C']) {
    void test(`a READ in PDUs of ${segment} in bursts of ${burst}, digests ${digests}`, () => {
      const world = new World();
      const client = world.login({
        keys: {
          MaxRecvDataSegmentLength: String(segment),
          MaxBurstLength: String(burst),
          HeaderDigest: digests,
          DataDigest: digests,
        },
      });
      const data = fill(world, client, 1000);
      const result = run(world, client, { cdb: read16(0, 1000), read: data.length });
      assert.equal(result.status, STATUS.GOOD);
      assert.deepEqual(result.data, data);
      assert.equal(result.residual, 0);
      assert.ok(!result.overflow && !result.underflow);
      client.stream.cut();
      world.settle();
      assert.equal(world.reactor.pool.inUse, 0);
    });
  }
}

void test('GOOD comes with the last Data-In, and only there', () => {
  const world = new World();
  const client = world.login({ keys: { MaxRecvDataSegmentLength: '1024' } });
  fill(world, client, 8);
  const dataIns = collect(client, ISCSI_OP.SCSI_DATA_IN);
  run(world, client, { cdb: read16(0, 8), read: 4096 });
  const flags = dataIns.map(({ header }) => header.getUint8(1));
  assert.deepEqual(flags, [0, 0, 0, FLAG_FINAL | DATA_IN_FLAG.STATUS]);
});

// [RFC 7143 11.4.5.1] What the initiator expects against what the command is about.
const RESIDUALS: readonly {
  readonly blocks: number;
  readonly expected: number;
  readonly got: number;
  readonly kind: 'overflow' | 'underflow' | null;
  readonly residual: number;
}[] = [
  { blocks: 1, expected: 0, got: 0, kind: 'overflow', residual: 512 },
  { blocks: 1, expected: 200, got: 200, kind: 'overflow', residual: 312 },
  { blocks: 1, expected: 512, got: 512, kind: null, residual: 0 },
  { blocks: 1, expected: 10_000, got: 512, kind: 'underflow', residual: 9488 },
  { blocks: 2, expected: 512, got: 512, kind: 'overflow', residual: 512 },
  { blocks: 0, expected: 512, got: 0, kind: 'underflow', residual: 512 },
  { blocks: 0, expected: 0, got: 0, kind: null, residual: 0 },
  { blocks: 1024, expected: 300_001, got: 300_001, kind: 'overflow', residual: 224_287 },
];

for (const { blocks, expected, got, kind, residual } of RESIDUALS) {
  void test(`residuals: READ of ${blocks} blocks with ${expected} bytes expected`, () => {
    const world = new World();
    const client = world.login();
    const data = fill(world, client, 1024);
    const result = run(world, client, { cdb: read16(0, blocks), read: expected });
    assert.equal(result.status, STATUS.GOOD);
    assert.deepEqual(result.data, data.subarray(0, got));
    assert.equal(result.overflow, kind === 'overflow');
    assert.equal(result.underflow, kind === 'underflow');
    assert.equal(result.residual, residual);
  });
}

void test('residuals of parameter data, which is cut to its allocation length before', () => {
  const world = new World();
  const client = world.login();
  const whole = run(world, client, { cdb: inquiry(36), read: 36 });
  assert.deepEqual([whole.residual, whole.overflow, whole.underflow], [0, false, false]);
  const more = run(world, client, { cdb: readCapacity16(32), read: 100 });
  assert.deepEqual([more.data.length, more.underflow, more.residual], [32, true, 68]);
  const less = run(world, client, { cdb: readCapacity16(32), read: 10 });
  assert.deepEqual([less.data.length, less.overflow, less.residual], [10, true, 22]);
});

void test('residuals of a READ that was announced as a write, or as nothing', () => {
  const world = new World();
  const client = world.login();
  const none = run(world, client, { cdb: read16(0, 1) });
  assert.deepEqual([none.status, none.overflow, none.residual], [STATUS.GOOD, true, 512]);
  const write = run(world, client, { cdb: read16(0, 1), write: new Uint8Array(512).fill(9) });
  assert.deepEqual([write.status, write.overflow, write.residual], [STATUS.GOOD, true, 512]);
  assert.deepEqual(world.bytes(0, 512), new Uint8Array(512));
});

void test('bidirectional flags with a command that only reads', () => {
  const world = new World();
  const client = world.login();
  const flags = COMMAND_FLAG.READ | COMMAND_FLAG.WRITE;
  assert.notEqual(flags, 0);
  const result = run(world, client, { cdb: inquiry(36), read: 36, write: new Uint8Array(100) });
  // No bidirectional read length came: nothing can be sent.
  assert.deepEqual([result.data.length, result.underflow, result.residual], [0, true, 100]);
});

void test('several pieces of one READ are with the disk together, and leave in order', () => {
  const world = new World();
  const client = world.login();
  const data = fill(world, client, 2048);
  world.device.holds = (io) => io.op === OP.READ;
  const results: CommandResult[] = [];
  client.initiator.command({ cdb: read16(0, 2048), read: MiB }, (told) => results.push(told));
  world.settle();
  assert.ok(world.device.held.length > 1, 'one piece at a time');
  // The last first.
  while (world.device.held.length > 0) {
    world.device.held.reverse();
    world.device.release();
    world.settle();
  }
  assert.deepEqual(results[0]?.data, data);
});

void test('a READ that fails half-way says where, and the connection lives', () => {
  const world = new World();
  const client = world.login();
  const data = fill(world, client, 2048);
  world.device.fails = (io) => io.op === OP.READ && io.offset + io.length > 600 * 1024;
  const failed = run(world, client, { cdb: read16(0, 2048), read: MiB });
  assert.equal(failed.status, STATUS.CHECK_CONDITION);
  assert.equal(failed.sense[2], 0x03);
  assert.equal(new DataView(failed.sense.buffer, failed.sense.byteOffset).getUint16(12), 0x1100);
  assert.deepEqual(failed.data, data.subarray(0, failed.data.length));
  assert.equal(failed.underflow, true);
  assert.equal(failed.residual, MiB - failed.data.length);
  world.device.fails = () => false;
  assert.deepEqual(run(world, client, { cdb: read16(0, 2048), read: MiB }).data, data);
});

void test('an initiator that takes nothing costs no more than its share of memory', () => {
  const world = new World({ pages: 16 });
  const client = world.login();
  const other = world.login({ isid: new Uint8Array([0, 2, 0x3d, 0, 0, 2]) });
  const data = fill(world, client, 16_384);
  client.stream.window = 0;
  const ended: CommandResult[] = [];
  for (let i = 0; i < 20; i += 1) {
    client.initiator.command({ cdb: read16(0, 16_384), read: data.length }, (result) => {
      assert.deepEqual(result.data, data);
      ended.push(result);
    });
  }
  world.settle();
  assert.ok(world.reactor.pool.inUse <= 8, `${world.reactor.pool.inUse} pages are held`);
  assert.deepEqual(run(world, other, { cdb: read16(0, 16_384), read: data.length }).data, data);
  // It takes a little at a time.
  for (let i = 0; i < 2000 && ended.length < 20; i += 1) {
    client.stream.window = 150_000;
    world.settle();
  }
  assert.equal(ended.length, 20);
});

for (const memoryAlignment of [512, 4096, 65_536]) {
  void test(`READs where memory has to be aligned to ${memoryAlignment}`, () => {
    const info = { memoryAlignment, blockBytes: Math.min(4096, memoryAlignment) };
    const world = new World({ info });
    const client = world.login({ keys: { MaxRecvDataSegmentLength: '262144' } });
    const bytes = info.blockBytes * 100;
    const data = new Uint8Array(bytes).map((_, i) => i & 0xff);
    run(world, client, { cdb: write16(0, 100), write: data });
    let starts: number[] = [];
    world.device.fails = (io) => {
      if (io.op === OP.READ) starts = io.segments.starts.slice(0, io.segments.count);
      return false;
    };
    assert.deepEqual(run(world, client, { cdb: read16(0, 100), read: bytes }).data, data);
    assert.ok(starts.every((start) => start % memoryAlignment === 0));
  });
}
