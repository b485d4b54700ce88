import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { OP } from '../../block/io.ts';
import { STATUS } from '../scsi/scsi.ts';
import { compare16, inquiry, read16, testUnitReady, write16 } from './initiator/cdbs.ts';
import type { CommandOptions } from './initiator/initiator.ts';
import { type Client, World, type WorldOptions } from './testing.ts';
import { BHS_BYTES, FIELD, setDataSegmentLength } from './wire.ts';

/** Nobody is there any more: everything has been given back. */
function assertClean(world: World): void {
  world.device.holds = () => false;
  world.device.release(1e6);
  world.settle();
  assert.equal(world.connections.size, 0, 'a connection is left');
  assert.equal(world.sessions.size, 0, 'a session is left');
  assert.equal(world.reactor.pool.inUse, 0, 'pages are left');
  assert.equal(world.reactor.timers, 0, 'a timer is left');
  assert.equal(world.sessions.budget.usedBytes, 0, 'collected bytes are left');
  assert.equal(world.target.scsi.nexuses.size, 0, 'a nexus is left');
  assert.equal(world.unit.tasks.count, 0, 'a task is left');
}

const KEYS = [
  {},
  { ImmediateData: 'No' },
  { InitialR2T: 'No', ImmediateData: 'No', MaxRecvDataSegmentLength: '512' },
  { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C', InitialR2T: 'No' },
  { MaxBurstLength: '1500', FirstBurstLength: '700', MaxOutstandingR2T: '4' },
];

/** What an initiator asks for at random; sizes are small and large. */
function randomCommand(prng: Prng): CommandOptions {
  const blocks = prng.pick([1, 2, 7, 64, 300, 1500]);
  const lba = prng.below(1000);
  const attribute = prng.pick([1, 1, 1, 0, 2, 3]);
  const bytes = blocks * 512;
  switch (prng.below(6)) {
    case 0:
      return { cdb: testUnitReady(), attribute };
    case 1:
      return { cdb: inquiry(96), read: 96, attribute };
    case 2:
    case 3:
      return { cdb: read16(lba, blocks), read: bytes, attribute };
    case 4:
      return { cdb: compare16(lba, blocks), write: new Uint8Array(bytes), attribute };
    default:
      return { cdb: write16(lba, blocks), write: new Uint8Array(bytes).fill(lba), attribute };
  }
}

void test('a connection that is lost in any state leaves nothing behind', () => {
  for (let seed = 0; seed < 300; seed += 1) {
    const prng = new Prng(seed);
    const options: WorldOptions = { pages: prng.pick([6, 32]), collectedBytes: 1_000_000 };
    const world = new World(options);
    const held = prng.float();
    world.device.holds = () => prng.chance(held);
    world.device.fails = () => prng.chance(0.1);
    const keys = prng.pick(KEYS);
    const client = world.connect({ keys });
    client.stream.pieceBytes = prng.pick([1 + prng.below(100), 5000, Infinity]);
    if (prng.chance(0.3)) client.stream.window = prng.below(100_000);
    client.initiator.login(() => {
      for (let i = prng.below(40); i > 0; i -= 1) {
        const itt = client.initiator.command(
          { ...randomCommand(prng), silent: prng.chance(0.2) },
          () => {},
        );
        if (prng.chance(0.1)) client.initiator.manage(1 + prng.below(6), 0, itt, 0, () => {});
      }
    });
    world.settle();
    for (let i = prng.below(8); i > 0; i -= 1) {
      world.device.release(prng.below(4));
      world.settle();
    }
    if (prng.chance(0.2)) client.connection.shutdown();
    client.stream.cut();
    client.stream.window = Infinity;
    world.settle();
    // One that is not listened to is found out when something is said to it, or it is asked.
    for (let i = 0; i < 20; i += 1) world.pass(10_000);
    try {
      assertClean(world);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
});

void test('whatever is asked in whatever way is answered', () => {
  for (let seed = 0; seed < 30; seed += 1) {
    const prng = new Prng(seed);
    const world = new World({ pages: 12, collectedBytes: 2_000_000 });
    const clients = KEYS.map((keys, i) => {
      const client = world.login({ keys, isid: new Uint8Array([0, 2, 0x3d, 0, 0, i]) });
      client.stream.pieceBytes = prng.pick([1000, 100_000, Infinity]);
      return client;
    });
    world.device.holds = () => prng.chance(0.5);
    const asked = 40;
    const ended: number[] = [];
    for (let i = 0; i < asked; i += 1) {
      prng.pick(clients).initiator.command(randomCommand(prng), () => ended.push(i));
      if (prng.chance(0.3)) world.settle();
    }
    for (let i = 0; i < 20_000 && ended.length < asked; i += 1) {
      world.settle();
      world.device.held.sort(() => prng.float() - 0.5);
      world.device.release(1 + prng.below(3));
    }
    assert.equal(ended.length, asked, `seed ${seed}`);
    for (const { stream } of clients) stream.cut();
    world.settle();
    assertClean(world);
  }
});

void test('reads find what was written, in whatever pieces both travel', () => {
  for (let seed = 0; seed < 40; seed += 1) {
    const prng = new Prng(seed);
    const world = new World({ pages: 12 });
    const client = world.login({ keys: prng.pick(KEYS) });
    client.stream.pieceBytes = prng.pick([1 + prng.below(1000), 100_000, Infinity]);
    world.device.holds = () => prng.chance(0.5);
    const model = new Uint8Array(2500 * 512);
    for (let i = 0; i < 20; i += 1) {
      const blocks = prng.pick([1, 2, 9, 64, 300, 1500]);
      const lba = prng.below(1000);
      const range = model.subarray(lba * 512, (lba + blocks) * 512);
      const ended: Uint8Array[] = [];
      if (prng.chance(0.5)) {
        prng.fill(range);
        const write = range.slice();
        client.initiator.command({ cdb: write16(lba, blocks), write }, () => ended.push(write));
      } else {
        const read = blocks * 512;
        client.initiator.command({ cdb: read16(lba, blocks), read }, ({ data }) => {
          ended.push(data);
        });
      }
      for (let steps = 0; steps < 1000 && ended.length === 0; steps += 1) {
        world.settle();
        world.device.held.reverse();
        world.device.release();
      }
      assert.deepEqual(ended[0], range, `seed ${seed}, command ${i}`);
    }
  }
});

/** A PDU with any header, mostly with an opcode that exists and lengths that could be. */
function randomPdu({ initiator }: Client, prng: Prng): Uint8Array {
  const view = new DataView(new ArrayBuffer(BHS_BYTES + (prng.chance(0.1) ? 4 : 0)));
  const bytes = new Uint8Array(view.buffer);
  prng.fill(bytes);
  bytes[0] = prng.pick([0, 1, 1, 1, 2, 4, 5, 5, 5, 6, 0x10, 0x3f]) | (prng.chance(0.3) ? 0x40 : 0);
  view.setUint8(FIELD.TOTAL_AHS_LENGTH, (bytes.length - BHS_BYTES) / 4);
  const data = new Uint8Array(prng.pick([0, 0, 1, 5, 512, 4096]));
  setDataSegmentLength(view, 0, data.length);
  if (prng.chance(0.8)) view.setUint32(FIELD.CMD_SN, initiator.expCmdSn + prng.below(3));
  if (prng.chance(0.8)) view.setUint32(FIELD.INITIATOR_TASK_TAG, prng.below(8));
  if (prng.chance(0.7)) {
    view.setUint32(FIELD.LUN, 0);
    view.setUint32(FIELD.LUN + 4, 0);
  }
  if (prng.chance(0.7)) view.setUint32(20, prng.pick([0, 1, 512, 4096, 0xffffffff]));
  if (prng.chance(0.6)) {
    bytes.set(prng.chance(0.5) ? write16(prng.below(9), 8) : read16(0, 8), FIELD.CDB);
  }
  if (bytes[0] === 5 && prng.chance(0.7)) {
    view.setUint32(FIELD.DATA_SN, prng.below(2));
    view.setUint32(FIELD.BUFFER_OFFSET, prng.pick([0, 512, 4096]));
  }
  return initiator.frame(view, data);
}

void test('PDUs that make no sense never throw and cost nothing that stays', () => {
  for (let seed = 0; seed < 400; seed += 1) {
    const prng = new Prng(seed);
    const world = new World({ pages: 8 });
    const client = world.connect({ keys: prng.pick(KEYS) });
    client.initiator.login(() => {});
    world.settle();
    // Its own bookkeeping would not survive the answers.
    client.stream.deaf = true;
    world.device.holds = () => prng.chance(0.2);
    for (let i = 0; i < 60 && !client.stream.closed; i += 1) {
      client.stream.write(randomPdu(client, prng));
      world.settle();
      if (prng.chance(0.1)) world.device.release();
    }
    client.stream.cut();
    world.settle();
    // Who was just being told goodbye is waited for.
    world.pass(10_000);
    try {
      assertClean(world);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
});

void test('a READ of the largest size, with little memory and several who read at once', () => {
  const world = new World({ pages: 6 });
  const clients = [0, 1, 2].map((i) =>
    world.login({ isid: new Uint8Array([0, 2, 0x3d, 0, 0, i]) }),
  );
  const blocks = 65_536;
  let ended = 0;
  for (const { initiator } of clients) {
    initiator.command({ cdb: read16(0, blocks), read: blocks * 512 }, ({ status, data }) => {
      assert.equal(status, STATUS.GOOD);
      assert.equal(data.length, blocks * 512);
      ended += 1;
    });
  }
  world.settle();
  assert.equal(ended, 3);
});

void test('a login that takes too long, or is none', () => {
  const world = new World();
  const slow = world.connect();
  slow.stream.write(new Uint8Array(20));
  const web = world.connect();
  web.stream.write(
    new TextEncoder().encode('GET / HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n'),
  );
  world.settle();
  world.pass(20_000);
  assert.ok(slow.stream.closed);
  assert.ok(web.stream.closed);
  assertClean(world);
});

void test('the memory of a slow disk is bounded, and its initiators are not forgotten', () => {
  const world = new World({ pages: 10 });
  const client = world.login({ keys: { InitialR2T: 'No' } });
  world.device.holds = (io) => io.op === OP.WRITE;
  let ended = 0;
  for (let i = 0; i < 60; i += 1) {
    const data = new Uint8Array(256 * 512).fill(i);
    client.initiator.command({ cdb: write16(i * 256, 256), write: data }, ({ status }) => {
      assert.equal(status, STATUS.GOOD);
      ended += 1;
    });
  }
  world.settle();
  assert.ok(world.reactor.pool.inUse <= 10);
  // It is not taken for silent when it is we who do not listen.
  world.pass(300_000);
  assert.equal(client.stream.closed, false);
  for (let i = 0; i < 200; i += 1) {
    world.device.release();
    world.settle();
  }
  assert.equal(ended, 60);
});
