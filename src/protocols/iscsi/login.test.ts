import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import fc from 'fast-check';
import { Prng } from '../../base/prng.ts';
import { chapResponse } from './chap.ts';
import { TextResponder } from './discovery.ts';
import {
  account,
  CMD_SN,
  counting,
  DISK,
  INITIATOR,
  loginHeader,
  nodeOf,
  OPEN,
  RecordingHost,
  target,
  TestLogin,
  twoTargets,
} from './login-fixtures.ts';
import { LoginNegotiation } from './login.ts';
import { DEFAULT_PARAMETERS } from './parameters.ts';
import { formatBinary } from './text.ts';
import { FIELD, LOGIN_STATUS, opcodeOf, writeTextResponse } from './wire.ts';

// T, and the stages: security, operational, full feature.
const T = 0x80;
const C = 0x40;
const SEC_OP = T | 0x01;
const SEC_FULL = T | 0x03;
const OP_FULL = T | 0x07;
const OP = 0x04;

const WHO = `InitiatorName=${INITIATOR}`;
const TO_OPEN = `TargetName=${OPEN}`;
const TO_DISK = `TargetName=${DISK}`;
const MRDSL = 'MaxRecvDataSegmentLength=262144';

/** Ended with this status, once, with one line. */
function refused(login: TestLogin, status: number, reason: RegExp): void {
  assert.equal(login.login.state, 'failed');
  assert.equal(login.host.failures.length, 1);
  assert.equal(login.host.failures[0]?.status, status);
  assert.match(login.host.failures[0]?.reason ?? '', reason);
  assert.match(login.host.failures[0]?.reason ?? '', /^[ -~]+$/);
  assert.equal(login.host.results.length, 0);
  const last = login.host.said.at(-1);
  if (last !== undefined) assert.equal(last.view.getUint16(FIELD.LOGIN_STATUS), status);
}

// Recorded logins.

interface Transcript {
  readonly name: string;
  readonly steps: readonly string[];
}

function transcripts(): readonly Transcript[] {
  const url = new URL('../../../test/vectors/iscsi/logins.txt', import.meta.url);
  return readFileSync(url, 'utf8')
    .split('\n\n')
    .slice(1)
    .map((part) => {
      const [name = '', ...steps] = part.trim().split('\n');
      return { name: name.slice(2), steps };
    });
}

function bytesOf(step: string): { header: Uint8Array; data: Uint8Array } {
  const [, hex = '', ...rest] = step.split(' ');
  const data = new TextEncoder().encode(rest.join(' ').replaceAll('\\0', '\0'));
  return { header: Uint8Array.from(Buffer.from(hex, 'hex')), data };
}

for (const { name, steps } of transcripts()) {
  test(`as recorded: ${name}`, () => {
    const host = new RecordingHost();
    const node = twoTargets();
    const login = new LoginNegotiation(host, node, counting);
    let responder: TextResponder | null = null;
    let heard = 0;
    for (const step of steps) {
      if (step === 'done') {
        const result = host.results[0];
        assert.ok(result !== undefined && login.state === 'done');
        responder = new TextResponder(node, result, '127.0.0.1:13262');
      } else if (step.startsWith('fail')) {
        assert.equal(`fail ${host.failures[0]?.reason}`, step);
      } else {
        const { header, data } = bytesOf(step);
        const view = new DataView(header.buffer);
        if (step.startsWith('I') && responder === null) {
          login.receive(header, data);
        } else if (step.startsWith('I')) {
          const answer = (responder as TextResponder).request(view, data);
          assert.ok(typeof answer !== 'number');
          host.send(textResponse(view, answer), answer.data);
        } else {
          const said = host.said[heard];
          heard += 1;
          assert.equal(Buffer.from(said?.data ?? []).toString(), Buffer.from(data).toString());
          // The counters of the full feature phase are not ours to know.
          const end = opcodeOf(view, 0) === 0x24 ? 24 : 48;
          const hex = Buffer.from(said?.header ?? []).toString('hex');
          assert.equal(
            hex.slice(0, 2 * end),
            Buffer.from(header)
              .toString('hex')
              .slice(0, 2 * end),
          );
        }
      }
    }
    assert.equal(heard, host.said.length);
  });
}

function textResponse(
  request: DataView,
  { flags, ttt, data }: { flags: number; ttt: number; data: Uint8Array },
): Uint8Array {
  const header = new Uint8Array(48);
  const itt = request.getUint32(FIELD.INITIATOR_TASK_TAG);
  writeTextResponse(new DataView(header.buffer), 0, itt, ttt, flags, data.length);
  return header;
}

// Other initiators, with the keys and stages that their sources have.

test('open-iscsi without CHAP: security with AuthMethod=None, then the operational keys', () => {
  const login = new TestLogin();
  const first = login.ask(
    SEC_OP,
    WHO,
    'InitiatorAlias=host',
    TO_OPEN,
    'SessionType=Normal',
    'AuthMethod=None',
  );
  assert.deepEqual(first, {
    flags: SEC_OP,
    status: 0,
    tsih: 0,
    pairs: ['TargetPortalGroupTag=1', 'TargetAlias=a disk', 'AuthMethod=None'],
  });
  const last = login.ask(
    OP_FULL,
    'HeaderDigest=None,CRC32C',
    'DataDigest=CRC32C,None',
    'DefaultTime2Wait=2',
    'DefaultTime2Retain=0',
    'IFMarker=No',
    'OFMarker=No',
    'ErrorRecoveryLevel=0',
    'InitialR2T=No',
    'ImmediateData=Yes',
    'MaxBurstLength=16776192',
    'FirstBurstLength=262144',
    'MaxOutstandingR2T=1',
    'MaxConnections=1',
    'DataPDUInOrder=Yes',
    'DataSequenceInOrder=Yes',
    'MaxRecvDataSegmentLength=262144',
  );
  assert.deepEqual([last?.flags, last?.status, last?.tsih], [OP_FULL, 0, 7]);
  assert.ok(last?.pairs.includes('DataDigest=CRC32C') && last.pairs.includes(MRDSL));
  const result = login.host.results[0];
  assert.deepEqual(result?.parameters, {
    ...DEFAULT_PARAMETERS,
    dataDigest: true,
    sendSegmentBytes: 262_144,
    receiveSegmentBytes: 262_144,
    maxBurstLength: 16_776_192,
    firstBurstLength: 262_144,
    initialR2T: false,
    defaultTime2Retain: 0,
  });
  assert.deepEqual(
    [result?.type, result?.initiatorName, result?.initiatorAlias, result?.target?.name],
    ['Normal', INITIATOR, 'host', OPEN],
  );
  assert.deepEqual([result?.cid, result?.tsih, result?.cmdSn], [1, 0, CMD_SN]);
  assert.deepEqual(Buffer.from(result?.isid ?? []).toString('hex'), '800000010000');
});

test('open-iscsi with CHAP: its algorithms in its order, mutual', () => {
  const login = new TestLogin();
  const method = login.ask(SEC_OP, WHO, TO_DISK, 'SessionType=Normal', 'AuthMethod=CHAP,None');
  assert.equal(method?.flags, 0);
  assert.ok(method.pairs.includes('AuthMethod=CHAP'));
  const challenge = login.ask(0, 'CHAP_A=7,6,5');
  assert.deepEqual(challenge?.pairs.slice(0, 2), ['CHAP_A=7', 'CHAP_I=1']);
  const sent = Uint8Array.from({ length: 32 }, (_, i) => i * 7 + 8);
  assert.equal(challenge?.pairs[2], `CHAP_C=${formatBinary(sent)}`);
  const secret = account('', 'secretsecret1').secret;
  const response = chapResponse(7, 1, secret, sent);
  const theirs = Uint8Array.from({ length: 32 }, () => 0x55);
  const proof = login.ask(
    SEC_OP,
    'CHAP_N=alice',
    `CHAP_R=0b${Buffer.from(response).toString('base64')}`,
    'CHAP_I=0xfe',
    `CHAP_C=${formatBinary(theirs)}`,
  );
  const own = chapResponse(7, 0xfe, account('', 'targetsecret1').secret, theirs);
  assert.equal(proof?.flags, SEC_OP);
  assert.deepEqual(proof?.pairs, ['CHAP_N=bob', `CHAP_R=${formatBinary(own)}`]);
  assert.equal(login.ask(OP_FULL)?.flags, OP_FULL);
  assert.equal(login.login.state, 'done');
});

test('from the security stage straight to full feature: our 8192 bytes were never changed', () => {
  const login = new TestLogin();
  const answer = login.ask(SEC_FULL, WHO, TO_OPEN, 'AuthMethod=CHAP,None');
  assert.equal(answer?.flags, SEC_FULL);
  assert.deepEqual(login.host.results[0]?.parameters, DEFAULT_PARAMETERS);
});

test('one key at a time, and T only at the end', () => {
  const login = new TestLogin();
  assert.deepEqual(login.ask(0, WHO, TO_OPEN)?.flags, 0);
  assert.equal(login.ask(0, 'AuthMethod=None')?.flags, 0);
  assert.equal(login.ask(SEC_OP)?.flags, SEC_OP);
  assert.deepEqual(login.ask(OP, 'HeaderDigest=CRC32C')?.pairs, ['HeaderDigest=CRC32C', MRDSL]);
  assert.deepEqual(login.ask(OP, 'MaxOutstandingR2T=4')?.pairs, ['MaxOutstandingR2T=4']);
  assert.deepEqual(login.ask(OP)?.pairs, []);
  assert.equal(login.ask(OP_FULL)?.flags, OP_FULL);
  const { parameters, statSn } = login.host.results[0] ?? {};
  assert.ok(parameters?.headerDigest === true && parameters.maxOutstandingR2T === 4);
  // One StatSN for each answer.
  assert.equal(statSn, login.host.said.length + 1);
  const numbers = login.host.said.map(({ view }) => view.getUint32(FIELD.STAT_SN));
  assert.deepEqual(numbers, [1, 2, 3, 4, 5, 6, 7]);
});

test('the window that the connection grants is in the last answer', () => {
  const login = new TestLogin();
  login.ask(SEC_FULL, WHO, TO_OPEN, 'AuthMethod=None');
  const view = login.host.said[0]?.view;
  assert.equal(view?.getUint32(FIELD.EXP_CMD_SN), CMD_SN);
  assert.equal(view?.getUint32(FIELD.MAX_CMD_SN), (CMD_SN + 31) >>> 0);
});

test('names are compared in lower case, and the session gets them so', () => {
  const login = new TestLogin(nodeOf(target(OPEN, { initiators: new Set([INITIATOR]) })));
  login.ask(
    OP_FULL,
    `InitiatorName=${INITIATOR.toUpperCase()}`,
    `TargetName=${OPEN.toUpperCase()}`,
  );
  assert.equal(login.host.results[0]?.initiatorName, INITIATOR);
});

test('names that stringprep would not allow are taken from initiators', () => {
  const login = new TestLogin();
  login.ask(OP_FULL, 'InitiatorName=iqn.2010-01.com.example:my_host', TO_OPEN);
  assert.equal(login.login.state, 'done');
});

test('text over several PDUs, cut anywhere', () => {
  const text = [WHO, TO_OPEN, 'HeaderDigest=CRC32C', ''].join('\0');
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat({ max: text.length }), { maxLength: 5 }), (cuts) => {
      const login = new TestLogin();
      let at = 0;
      for (const cut of cuts.toSorted((a, b) => a - b)) {
        const answer = login.request({ flags: OP | C, text: text.slice(at, cut) });
        assert.deepEqual(answer, { flags: OP, status: 0, tsih: 0, pairs: [] });
        at = cut;
      }
      const last = login.request({ flags: OP_FULL, text: text.slice(at) });
      assert.equal(last?.flags, OP_FULL);
      assert.equal(login.host.results[0]?.parameters.headerDigest, true);
    }),
  );
});

test('an answer that is too long for one PDU goes on in the next, and the stage ends after it', () => {
  const login = new TestLogin();
  const unknown = Array.from({ length: 120 }, (_, i) => `X-${String(i).padStart(61, 'x')}=1`);
  assert.equal(login.request({ flags: OP | C, text: [WHO, TO_OPEN] })?.flags, OP);
  const half = unknown.slice(0, 60);
  assert.equal(login.request({ flags: OP | C, text: half })?.flags, OP);
  login.request({ flags: OP_FULL, text: unknown.slice(60) });
  const first = login.host.said.at(-1);
  assert.equal(first?.view.getUint8(1), OP | C);
  assert.equal(first?.data.length, 8192);
  assert.equal(login.login.state, 'negotiating');
  login.request({ flags: OP_FULL });
  const second = login.host.said.at(-1);
  assert.equal(second?.view.getUint8(1), OP_FULL);
  const all = Buffer.concat([first?.data ?? new Uint8Array(0), second?.data ?? new Uint8Array(0)]);
  assert.equal(all.toString().split('=NotUnderstood\0').length - 1, 120);
  assert.equal(login.login.state, 'done');

  const impatient = new TestLogin();
  impatient.request({ flags: OP | C, text: [WHO, TO_OPEN, ...half] });
  impatient.request({ flags: OP_FULL, text: unknown.slice(60) });
  impatient.ask(OP_FULL, 'HeaderDigest=None');
  refused(impatient, LOGIN_STATUS.INITIATOR_ERROR, /the rest of ours/);
});

test('a discovery session: no target, and no tag of a portal group', () => {
  const login = new TestLogin();
  const answer = login.ask(SEC_OP, WHO, 'SessionType=Discovery', 'AuthMethod=None');
  assert.deepEqual(answer?.pairs, ['AuthMethod=None']);
  login.ask(OP_FULL, 'MaxRecvDataSegmentLength=32768');
  assert.equal(login.host.results[0]?.type, 'Discovery');
  assert.equal(login.host.results[0]?.target, null);
  assert.equal(login.host.results[0]?.parameters.sendSegmentBytes, 32_768);
});

test('a session that is named is for the connection to find', () => {
  const login = new TestLogin();
  login.host.admission = { status: LOGIN_STATUS.SESSION_DOES_NOT_EXIST, reason: 'no session 9' };
  login.request({ flags: OP_FULL, text: [WHO, TO_OPEN], tsih: 9 });
  refused(login, LOGIN_STATUS.SESSION_DOES_NOT_EXIST, /\(020a\).*no session 9/);
  assert.equal(login.host.admits, 1);
  const other = new TestLogin();
  other.host.admission = { tsih: 9, window: 1 };
  assert.equal(other.request({ flags: OP_FULL, text: [WHO, TO_OPEN], tsih: 9 })?.tsih, 9);
  assert.equal(other.host.results[0]?.tsih, 9);
  assert.equal(other.host.tsih, 9);
});

test('what is said twice: statements may be, offers may not', () => {
  const login = new TestLogin();
  login.ask(0, WHO, TO_OPEN, 'SessionType=Normal', 'InitiatorAlias=a');
  login.ask(SEC_OP, WHO, TO_OPEN, 'InitiatorAlias=b', 'AuthMethod=None');
  login.ask(OP, 'MaxRecvDataSegmentLength=4096');
  login.ask(OP_FULL, 'MaxRecvDataSegmentLength=8192');
  assert.equal(login.host.results[0]?.initiatorAlias, 'b');
  assert.equal(login.host.results[0]?.parameters.sendSegmentBytes, 8192);
});

// Refusals.

type Refusal = readonly [string, number, RegExp, (login: TestLogin) => void];

const LIMITED = nodeOf(target(OPEN, { initiators: new Set(['iqn.2026-11.org.example:other']) }));

const REFUSALS: readonly Refusal[] = [
  ['no initiator name', 0x0207, /no InitiatorName/, (l) => l.ask(OP_FULL, TO_OPEN)],
  ['no target name', 0x0207, /no TargetName/, (l) => l.ask(OP_FULL, WHO)],
  ['another target', 0x0203, /no such target/, (l) => l.ask(OP_FULL, WHO, 'TargetName=iqn.x')],
  [
    'another type of session',
    0x0209,
    /SessionType/,
    (l) => l.ask(OP_FULL, WHO, TO_OPEN, 'SessionType=Other'),
  ],
  ['CHAP left out', 0x0201, /leaves out/, (l) => l.ask(OP_FULL, WHO, TO_DISK)],
  ['CHAP not begun', 0x0201, /leaves out/, (l) => l.ask(SEC_OP, WHO, TO_DISK)],
  ['CHAP not offered', 0x0201, /CHAP/, (l) => l.ask(SEC_OP, WHO, TO_DISK, 'AuthMethod=None')],
  ['CHAP only', 0x0201, /insists/, (l) => l.ask(SEC_OP, WHO, TO_OPEN, 'AuthMethod=CHAP')],
  ['a method twice', 0x0200, /twice/, (l) => ask2(l, 'AuthMethod=CHAP', 'AuthMethod=CHAP')],
  ['no algorithm', 0x0201, /algorithm/, (l) => ask2(l, 'AuthMethod=CHAP', 'CHAP_A=1,99')],
  ['algorithm first', 0x0201, /out of order/, (l) => ask2(l, 'CHAP_A=5', 'AuthMethod=CHAP')],
  ['answer first', 0x0201, /out of order/, (l) => ask2(l, 'AuthMethod=CHAP', 'CHAP_N=a')],
  ['no response', 0x0201, /malformed/, (l) => challenged(l, 'CHAP_N=alice')],
  ['no hex', 0x0201, /malformed/, (l) => challenged(l, 'CHAP_N=alice', 'CHAP_R=12')],
  ['wrong response', 0x0201, /wrong CHAP/, (l) => challenged(l, 'CHAP_N=alice', 'CHAP_R=0x12')],
  [
    'half a challenge',
    0x0201,
    /malformed/,
    (l) => challenged(l, 'CHAP_N=alice', 'CHAP_R=0x12', 'CHAP_I=1'),
  ],
  [
    'CHAP in the operational stage',
    0x0200,
    /wrong stage/,
    (l) => l.ask(OP, WHO, TO_OPEN, 'AuthMethod=None'),
  ],
  [
    'an offer twice',
    0x0200,
    /twice/,
    (l) => l.ask(OP, WHO, TO_OPEN, 'InitialR2T=No', 'InitialR2T=No'),
  ],
  ['a name that is no name', 0x0200, /no name/, (l) => l.ask(OP, 'InitiatorName=a b', TO_OPEN)],
  [
    'a name with an escape',
    0x0200,
    /no name/,
    (l) => l.ask(OP, 'InitiatorName=a\u001b[2J', TO_OPEN),
  ],
  [
    'a segment too small',
    0x0200,
    /out of range/,
    (l) => l.ask(OP, WHO, TO_OPEN, 'MaxRecvDataSegmentLength=1'),
  ],
  ['a newer version', 0x0205, /version/, (l) => l.request({ flags: OP, version: 1 })],
  ['T and C', 0x0200, /T and C/, (l) => l.request({ flags: OP_FULL | C })],
  ['stage 2', 0x0200, /stage/, (l) => l.request({ flags: 0x08 })],
  ['stage 3', 0x0200, /stage/, (l) => l.request({ flags: 0x0c })],
  ['to stage 2', 0x0200, /no way/, (l) => l.request({ flags: T | 0x02 })],
  ['to the same stage', 0x0200, /no way/, (l) => l.request({ flags: T | 0x05 })],
  ['backwards', 0x0200, /no way/, (l) => l.request({ flags: T | 0x04 })],
  ['no text', 0x0200, /without a key/, (l) => l.request({ flags: OP, text: 'nonsense' })],
  ['too long a PDU', 0x0200, /too long/, (l) => l.request({ flags: OP, text: 'K'.repeat(8193) })],
];

function ask2(login: TestLogin, first: string, second: string): void {
  login.ask(0, WHO, TO_DISK, first);
  login.ask(0, second);
}

function challenged(login: TestLogin, ...text: readonly string[]): void {
  ask2(login, 'AuthMethod=CHAP', 'CHAP_A=5');
  assert.equal(login.login.state, 'negotiating');
  login.ask(SEC_OP, ...text);
}

for (const [what, status, reason, act] of REFUSALS) {
  test(`refused: ${what}`, () => {
    const login = new TestLogin();
    act(login);
    refused(login, status, reason);
    const before = login.host.said.length;
    login.ask(OP_FULL, WHO, TO_OPEN);
    assert.equal(login.host.said.length, before, 'nothing is said after the end');
  });
}

test('an initiator that is not among those that may', () => {
  const login = new TestLogin(LIMITED);
  login.ask(OP_FULL, WHO, TO_OPEN);
  refused(login, LOGIN_STATUS.AUTHORIZATION_FAILURE, /\(0202\): initiator 'iqn.*not among/);
});

test('tags and names of the connection stay the same', () => {
  for (const other of [{ itt: 1 }, { cid: 2 }, { isid: 5 }, { tsih: 3 }]) {
    const login = new TestLogin();
    login.ask(0, WHO, TO_OPEN);
    login.request({ flags: SEC_OP, ...other });
    refused(login, LOGIN_STATUS.INITIATOR_ERROR, /another/);
  }
  const login = new TestLogin();
  login.ask(0, WHO, TO_OPEN);
  login.ask(OP_FULL);
  refused(login, LOGIN_STATUS.INITIATOR_ERROR, /not the stage/);
});

test('a challenge of the initiator that is out of bounds', () => {
  const sent = Uint8Array.from({ length: 16 }, (_, i) => i * 7 + 8);
  const right = chapResponse(5, 1, account('', 'secretsecret1').secret, sent);
  const answer = ['CHAP_N=alice', `CHAP_R=${formatBinary(right)}`];
  for (const [identifier, bytes] of [
    [256, 16],
    [255, 1025],
  ] as const) {
    const login = new TestLogin();
    const base64 = Buffer.alloc(bytes, 3).toString('base64');
    challenged(login, ...answer, `CHAP_I=${identifier}`, `CHAP_C=0b${base64}`);
    refused(login, LOGIN_STATUS.AUTHENTICATION_FAILURE, /malformed/);
  }
  const login = new TestLogin();
  challenged(
    login,
    ...answer,
    'CHAP_I=255',
    `CHAP_C=0b${Buffer.alloc(1024, 3).toString('base64')}`,
  );
  assert.equal(login.login.state, 'negotiating');
});

test('no additional header segments', () => {
  const login = new TestLogin();
  const header = loginHeader({ flags: OP }, 0);
  header[FIELD.TOTAL_AHS_LENGTH] = 1;
  login.login.receive(header, new Uint8Array(0));
  refused(login, LOGIN_STATUS.INITIATOR_ERROR, /additional header/);
});

test('who it is cannot be said later', () => {
  const login = new TestLogin();
  login.ask(0, WHO, 'SessionType=Discovery');
  login.ask(0, TO_OPEN);
  refused(login, LOGIN_STATUS.INITIATOR_ERROR, /not in the first/);
});

test('other PDUs: dropped when they come first, answered when they come between', () => {
  const first = new TestLogin();
  assert.equal(first.request({ opcode: 0x01, flags: 0x80 }), null);
  refused(first, LOGIN_STATUS.INVALID_DURING_LOGIN, /PDU 0x01/);
  const between = new TestLogin();
  between.ask(0, WHO, TO_OPEN);
  assert.equal(between.request({ opcode: 0x41, flags: 0x80 })?.status, 0x020b);
  refused(between, LOGIN_STATUS.INVALID_DURING_LOGIN, /PDU 0x01/);
});

test('a login without end ends', () => {
  const login = new TestLogin();
  login.ask(0, WHO, TO_OPEN);
  for (let i = 0; i < 63; i += 1) login.ask(0);
  assert.equal(login.login.state, 'negotiating');
  login.ask(0);
  refused(login, LOGIN_STATUS.INITIATOR_ERROR, /without end/);
  const long = new TestLogin();
  for (let i = 0; i < 9; i += 1) long.request({ flags: OP | C, text: 'K'.repeat(8000) });
  refused(long, LOGIN_STATUS.INITIATOR_ERROR, /too much text/);
});

test('a refusal of the last moment: the connection says what and why', () => {
  const login = new TestLogin();
  login.host.admission = { status: LOGIN_STATUS.OUT_OF_RESOURCES, reason: 'too many sessions' };
  login.ask(OP_FULL, WHO, TO_OPEN);
  refused(login, LOGIN_STATUS.OUT_OF_RESOURCES, /too many sessions/);
});

// Fuzz.

const FUZZ_TEXT = [
  WHO,
  TO_OPEN,
  TO_DISK,
  'SessionType=Discovery',
  'SessionType=Normal',
  'AuthMethod=CHAP,None',
  'AuthMethod=None',
  'CHAP_A=5',
  'CHAP_N=alice',
  'CHAP_R=0x00',
  'CHAP_I=1',
  'CHAP_C=0xffff',
  'HeaderDigest=CRC32C',
  'MaxRecvDataSegmentLength=512',
  'FirstBurstLength=1',
  'ErrorRecoveryLevel=2',
  'X-a=b',
  'nonsense',
  '=',
];

test('any PDUs: it waits, is done or fails, and says so once', () => {
  const prng = new Prng(20_261_123);
  const ends = { negotiating: 0, done: 0, failed: 0 };
  for (let run = 0; run < 3000; run += 1) {
    const login = new TestLogin();
    for (let i = 0; i < 12; i += 1) {
      const data = fuzzData(prng);
      const header = loginHeader(
        { flags: prng.pick([0, 1, 3, 4, 7, C, T | 1, T | 3, T | 7]) },
        data.length,
      );
      if (prng.chance(0.1)) header[prng.below(48)] = prng.uint32() & 0xff;
      login.login.receive(header, data);
    }
    const { state } = login.login;
    ends[state] += 1;
    assert.equal(login.host.failures.length, state === 'failed' ? 1 : 0);
    assert.equal(login.host.results.length, state === 'done' ? 1 : 0);
    const disk = login.host.results.some((result) => result.target?.name === DISK);
    assert.ok(!disk, 'nobody logs in without the secret');
    for (const { view, data } of login.host.said) {
      assert.equal(opcodeOf(view, 0), 0x23);
      assert.ok(data.length <= 8192);
    }
  }
  assert.ok(ends.done > 20 && ends.failed > 100, JSON.stringify(ends));
});

function fuzzData(prng: Prng): Uint8Array {
  if (prng.chance(0.05)) {
    const bytes = new Uint8Array(prng.below(100));
    prng.fill(bytes);
    return bytes;
  }
  const text = Array.from({ length: prng.below(5) }, () => prng.pick(FUZZ_TEXT));
  if (prng.chance(0.5)) text.push(WHO, TO_OPEN);
  return new TextEncoder().encode(text.map((each) => `${each}\0`).join(''));
}
