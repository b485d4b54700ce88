import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../base/prng.ts';
import { TextResponder } from './discovery.ts';
import { DISK, INITIATOR, nodeOf, OPEN, target, twoTargets } from './login-fixtures.ts';
import type { IscsiNode, IscsiTarget } from './node.ts';
import { DEFAULT_PARAMETERS } from './parameters.ts';
import { FLAG_CONTINUE, FLAG_FINAL, ISCSI_OP, REJECT, RESERVED_TAG, writeRequest } from './wire.ts';

const LOCAL = '192.0.2.1:3260';

function responder(node: IscsiNode, to: IscsiTarget | null, segment = 8192): TextResponder {
  const parameters = { ...DEFAULT_PARAMETERS, sendSegmentBytes: segment };
  const type = to === null ? 'Discovery' : 'Normal';
  return new TextResponder(node, { type, initiatorName: INITIATOR, target: to, parameters }, LOCAL);
}

interface Got {
  readonly flags: number;
  readonly ttt: number;
  readonly text: string;
}

function ask(
  to: TextResponder,
  text: string,
  flags: number = FLAG_FINAL,
  ttt: number = RESERVED_TAG,
  itt = 5,
): Got | number {
  const data = new TextEncoder().encode(text);
  const header = new DataView(new ArrayBuffer(48));
  writeRequest(header, 0, ISCSI_OP.TEXT_REQUEST, flags, itt, ttt, data.length);
  const answer = to.request(header, data);
  if (typeof answer === 'number') return answer;
  return { flags: answer.flags, ttt: answer.ttt, text: Buffer.from(answer.data).toString() };
}

function final(text: string): Got {
  return { flags: FLAG_FINAL, ttt: RESERVED_TAG, text };
}

const OPEN_TEXT = `TargetName=${OPEN}\0TargetAddress=${LOCAL},1\0`;
const DISK_TEXT = `TargetName=${DISK}\0TargetAddress=${LOCAL},1\0`;

test('SendTargets in a discovery session: all, one, none', () => {
  const to = responder(twoTargets(), null);
  assert.deepEqual(ask(to, 'SendTargets=All\0'), final(OPEN_TEXT + DISK_TEXT));
  assert.deepEqual(ask(to, `SendTargets=${DISK.toUpperCase()}\0`), final(DISK_TEXT));
  assert.deepEqual(ask(to, 'SendTargets=iqn.2026-11.org.example:none\0'), final(''));
  assert.deepEqual(ask(to, 'SendTargets=\0'), final('SendTargets=Reject\0'));
});

test('SendTargets in a normal session: the target it is with, and no other', () => {
  const node = twoTargets();
  const to = responder(node, node.targets.get(OPEN) ?? null);
  assert.deepEqual(ask(to, 'SendTargets=\0'), final(OPEN_TEXT));
  assert.deepEqual(ask(to, `SendTargets=${OPEN}\0`), final(OPEN_TEXT));
  assert.deepEqual(ask(to, `SendTargets=${DISK}\0`), final(''));
  assert.deepEqual(ask(to, 'SendTargets=All\0'), final('SendTargets=Reject\0'));
});

test('targets that are not for this initiator are not shown to it', () => {
  const hidden = target(DISK, { initiators: new Set(['iqn.2026-11.org.example:other']) });
  const shown = target(OPEN, { initiators: new Set([INITIATOR]) });
  const to = responder(nodeOf(hidden, shown), null);
  assert.deepEqual(ask(to, 'SendTargets=All\0'), final(OPEN_TEXT));
  assert.deepEqual(ask(to, `SendTargets=${DISK}\0`), final(''));
});

test('without portals: the target is where it was asked for', () => {
  const node = { ...nodeOf(target(OPEN)), portals: () => [] };
  assert.deepEqual(ask(responder(node, null), 'SendTargets=All\0'), final(`TargetName=${OPEN}\0`));
});

test('a list that is longer than a PDU comes in pieces', () => {
  const targets = Array.from({ length: 40 }, (_, i) => target(`iqn.2026-11.org.example:disk-${i}`));
  const to = responder(nodeOf(...targets), null, 512);
  let got = ask(to, 'SendTargets=All\0');
  let all = '';
  let pieces = 0;
  const tags = new Set<number>();
  for (;;) {
    assert.ok(typeof got !== 'number');
    all += got.text;
    pieces += 1;
    assert.ok(got.text.length <= 512);
    if ((got.flags & FLAG_CONTINUE) === 0) break;
    assert.equal(got.flags, FLAG_CONTINUE);
    assert.notEqual(got.ttt, RESERVED_TAG);
    tags.add(got.ttt);
    got = ask(to, '', FLAG_FINAL, got.ttt);
  }
  assert.deepEqual([got.flags, got.ttt], [FLAG_FINAL, RESERVED_TAG]);
  assert.equal(
    all,
    targets.map(({ name }) => `TargetName=${name}\0TargetAddress=${LOCAL},1\0`).join(''),
  );
  assert.equal(tags.size, pieces - 1);
});

test('a question in several PDUs, and one that is not the last', () => {
  const to = responder(twoTargets(), null);
  assert.equal(ask(to, 'SendTargets=All\0'.repeat(2)), REJECT.PROTOCOL_ERROR, 'twice as much');
  const first = ask(to, 'SendTar', FLAG_CONTINUE);
  assert.ok(typeof first !== 'number');
  assert.deepEqual([first.flags, first.text], [0, '']);
  const second = ask(to, `gets=${OPEN}\0`, 0, first.ttt);
  assert.ok(typeof second !== 'number');
  assert.deepEqual([second.flags, second.text], [0, OPEN_TEXT]);
  assert.deepEqual(ask(to, 'X-more=1\0', FLAG_FINAL, second.ttt), final('X-more=NotUnderstood\0'));
});

test('a new question ends one that was left open', () => {
  const to = responder(twoTargets(), null);
  ask(to, 'SendTar', FLAG_CONTINUE);
  assert.deepEqual(ask(to, `SendTargets=${OPEN}\0`), final(OPEN_TEXT));
});

test('other keys', () => {
  const node = twoTargets();
  const to = responder(node, node.targets.get(OPEN) ?? null);
  assert.equal(to.sendSegmentBytes, 8192);
  assert.deepEqual(ask(to, 'MaxRecvDataSegmentLength=65536\0InitiatorAlias=x\0'), final(''));
  assert.equal(to.sendSegmentBytes, 65_536);
  assert.deepEqual(ask(to, 'HeaderDigest=CRC32C\0'), final('HeaderDigest=Reject\0'));
  assert.deepEqual(ask(to, 'AuthMethod=None\0'), final('AuthMethod=Reject\0'));
  assert.deepEqual(ask(to, 'Other=1\0'), final('Other=NotUnderstood\0'));
  assert.deepEqual(ask(to, 'Other=NotUnderstood\0'), final(''));
  assert.deepEqual(ask(to, ''), final(''));
});

test('what breaks the rules is rejected, and begins anew', () => {
  const to = responder(twoTargets(), null);
  assert.equal(ask(to, 'SendTargets=All\0', FLAG_FINAL, 77), REJECT.INVALID_PDU_FIELD);
  assert.equal(ask(to, '', FLAG_FINAL | FLAG_CONTINUE), REJECT.PROTOCOL_ERROR);
  assert.equal(ask(to, 'nonsense'), REJECT.PROTOCOL_ERROR);
  assert.equal(ask(to, 'MaxRecvDataSegmentLength=1\0'), REJECT.PROTOCOL_ERROR);
  const first = ask(to, 'SendTar', FLAG_CONTINUE);
  assert.ok(typeof first !== 'number');
  assert.equal(ask(to, 'gets=All\0', FLAG_FINAL, first.ttt, 6), REJECT.INVALID_PDU_FIELD);
  assert.equal(ask(to, 'gets=All\0', FLAG_FINAL, first.ttt), REJECT.INVALID_PDU_FIELD);
  const long = 'K'.repeat(60_000);
  const part = ask(to, long, FLAG_CONTINUE);
  assert.ok(typeof part !== 'number');
  assert.equal(ask(to, long, FLAG_CONTINUE, part.ttt), REJECT.PROTOCOL_ERROR);
  assert.deepEqual(ask(to, `SendTargets=${OPEN}\0`), final(OPEN_TEXT));
});

test('any requests: an answer or a reason, in bounds', () => {
  const prng = new Prng(7143);
  const texts = ['SendTargets=All\0', 'SendTar', 'gets=All\0', '', 'A=1\0', '\0', 'x', 'B='];
  const to = responder(twoTargets(), null, 512);
  let ttt = RESERVED_TAG;
  for (let i = 0; i < 5000; i += 1) {
    const flags = prng.pick([0, FLAG_FINAL, FLAG_CONTINUE, 0xff]);
    const tag = prng.chance(0.6) ? ttt : prng.pick([RESERVED_TAG, 1, 2]);
    const got = ask(to, prng.pick(texts), flags, tag);
    if (typeof got === 'number') {
      assert.ok(got === REJECT.PROTOCOL_ERROR || got === REJECT.INVALID_PDU_FIELD);
    } else {
      assert.ok(got.text.length <= 512);
      assert.equal(got.ttt === RESERVED_TAG, got.flags === FLAG_FINAL);
      ttt = got.ttt;
    }
  }
});
