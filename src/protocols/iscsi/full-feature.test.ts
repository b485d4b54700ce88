import assert from 'node:assert/strict';
import test from 'node:test';
import { OP } from '../../block/io.ts';
import { STATUS } from '../scsi/scsi.ts';
import { read16, testUnitReady, write16 } from './initiator/cdbs.ts';
import type { CommandResult, TargetPdu } from './initiator/initiator.ts';
import { COMMAND_WINDOW, MAX_IMMEDIATE_COMMANDS } from './session-limits.ts';
import { type Client, World } from './testing.ts';
import {
  ASYNC_EVENT,
  BHS_BYTES,
  COMMAND_FLAG,
  FIELD,
  FLAG_FINAL,
  IMMEDIATE,
  ISCSI_OP,
  LOGOUT_REASON,
  LOGOUT_RESPONSE,
  REJECT,
  RESERVED_TAG,
  serialAdd,
  writeRequest,
  writeRequestSequence,
  writeScsiCommand,
} from './wire.ts';

function watch({ initiator }: Client, opcode: number): TargetPdu[] {
  const found: TargetPdu[] = [];
  initiator.watch = (pdu) => {
    if (pdu.opcode === opcode) found.push(pdu);
  };
  return found;
}

function turs(client: Client, count: number, immediate = false): CommandResult[] {
  const results: CommandResult[] = [];
  for (let i = 0; i < count; i += 1) {
    client.initiator.command({ cdb: testUnitReady(), immediate }, (told) => results.push(told));
  }
  return results;
}

/** A request as it is, for immediate delivery unless `cmdSn` says otherwise. */
function raw(
  { initiator }: Client,
  opcode: number,
  options: { itt?: number; word20?: number; cmdSn?: number; flags?: number; data?: Uint8Array },
): DataView {
  const view = new DataView(new ArrayBuffer(BHS_BYTES));
  const { itt = 0x7000, word20 = RESERVED_TAG, cmdSn, flags = FLAG_FINAL } = options;
  const first = cmdSn === undefined ? opcode | IMMEDIATE : opcode;
  writeRequest(view, 0, first, flags, itt, word20, 0);
  writeRequestSequence(view, 0, cmdSn ?? initiator.cmdSn, initiator.expStatSn);
  initiator.send(view, options.data);
  return view;
}

void test('a ping is answered with its data, also when it is long and there are digests', () => {
  const world = new World();
  const keys = {
    HeaderDigest: 'CRC32C',
    DataDigest: 'CRC32C',
    MaxRecvDataSegmentLength: '262144',
  };
  const { initiator } = world.login({ keys });
  for (const length of [0, 1, 3, 4, 8, 1023, 262_144]) {
    const data = new Uint8Array(length).map((_, i) => i & 0xff);
    let echo: Uint8Array | null = null;
    initiator.ping(data, (told) => {
      echo = told;
    });
    world.settle();
    assert.deepEqual(echo, data);
  }
});

void test('of a ping that is longer than the initiator takes it gets the beginning', () => {
  const world = new World();
  const { initiator } = world.login({ keys: { MaxRecvDataSegmentLength: '512' } });
  let echo = 0;
  initiator.ping(new Uint8Array(2000).fill(7), (told) => {
    echo = told.length;
  });
  world.settle();
  assert.equal(echo, 512);
});

// [RFC 7143 11.17.1]
for (const [name, opcode, reason] of [
  ['SNACK', ISCSI_OP.SNACK_REQUEST, REJECT.SNACK_REJECT],
  ['a login', ISCSI_OP.LOGIN_REQUEST, REJECT.PROTOCOL_ERROR],
  ['an unknown opcode', 0x1c, REJECT.COMMAND_NOT_SUPPORTED],
  ['a PDU of targets', ISCSI_OP.NOP_IN, REJECT.COMMAND_NOT_SUPPORTED],
] as const) {
  void test(`${name} is rejected with its header, its data skipped, and the session goes on`, () => {
    const world = new World();
    const client = world.login();
    const rejects = watch(client, ISCSI_OP.REJECT);
    const header = raw(client, opcode, { data: new Uint8Array(1001) });
    world.settle();
    assert.equal(rejects.length, 1);
    const reject = rejects[0] as TargetPdu;
    assert.equal(reject.header.getUint8(FIELD.RESPONSE), reason);
    assert.equal(reject.header.getUint32(FIELD.INITIATOR_TASK_TAG), RESERVED_TAG);
    const told = new DataView(reject.data.buffer, reject.data.byteOffset);
    assert.equal(told.getUint8(0), header.getUint8(0));
    assert.equal(told.getUint32(4) & 0xffffff, 1001);
    const [result] = turs(client, 1);
    assert.equal(result, undefined);
    world.settle();
    assert.equal(client.initiator.inFlight, 0);
  });
}

void test('a command with the tag of one that is under way is rejected', () => {
  const world = new World();
  const client = world.login();
  const rejects = watch(client, ISCSI_OP.REJECT);
  world.device.holds = (io) => io.op === OP.READ;
  const results: CommandResult[] = [];
  const itt = client.initiator.command({ cdb: read16(0, 1), read: 512 }, (told) => {
    results.push(told);
  });
  world.settle();
  const view = new DataView(new ArrayBuffer(BHS_BYTES));
  writeScsiCommand(view, 0, itt, FLAG_FINAL, 0, 0, testUnitReady(), 0);
  writeRequestSequence(view, 0, client.initiator.cmdSn, client.initiator.expStatSn);
  client.initiator.send(view);
  world.settle();
  assert.equal(rejects[0]?.header.getUint8(FIELD.RESPONSE), REJECT.TASK_IN_PROGRESS);
  world.device.release();
  // Its number is free: it has not been received [RFC 7143 11.17].
  const after = turs(client, 1);
  world.settle();
  assert.equal(results[0]?.status, STATUS.GOOD);
  assert.equal(after[0]?.status, STATUS.GOOD);
});

void test('commands outside of the CmdSN window are ignored without a word', () => {
  const world = new World();
  const client = world.login();
  const { initiator } = client;
  let heard = 0;
  for (const cmdSn of [
    serialAdd(initiator.maxCmdSn, 1),
    serialAdd(initiator.expCmdSn, -1),
    serialAdd(initiator.expCmdSn, 0x7fff0000),
  ]) {
    const view = new DataView(new ArrayBuffer(BHS_BYTES));
    writeScsiCommand(view, 0, 0x9000, FLAG_FINAL, 0, 0, testUnitReady(), 0);
    writeRequestSequence(view, 0, cmdSn, initiator.expStatSn);
    initiator.watch = () => {
      heard += 1;
    };
    initiator.send(view);
    world.settle();
  }
  assert.equal(heard, 0);
  const results = turs(client, 1);
  world.settle();
  assert.equal(results[0]?.status, STATUS.GOOD);
});

void test('the window holds as many commands as it says, and opens as they end', () => {
  const world = new World();
  const { initiator } = world.login();
  world.device.holds = (io) => io.op === OP.READ;
  let ended = 0;
  for (let i = 0; i < 2 * COMMAND_WINDOW; i += 1) {
    initiator.command({ cdb: read16(i, 1), read: 512 }, ({ status }) => {
      assert.equal(status, STATUS.GOOD);
      ended += 1;
    });
  }
  world.settle();
  assert.equal(world.device.held.length, COMMAND_WINDOW);
  for (let i = 0; i < 2 * COMMAND_WINDOW; i += 1) {
    world.device.release();
    world.settle();
  }
  assert.equal(ended, 2 * COMMAND_WINDOW);
});

void test('immediate commands pass the window, up to a limit', () => {
  const world = new World();
  const client = world.login();
  const rejects = watch(client, ISCSI_OP.REJECT);
  world.device.holds = (io) => io.op === OP.READ;
  const cmdSn = client.initiator.cmdSn;
  for (let i = 0; i < MAX_IMMEDIATE_COMMANDS + 1; i += 1) {
    client.initiator.command({ cdb: read16(i, 1), read: 512, immediate: true }, () => {});
  }
  world.settle();
  assert.equal(client.initiator.cmdSn, cmdSn);
  assert.equal(world.device.held.length, MAX_IMMEDIATE_COMMANDS);
  assert.equal(rejects.length, 1);
  assert.equal(rejects[0]?.header.getUint8(FIELD.RESPONSE), REJECT.IMMEDIATE_COMMAND_REJECT);
});

void test('commands are done in the order of their CmdSN, whatever order they come in', () => {
  const world = new World();
  const { initiator } = world.login();
  const first = initiator.cmdSn;
  const order = [3, 1, 0, 2];
  for (const place of order) {
    initiator.cmdSn = serialAdd(first, place);
    const data = new Uint8Array(512).fill(place + 1);
    initiator.command({ cdb: write16(0, 1), write: data }, () => {});
    // And once more: duplicates are ignored.
    const view = new DataView(new ArrayBuffer(BHS_BYTES));
    writeScsiCommand(view, 0, 0x9000, FLAG_FINAL, 0, 0, testUnitReady(), 0);
    writeRequestSequence(view, 0, serialAdd(first, place), initiator.expStatSn);
    initiator.send(view);
    world.settle();
  }
  assert.equal(initiator.inFlight, 0);
  assert.deepEqual(world.bytes(0, 512), new Uint8Array(512).fill(4));
  assert.equal(initiator.expCmdSn, serialAdd(first, 4));
});

void test('unasked Data-Out behind a command whose turn has not come is kept with it', () => {
  const world = new World();
  const { initiator } = world.login({ keys: { InitialR2T: 'No', ImmediateData: 'No' } });
  const first = initiator.cmdSn;
  initiator.cmdSn = serialAdd(first, 1);
  const data = new Uint8Array(4096).map((_, i) => i * 3);
  let status = -1;
  initiator.command({ cdb: write16(0, 8), write: data }, (told) => {
    status = told.status;
  });
  world.settle();
  assert.equal(status, -1);
  initiator.cmdSn = first;
  initiator.command({ cdb: testUnitReady() }, () => {});
  world.settle();
  assert.equal(status, STATUS.GOOD);
  assert.deepEqual(world.bytes(0, 4096), data);
});

void test('who sends on and on behind a gap is not kept for ever', () => {
  const world = new World();
  const { initiator, stream } = world.login({ keys: { InitialR2T: 'No' } });
  initiator.cmdSn = serialAdd(initiator.cmdSn, 1);
  for (let i = 0; i < 40; i += 1) {
    initiator.command({ cdb: write16(0, 128), write: new Uint8Array(65_536) }, () => {});
  }
  world.settle();
  assert.ok(stream.closed);
  assert.match(world.lines.join('\n'), /too much data behind a command that is missing/);
});

void test('an initiator that is silent is asked, and given up when it stays so', () => {
  const world = new World();
  const talks = world.login();
  const mute = world.login({ isid: new Uint8Array([0, 2, 0x3d, 0, 0, 9]), mute: true });
  const pings = watch(talks, ISCSI_OP.NOP_IN);
  world.pass(200_000);
  assert.ok(pings.length >= 5, `${pings.length} pings`);
  assert.equal(talks.stream.closed, false);
  assert.equal(mute.stream.closed, true);
  assert.equal(world.sessions.size, 1);
});

void test('logout closes the session or its connection, and nothing else', () => {
  const world = new World();
  const told: number[] = [];
  const { initiator, stream } = world.login({ cid: 7 });
  initiator.logout(LOGOUT_REASON.REMOVE_CONNECTION_FOR_RECOVERY, (r) => told.push(r));
  initiator.request(
    ISCSI_OP.LOGOUT_REQUEST,
    FLAG_FINAL | LOGOUT_REASON.CLOSE_CONNECTION,
    8 << 16,
    new Uint8Array(0),
    ({ header }) => told.push(header.getUint8(FIELD.RESPONSE)),
  );
  world.settle();
  assert.deepEqual(told, [LOGOUT_RESPONSE.RECOVERY_NOT_SUPPORTED, LOGOUT_RESPONSE.CID_NOT_FOUND]);
  assert.equal(stream.closed, false);
  let closed = -1;
  initiator.logout(LOGOUT_REASON.CLOSE_CONNECTION, (r) => {
    closed = r;
  });
  world.settle();
  assert.equal(closed, LOGOUT_RESPONSE.CLOSED);
  assert.ok(stream.closed);
  assert.equal(world.sessions.size, 0);
  assert.equal(world.connections.size, 0);
});

void test('logout is answered when nothing of the session is under way any more', () => {
  const world = new World();
  const { initiator, stream } = world.login();
  world.device.holds = (io) => io.op === OP.WRITE;
  let ended = 0;
  initiator.command({ cdb: write16(0, 1), write: new Uint8Array(512) }, () => {
    ended += 1;
  });
  world.settle();
  let told = -1;
  initiator.logout(LOGOUT_REASON.CLOSE_SESSION, (r) => {
    told = r;
  });
  world.settle();
  assert.equal(told, -1);
  world.device.release();
  world.settle();
  assert.equal(told, LOGOUT_RESPONSE.CLOSED);
  assert.equal(ended, 0);
  assert.ok(stream.closed);
  assert.equal(world.reactor.pool.inUse, 0);
});

void test('discovery: SendTargets, and no SCSI', () => {
  const world = new World();
  const client = world.login({ targetName: null });
  const rejects = watch(client, ISCSI_OP.REJECT);
  let text = '';
  client.initiator.text('SendTargets=All\0', ({ data }) => {
    text = new TextDecoder().decode(data);
  });
  turs(client, 1);
  world.settle();
  assert.equal(text, 'TargetName=iqn.2026-11.test:disk\0TargetAddress=192.0.2.1:3260,1\0');
  assert.equal(rejects.length, 1);
});

void test('an initiator may say anew how long its PDUs are, also while reads are under way', () => {
  const world = new World();
  const { initiator } = world.login({ keys: { MaxRecvDataSegmentLength: '8192' } });
  const data = new Uint8Array(100_352).map((_, i) => i >> 7);
  initiator.command({ cdb: write16(0, 196), write: data }, () => {});
  world.settle();
  world.device.holds = (io) => io.op === OP.READ;
  const found: CommandResult[] = [];
  initiator.command({ cdb: read16(0, 196), read: data.length }, (told) => found.push(told));
  world.settle();
  initiator.text('MaxRecvDataSegmentLength=512\0', () => {});
  world.settle();
  initiator.command({ cdb: read16(0, 196), read: data.length }, (told) => found.push(told));
  world.device.holds = () => false;
  world.device.release(9);
  world.settle();
  assert.deepEqual(
    found.map(({ dataIns }) => dataIns),
    [13, 196],
  );
  for (const result of found) assert.deepEqual(result.data, data);
});

void test('when the server stops, initiators are asked to log out; who does not is closed', () => {
  const world = new World();
  const polite = world.login();
  const rude = world.login({ isid: new Uint8Array([0, 2, 0x3d, 0, 0, 9]) });
  const events: number[] = [];
  polite.initiator.watch = ({ opcode, header }) => {
    if (opcode !== ISCSI_OP.ASYNCHRONOUS_MESSAGE) return;
    events.push(header.getUint8(FIELD.ASYNC_EVENT), header.getUint16(FIELD.ASYNC_PARAMETER_3));
    polite.initiator.logout(LOGOUT_REASON.CLOSE_SESSION, () => {});
  };
  const starting = world.connect();
  for (const { connection } of [polite, rude, starting]) connection.shutdown();
  world.settle();
  assert.deepEqual(events, [ASYNC_EVENT.LOGOUT_REQUEST, 3]);
  assert.ok(polite.stream.closed);
  assert.ok(starting.stream.closed);
  // What is still asked is answered.
  const results = turs(rude, 1);
  world.settle();
  assert.equal(results[0]?.status, STATUS.GOOD);
  world.pass(3_000);
  assert.ok(rude.stream.closed);
  assert.equal(world.connections.size, 0);
  assert.equal(world.reactor.pool.inUse, 0);
});

void test('what was taken when the server stops is answered first', () => {
  const world = new World();
  const { initiator, stream, connection } = world.login();
  world.device.holds = (io) => io.op === OP.WRITE;
  let status = -1;
  initiator.command({ cdb: write16(0, 1), write: new Uint8Array(512) }, (told) => {
    status = told.status;
  });
  world.settle();
  connection.shutdown();
  world.pass(3_500);
  assert.equal(stream.closed, false);
  world.device.release();
  world.settle();
  assert.equal(status, STATUS.GOOD);
  assert.ok(stream.closed);
});

void test('an extended CDB, and additional header segments that make no sense', () => {
  const world = new World();
  const client = world.login();
  const { initiator } = client;
  const rejects = watch(client, ISCSI_OP.REJECT);
  const send = (segment: number[]): void => {
    const view = new DataView(new ArrayBuffer(BHS_BYTES + segment.length));
    writeScsiCommand(view, 0, 0x9000, FLAG_FINAL, 0, 0, testUnitReady(), 0);
    writeRequestSequence(view, 0, initiator.cmdSn, initiator.expStatSn);
    view.setUint8(0, view.getUint8(0) | IMMEDIATE);
    view.setUint8(FIELD.TOTAL_AHS_LENGTH, segment.length / 4);
    new Uint8Array(view.buffer).set(segment, BHS_BYTES);
    initiator.send(view);
    world.settle();
  };
  send([0, 0, 0, 0]);
  assert.equal(rejects[0]?.header.getUint8(FIELD.RESPONSE), REJECT.INVALID_PDU_FIELD);
  assert.equal(rejects[0]?.data.length, BHS_BYTES + 4);
  send([0xff, 0xff, 1, 0]);
  assert.equal(rejects.length, 2);
});

void test('a PDU with more data than was agreed ends the connection', () => {
  const world = new World();
  const client = world.login();
  const view = new DataView(new ArrayBuffer(BHS_BYTES));
  writeRequest(view, 0, ISCSI_OP.NOP_OUT | IMMEDIATE, FLAG_FINAL, 1, RESERVED_TAG, 262_145);
  client.stream.write(new Uint8Array(view.buffer));
  world.settle();
  assert.ok(client.stream.closed);
  assert.match(world.lines.join('\n'), /MaxRecvDataSegmentLength/);
});

/** A command with additional header segments. */
function withAhs(client: Client, itt: number, ahs: readonly number[], cmdSn: number): void {
  const view = new DataView(new ArrayBuffer(BHS_BYTES + ahs.length));
  const flags = FLAG_FINAL | COMMAND_FLAG.READ | COMMAND_FLAG.WRITE | 1;
  writeScsiCommand(view, 0, itt, flags, 0, 0, testUnitReady(), 0);
  writeRequestSequence(view, 0, cmdSn, client.initiator.expStatSn);
  view.setUint8(FIELD.TOTAL_AHS_LENGTH, ahs.length / 4);
  new Uint8Array(view.buffer).set(ahs, BHS_BYTES);
  client.initiator.send(view);
}

void test('additional header segments that are too short for what they are, and CDBs that are too long', () => {
  const world = new World();
  const client = world.login();
  const rejects = watch(client, ISCSI_OP.REJECT);
  const { cmdSn } = client.initiator;
  // Before its turn: it is kept with nothing behind it, where the length would have been.
  withAhs(client, 0x7001, [0, 1, 2, 0], serialAdd(cmdSn, 1));
  raw(client, ISCSI_OP.NOP_OUT, { itt: RESERVED_TAG, cmdSn });
  world.settle();
  assert.equal(rejects.length, 1);
  assert.equal(rejects[0]?.header.getUint8(FIELD.RESPONSE), REJECT.INVALID_PDU_FIELD);
  const answers = watch(client, ISCSI_OP.SCSI_RESPONSE);
  // Four bytes more of a CDB than there can be.
  withAhs(client, 0x7002, [0, 5, 1, 0, 0, 0, 0, 0], serialAdd(cmdSn, 1));
  // The initiator itself knows nothing of this command.
  assert.throws(() => world.settle(), /not there/);
  assert.equal(answers[0]?.header.getUint8(FIELD.STATUS), STATUS.CHECK_CONDITION);
  // INVALID FIELD IN CDB.
  assert.deepEqual([...(answers[0]?.data.subarray(2 + 12, 2 + 14) ?? [])], [0x24, 0]);
});
