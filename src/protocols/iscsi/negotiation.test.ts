import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { isOperationalKey, Negotiation, parseSegmentLength } from './negotiation.ts';
import { DEFAULT_PARAMETERS } from './parameters.ts';

/** One offer, our answer, and what of the parameters it changes. */
const TABLE: readonly (readonly [string, string, string | null, object])[] = [
  ['HeaderDigest', 'None', 'None', {}],
  ['HeaderDigest', 'CRC32C', 'CRC32C', { headerDigest: true }],
  ['HeaderDigest', 'None,CRC32C', 'None', {}],
  ['HeaderDigest', 'CRC32C,None', 'CRC32C', { headerDigest: true }],
  ['DataDigest', 'X-other,CRC32C', 'CRC32C', { dataDigest: true }],
  ['DataDigest', 'crc32c', 'Reject', {}],
  ['MaxConnections', '8', '1', {}],
  ['MaxConnections', '0', 'Reject', {}],
  ['InitialR2T', 'No', 'No', { initialR2T: false }],
  ['InitialR2T', 'Yes', 'Yes', {}],
  ['InitialR2T', 'yes', 'Reject', {}],
  ['ImmediateData', 'No', 'No', { immediateData: false }],
  ['ImmediateData', 'Yes', 'Yes', {}],
  ['MaxRecvDataSegmentLength', '262144', null, { sendSegmentBytes: 262_144 }],
  ['MaxRecvDataSegmentLength', '0x200', null, { sendSegmentBytes: 512 }],
  ['MaxBurstLength', '16776192', '16776192', { maxBurstLength: 16_776_192 }],
  ['MaxBurstLength', '16777215', '16776704', { maxBurstLength: 16_776_704 }],
  ['MaxBurstLength', '511', 'Reject', {}],
  ['FirstBurstLength', '262144', '262144', { firstBurstLength: 262_144 }],
  ['FirstBurstLength', '1048576', '262144', { firstBurstLength: 262_144 }],
  ['FirstBurstLength', '512', '512', { firstBurstLength: 512 }],
  ['DefaultTime2Wait', '0', '0', { defaultTime2Wait: 0 }],
  ['DefaultTime2Wait', '3601', 'Reject', {}],
  ['DefaultTime2Retain', '60', '0', { defaultTime2Retain: 0 }],
  ['MaxOutstandingR2T', '16', '8', { maxOutstandingR2T: 8 }],
  ['MaxOutstandingR2T', '1', '1', {}],
  ['DataPDUInOrder', 'No', 'Yes', {}],
  ['DataSequenceInOrder', 'Yes', 'Yes', {}],
  ['DataSequenceInOrder', '', 'Reject', {}],
  ['ErrorRecoveryLevel', '2', '0', {}],
  ['ErrorRecoveryLevel', '3', 'Reject', {}],
  ['iSCSIProtocolLevel', '1', '1', {}],
  ['iSCSIProtocolLevel', '31', '2', { protocolLevel: 2 }],
  ['TaskReporting', 'FastAbort,RFC3720', 'RFC3720', {}],
  ['TaskReporting', 'FastAbort', 'Reject', {}],
  ['IFMarker', 'Yes', 'No', {}],
  ['OFMarker', 'No', 'No', {}],
  ['IFMarkInt', '2048~8192', 'Reject', {}],
  ['OFMarkInt', '2048', 'Reject', {}],
  ['InitiatorAlias', 'somebody', null, {}],
  ['TargetAlias', 'somebody', 'Reject', {}],
  ['SendTargets', 'All', 'Reject', {}],
  ['RDMAExtensions', 'Yes', 'NotUnderstood', {}],
  ['X-com.example.key', '1', 'NotUnderstood', {}],
  ['headerdigest', 'None', 'NotUnderstood', {}],
  ['Whatever', 'NotUnderstood', null, {}],
  ['MaxBurstLength', 'Irrelevant', null, {}],
];

test('every key: its answer and what it changes', () => {
  for (const [key, value, want, changes] of TABLE) {
    const negotiation = new Negotiation(false);
    assert.equal(negotiation.offer(key, value), want, `${key}=${value}`);
    assert.deepEqual(negotiation.parameters, { ...DEFAULT_PARAMETERS, ...changes }, key);
  }
});

test('a first burst is not longer than a burst', () => {
  const negotiation = new Negotiation(false);
  assert.equal(negotiation.offer('MaxBurstLength', '8192'), '8192');
  assert.equal(negotiation.offer('FirstBurstLength', '65536'), '8192');
});

test('what says nothing of a discovery session is irrelevant in it', () => {
  const negotiation = new Negotiation(true);
  assert.equal(negotiation.offer('InitialR2T', 'No'), 'Irrelevant');
  assert.equal(negotiation.offer('MaxBurstLength', 'nonsense'), 'Irrelevant');
  assert.equal(negotiation.offer('HeaderDigest', 'CRC32C'), 'CRC32C');
  assert.deepEqual(negotiation.parameters, { ...DEFAULT_PARAMETERS, headerDigest: true });
});

test('our own declaration counts once it is made', () => {
  const negotiation = new Negotiation(false);
  assert.equal(negotiation.parameters.receiveSegmentBytes, 8192);
  negotiation.declared();
  assert.equal(negotiation.parameters.receiveSegmentBytes, 262_144);
});

test('a declaration that is not possible ends the negotiation', () => {
  for (const value of ['511', '16777216', '-1', '', 'Yes']) {
    assert.throws(() => parseSegmentLength(value), { name: 'ProtocolError' });
  }
  assert.equal(parseSegmentLength('16777215'), 16_777_215);
});

test('numbers: never more than was offered, but where the maximum counts', () => {
  const keys = TABLE.map(([key]) => key).filter(isOperationalKey);
  fc.assert(
    fc.property(fc.constantFrom(...keys), fc.nat({ max: 2 ** 25 }), (key, offered) => {
      if (key === 'MaxRecvDataSegmentLength') return;
      const answer = new Negotiation(false).offer(key, String(offered));
      if (answer === null || !/^\d/.test(answer)) return;
      assert.ok(Number(answer) <= offered);
    }),
  );
});

test('any offers: an answer that RFC 7143 has, and parameters in range', () => {
  const keys = [...new Set(TABLE.map(([key]) => key)), 'Other'];
  const values = fc.oneof(
    fc.constantFrom('Yes', 'No', 'None', 'CRC32C,None', 'Reject', 'Irrelevant', ''),
    fc.nat().map(String),
    fc.string(),
  );
  const offers = fc.array(fc.tuple(fc.constantFrom(...keys), values), { maxLength: 30 });
  fc.assert(
    fc.property(offers, fc.boolean(), (list, discovery) => {
      const negotiation = new Negotiation(discovery);
      for (const [key, value] of list) {
        try {
          const answer = negotiation.offer(key, value);
          assert.match(answer ?? '', /^[A-Za-z0-9]*$/);
        } catch (error) {
          assert.equal((error as Error).name, 'ProtocolError');
        }
      }
      const p = negotiation.parameters;
      for (const length of [p.sendSegmentBytes, p.maxBurstLength, p.firstBurstLength]) {
        assert.ok(length >= 512 && length < 2 ** 24);
      }
      assert.ok(p.maxOutstandingR2T >= 1 && p.maxOutstandingR2T <= 8);
      assert.ok(p.protocolLevel <= 2 && p.defaultTime2Wait <= 3600);
    }),
  );
});
