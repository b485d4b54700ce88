import assert from 'node:assert/strict';
import test from 'node:test';
import { OP } from '../../block/io.ts';
import { STATUS } from '../scsi/scsi.ts';
import { testUnitReady, write16 } from './initiator/cdbs.ts';
import type { CommandResult } from './initiator/initiator.ts';
import { portName, transportId } from './session.ts';
import { BLOCK_BYTES, type Client, World } from './testing.ts';
import { LOGIN_STATUS, LOGOUT_REASON } from './wire.ts';

const OTHER_ISID = new Uint8Array([0, 2, 0x3d, 0, 0, 9]);

function write({ initiator }: Client, lba: number, value: number): CommandResult[] {
  const ended: CommandResult[] = [];
  const data = new Uint8Array(BLOCK_BYTES).fill(value);
  initiator.command({ cdb: write16(lba, 1), write: data }, (told) => ended.push(told));
  return ended;
}

function login(world: World, client: Client): number {
  let status = -1;
  client.initiator.login((told) => {
    status = told;
  });
  world.settle();
  return status;
}

void test('T13, P11: a slow write of the session before cannot land on a newer one', () => {
  const world = new World();
  const old = world.login();
  world.device.holds = (io) => io.op === OP.WRITE;
  const slow = write(old, 0, 1);
  world.settle();
  world.device.holds = () => false;
  // The same initiator port, while the old connection is still thought to be there.
  const next = world.connect();
  assert.equal(login(world, next), 0);
  assert.ok(old.stream.closed);
  assert.match(world.lines.join('\n'), /logged in again/);
  // Commands come at once, with their data, and wait.
  const attention: CommandResult[] = [];
  next.initiator.command({ cdb: testUnitReady() }, (told) => attention.push(told));
  const newer = write(next, 0, 2);
  let pinged = false;
  next.initiator.ping(new Uint8Array(1), () => {
    pinged = true;
  });
  world.settle();
  assert.equal(newer.length, 0);
  assert.ok(pinged, 'pings are answered while it waits');
  world.device.release();
  world.settle();
  assert.equal(attention[0]?.status, STATUS.CHECK_CONDITION);
  assert.equal(newer[0]?.status, STATUS.GOOD);
  assert.equal(slow.length, 0);
  assert.deepEqual(world.bytes(0, BLOCK_BYTES), new Uint8Array(BLOCK_BYTES).fill(2));
  assert.equal(world.sessions.size, 1);
});

void test('P11: a session that was lost holds up the next one of any initiator', () => {
  const world = new World();
  const old = world.login();
  world.device.holds = (io) => io.op === OP.WRITE;
  write(old, 0, 1);
  world.settle();
  world.device.holds = () => false;
  old.stream.cut();
  world.settle();
  const other = world.connect({ isid: OTHER_ISID });
  assert.equal(login(world, other), 0);
  other.initiator.command({ cdb: testUnitReady() }, () => {});
  const newer = write(other, 0, 2);
  world.settle();
  assert.equal(newer.length, 0);
  world.device.release();
  world.settle();
  assert.equal(newer[0]?.status, STATUS.GOOD);
  assert.deepEqual(world.bytes(0, BLOCK_BYTES), new Uint8Array(BLOCK_BYTES).fill(2));
});

void test('only a login that is complete takes the place of a session', () => {
  const world = new World();
  const old = world.login();
  // Somebody begins to log in and fails: another target.
  const stranger = world.connect({ targetName: 'iqn.2026-11.test:none' });
  assert.notEqual(login(world, stranger), 0);
  assert.equal(old.stream.closed, false);
  const half = world.connect();
  half.stream.write(new Uint8Array(47));
  world.settle();
  const ended = write(old, 0, 1);
  world.settle();
  assert.equal(ended[0]?.status, STATUS.GOOD);
});

void test('a third session in the place of a second that never got its turn', () => {
  const world = new World();
  const first = world.login();
  world.device.holds = (io) => io.op === OP.WRITE;
  write(first, 0, 1);
  world.settle();
  world.device.holds = () => false;
  const second = world.connect();
  assert.equal(login(world, second), 0);
  const never = write(second, 0, 2);
  world.settle();
  const third = world.connect();
  assert.equal(login(world, third), 0);
  assert.ok(second.stream.closed);
  third.initiator.command({ cdb: testUnitReady() }, () => {});
  const last = write(third, 0, 3);
  world.settle();
  assert.equal(last.length, 0);
  world.device.release();
  world.settle();
  assert.equal(never.length, 0);
  assert.equal(last[0]?.status, STATUS.GOOD);
  assert.deepEqual(world.bytes(0, BLOCK_BYTES), new Uint8Array(BLOCK_BYTES).fill(3));
  assert.equal(world.sessions.size, 1);
});

void test('other initiator ports and discovery sessions live side by side', () => {
  const world = new World();
  const clients = [
    world.login(),
    world.login({ isid: OTHER_ISID }),
    world.login({ initiatorName: 'iqn.2026-11.test:other' }),
    world.login({ targetName: null }),
    world.login({ targetName: null }),
  ];
  assert.equal(world.sessions.size, 5);
  const handles = new Set([...world.sessions].map(({ tsih }) => tsih));
  assert.equal(handles.size, 5);
  assert.ok(!handles.has(0));
  for (const { stream } of clients) assert.equal(stream.closed, false);
});

void test('a login that names a session: the same connection again, another one, or none', () => {
  const world = new World();
  const first = world.login({ cid: 3 });
  const { tsih } = first.initiator;
  assert.notEqual(tsih, 0);
  const second = world.connect({ cid: 4, tsih });
  assert.equal(login(world, second), LOGIN_STATUS.TOO_MANY_CONNECTIONS);
  assert.equal(first.stream.closed, false);
  const unknown = world.connect({ cid: 3, tsih: tsih + 1 });
  assert.equal(login(world, unknown), LOGIN_STATUS.SESSION_DOES_NOT_EXIST);
  const again = world.connect({ cid: 3, tsih });
  assert.equal(login(world, again), 0);
  assert.equal(again.initiator.tsih, tsih);
  assert.ok(first.stream.closed);
});

void test('sessions have a limit', () => {
  const world = new World({ pages: 200 });
  for (let i = 0; i < 64; i += 1) world.login({ isid: new Uint8Array([0, 2, 0x3d, 0, 1, i]) });
  const more = world.connect();
  assert.equal(login(world, more), LOGIN_STATUS.OUT_OF_RESOURCES);
  const [first] = world.connections;
  first?.drop('to make room');
  world.settle();
  const again = world.connect();
  assert.equal(login(world, again), 0);
});

void test('a session of the same initiator after a logout', () => {
  const world = new World();
  for (let i = 0; i < 5; i += 1) {
    const client = world.login();
    const ended = write(client, i, i);
    world.settle();
    assert.equal(ended[0]?.status, STATUS.GOOD);
    client.initiator.logout(LOGOUT_REASON.CLOSE_SESSION, () => {});
    world.settle();
    assert.equal(world.sessions.size, 0);
  }
  assert.equal(world.reactor.pool.inUse, 0);
  assert.equal(world.reactor.timers, 0);
});

void test('how an initiator port is named', () => {
  const isid = new Uint8Array([0x00, 0x02, 0x3d, 0x00, 0x00, 0x01]);
  const name = 'iqn.2026-11.test:initiator';
  assert.equal(portName(name, isid), `${name},i,0x00023d000001`);
  const id = transportId(name, isid);
  assert.equal(id[0], 0x45);
  assert.equal(id.length % 4, 0);
  assert.equal((id[2] as number) * 256 + (id[3] as number), id.length - 4);
  const text = new TextDecoder().decode(id.subarray(4));
  assert.equal(text.slice(0, text.indexOf('\0')), `${name},i,0x00023d000001`);
});
