import assert from 'node:assert/strict';
import test from 'node:test';
import { OP } from '../../block/io.ts';
import { STATUS } from '../scsi/scsi.ts';
import { read16, testUnitReady, write16 } from './initiator/cdbs.ts';
import type { CommandResult } from './initiator/initiator.ts';
import { type Client, World } from './testing.ts';
import { serialAdd, TMF, TMF_RESPONSE } from './wire.ts';

const OTHER_ISID = new Uint8Array([0, 2, 0x3d, 0, 0, 9]);

function manage(
  { initiator }: Client,
  tmf: number,
  tag = 0xffffffff,
  options: { lun?: number; refCmdSn?: number } = {},
): number[] {
  const told: number[] = [];
  const { lun = 0, refCmdSn = 0 } = options;
  initiator.manage(tmf, lun, tag, refCmdSn, (response) => told.push(response));
  return told;
}

function write(
  { initiator }: Client,
  lba: number,
  value: number,
): { itt: number; ended: CommandResult[] } {
  const ended: CommandResult[] = [];
  const data = new Uint8Array(512).fill(value);
  const itt = initiator.command({ cdb: write16(lba, 1), write: data }, (told) => ended.push(told));
  return { itt, ended };
}

void test('ABORT TASK is answered when nothing of the command is under way; the command is not', () => {
  const world = new World();
  const client = world.login();
  world.device.holds = (io) => io.op === OP.WRITE;
  const { itt, ended } = write(client, 0, 1);
  world.settle();
  const told = manage(client, TMF.ABORT_TASK, itt);
  world.settle();
  assert.deepEqual(told, []);
  world.device.release();
  world.settle();
  assert.deepEqual(told, [TMF_RESPONSE.FUNCTION_COMPLETE]);
  assert.equal(ended.length, 0);
});

void test('ABORT TASK of a READ in several pieces, some of them said', () => {
  const world = new World();
  const client = world.login();
  let reads = 0;
  world.device.holds = (io) => io.op === OP.READ && (reads += 1) > 2;
  const ended: CommandResult[] = [];
  const options = { cdb: read16(0, 4096), read: 4096 * 512 };
  const itt = client.initiator.command(options, (told) => ended.push(told));
  world.settle();
  const told = manage(client, TMF.ABORT_TASK, itt);
  world.settle();
  assert.deepEqual(told, []);
  world.device.release(9);
  world.settle();
  assert.deepEqual(told, [TMF_RESPONSE.FUNCTION_COMPLETE]);
  assert.equal(ended.length, 0);
});

void test('ABORT TASK of a write that waits for its data; what comes of it later is dropped', () => {
  const world = new World();
  const client = world.login({ keys: { ImmediateData: 'No' } });
  const data = new Uint8Array(512).fill(9);
  const ended: CommandResult[] = [];
  const itt = client.initiator.command({ cdb: write16(0, 1), write: data, silent: true }, (told) =>
    ended.push(told),
  );
  world.settle();
  const told = manage(client, TMF.ABORT_TASK, itt);
  world.settle();
  assert.deepEqual(told, [TMF_RESPONSE.FUNCTION_COMPLETE]);
  client.initiator.sendData(itt, 0, data, 0, 512);
  world.settle();
  assert.equal(ended.length, 0);
  assert.deepEqual(world.bytes(0, 512), new Uint8Array(512));
  const { ended: after } = write(client, 1, 2);
  world.settle();
  assert.equal(after[0]?.status, STATUS.GOOD);
});

void test('ABORT TASK of what is not there, or on another LUN', () => {
  const world = new World();
  const client = world.login();
  const absent = manage(client, TMF.ABORT_TASK, 0x1234);
  world.settle();
  assert.deepEqual(absent, [TMF_RESPONSE.TASK_DOES_NOT_EXIST]);
  world.device.holds = (io) => io.op === OP.WRITE;
  const { itt, ended } = write(client, 0, 1);
  world.settle();
  const elsewhere = manage(client, TMF.ABORT_TASK, itt, { lun: 5 });
  world.settle();
  assert.deepEqual(elsewhere, [TMF_RESPONSE.TASK_DOES_NOT_EXIST]);
  world.device.release();
  world.settle();
  assert.equal(ended[0]?.status, STATUS.GOOD);
});

void test('ABORT TASK of a command that has not come: it counts as received and is never done', () => {
  const world = new World();
  const client = world.login();
  const { initiator } = client;
  const missing = initiator.cmdSn;
  initiator.cmdSn = serialAdd(missing, 1);
  const { ended } = write(client, 0, 7);
  world.settle();
  assert.equal(ended.length, 0);
  const told = manage(client, TMF.ABORT_TASK, 0x4321, { refCmdSn: missing });
  world.settle();
  assert.deepEqual(told, [TMF_RESPONSE.FUNCTION_COMPLETE]);
  assert.equal(ended[0]?.status, STATUS.GOOD);
  assert.equal(initiator.expCmdSn, serialAdd(missing, 2));
  // It comes after all.
  initiator.cmdSn = missing;
  const late = write(client, 0, 8);
  world.settle();
  assert.equal(late.ended.length, 0);
  assert.deepEqual(world.bytes(0, 512), new Uint8Array(512).fill(7));
});

void test('ABORT TASK of a command that came before its turn', () => {
  const world = new World();
  const client = world.login();
  const { initiator } = client;
  const first = initiator.cmdSn;
  initiator.cmdSn = serialAdd(first, 1);
  const { itt, ended } = write(client, 0, 7);
  world.settle();
  const told = manage(client, TMF.ABORT_TASK, itt, { refCmdSn: serialAdd(first, 1) });
  world.settle();
  assert.deepEqual(told, [TMF_RESPONSE.FUNCTION_COMPLETE]);
  initiator.cmdSn = first;
  const { ended: before } = write(client, 1, 1);
  world.settle();
  assert.equal(before[0]?.status, STATUS.GOOD);
  assert.equal(ended.length, 0);
  initiator.ping(new Uint8Array(0), () => {});
  world.settle();
  assert.equal(initiator.expCmdSn, serialAdd(first, 2));
  assert.deepEqual(world.bytes(0, 512), new Uint8Array(512));
});

for (const tmf of ['ABORT_TASK_SET', 'CLEAR_TASK_SET', 'LOGICAL_UNIT_RESET'] as const) {
  void test(`${tmf} waits for what is under way, of all that it affects`, () => {
    const world = new World();
    const client = world.login();
    const other = world.login({ isid: OTHER_ISID });
    world.device.holds = (io) => io.op === OP.WRITE;
    const mine = [write(client, 0, 1), write(client, 1, 1)];
    const others = write(other, 2, 2);
    world.settle();
    const told = manage(client, TMF[tmf]);
    world.settle();
    assert.deepEqual(told, []);
    world.device.holds = () => false;
    world.device.held.sort((a, b) => a.offset - b.offset);
    world.device.release(2);
    world.settle();
    assert.deepEqual(told, tmf === 'ABORT_TASK_SET' ? [0] : []);
    world.device.release();
    world.settle();
    assert.deepEqual(told, [TMF_RESPONSE.FUNCTION_COMPLETE]);
    for (const { ended } of mine) assert.equal(ended.length, 0);
    assert.equal(others.ended.length, tmf === 'ABORT_TASK_SET' ? 1 : 0);
    // The other hears of it.
    const heard: CommandResult[] = [];
    other.initiator.command({ cdb: testUnitReady() }, (result) => heard.push(result));
    world.settle();
    const code = { ABORT_TASK_SET: null, CLEAR_TASK_SET: 0x2f00, LOGICAL_UNIT_RESET: 0x2903 }[tmf];
    const sense = heard[0]?.sense as Uint8Array;
    if (code === null) assert.equal(heard[0]?.status, STATUS.GOOD);
    else assert.equal((sense[12] as number) * 256 + (sense[13] as number), code);
  });
}

void test('a window that was shut when its commands were aborted opens again', () => {
  const world = new World();
  const client = world.login();
  const other = world.login({ isid: OTHER_ISID });
  world.device.holds = (io) => io.op === OP.READ;
  let ended = 0;
  const one = { cdb: read16(0, 1), read: 512 };
  for (let i = 0; i < 130; i += 1) client.initiator.command(one, () => (ended += 1));
  world.settle();
  manage(other, TMF.LOGICAL_UNIT_RESET);
  world.settle();
  world.device.holds = () => false;
  world.device.release(200);
  world.settle();
  // The 128 are gone; the two that waited at the initiator are done.
  assert.equal(ended, 2);
});

void test('warm and cold reset of the target; a cold one ends the sessions', () => {
  const world = new World();
  const client = world.login();
  const other = world.login({ isid: OTHER_ISID });
  const warm = manage(client, TMF.TARGET_WARM_RESET);
  world.settle();
  assert.deepEqual(warm, [TMF_RESPONSE.FUNCTION_COMPLETE]);
  assert.equal(world.sessions.size, 2);
  const cold = manage(client, TMF.TARGET_COLD_RESET);
  world.settle();
  assert.deepEqual(cold, [TMF_RESPONSE.FUNCTION_COMPLETE]);
  assert.ok(client.stream.closed);
  assert.ok(other.stream.closed);
  assert.equal(world.sessions.size, 0);
});

void test('what is not offered, and LUNs that are not there', () => {
  const world = new World();
  const client = world.login();
  const responses = [
    manage(client, TMF.TASK_REASSIGN),
    manage(client, 99),
    manage(client, TMF.QUERY_TASK, 5),
    manage(client, TMF.LOGICAL_UNIT_RESET, 0xffffffff, { lun: 3 }),
    manage(client, TMF.CLEAR_ACA),
  ];
  world.settle();
  assert.deepEqual(responses.flat(), [
    TMF_RESPONSE.TASK_ALLEGIANCE_REASSIGNMENT_NOT_SUPPORTED,
    TMF_RESPONSE.FUNCTION_NOT_SUPPORTED,
    TMF_RESPONSE.FUNCTION_NOT_SUPPORTED,
    TMF_RESPONSE.LUN_DOES_NOT_EXIST,
    TMF_RESPONSE.FUNCTION_REJECTED,
  ]);
});

void test('query functions, with iSCSIProtocolLevel 2', () => {
  const world = new World();
  const client = world.login({ keys: { iSCSIProtocolLevel: '2' } });
  world.device.holds = (io) => io.op === OP.WRITE;
  const { itt } = write(client, 0, 1);
  world.settle();
  const there = manage(client, TMF.QUERY_TASK, itt);
  const absent = manage(client, TMF.QUERY_TASK, 0x777);
  const set = manage(client, TMF.QUERY_TASK_SET);
  const event = manage(client, TMF.QUERY_ASYNCHRONOUS_EVENT);
  world.settle();
  assert.deepEqual([there, absent, set, event].flat(), [
    TMF_RESPONSE.FUNCTION_SUCCEEDED,
    TMF_RESPONSE.FUNCTION_COMPLETE,
    TMF_RESPONSE.FUNCTION_SUCCEEDED,
    TMF_RESPONSE.FUNCTION_COMPLETE,
  ]);
  world.device.release();
  world.settle();
});
