import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test from 'node:test';
import { CHAP_A, chapAlgorithmAvailable, ChapAuthenticator, chapResponse } from './chap.ts';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'));

const ALICE = { user: 'alice', secret: bytesOf('secretsecret1') };
const BOB = { user: 'bob', secret: bytesOf('targetsecret1') };

/** The identifier is 1, the challenge 8, 15, ... */
function counting(bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = i * 7 + 1;
}

test('responses that tgt and libiscsi have agreed on', () => {
  // Recorded between libiscsi 1.19 and tgt 1.0.85.
  const challenge =
    '905e8f3b134b61a65a15e6fe7eeff334281936610fbc13ba2c7ea9042f4fbe20220fa339d6d8b7364d9e7f1e6ac4d04e3305';
  const want = 'd2f7ad2d218bcac446ed5df2573e405f';
  assert.deepEqual(
    Buffer.from(chapResponse(5, 1, ALICE.secret, hex(challenge))).toString('hex'),
    want,
  );
  const reverse = '3679c25133bef732cf9011a0b6c5bfb005cfc28b289c76d2646db55a04022f3b';
  const proof = Buffer.from(chapResponse(5, 1, BOB.secret, hex(reverse))).toString('hex');
  assert.equal(proof, 'a57ac029d5e199576af0858b21ca87ce');
});

test('every algorithm: the hash of identifier, secret and challenge, as long as its hash', () => {
  for (const [algorithm, { hash, bytes }] of CHAP_A) {
    if (!chapAlgorithmAvailable(algorithm)) continue;
    const chap = new ChapAuthenticator(algorithm, counting);
    assert.equal(chap.challenge.length, bytes);
    const all = Buffer.concat([Uint8Array.of(1), ALICE.secret, chap.challenge]);
    const response = Uint8Array.from(createHash(hash).update(all).digest());
    assert.equal(response.length, bytes);
    assert.equal(chap.judge({ user: 'alice', response, challenge: null }, ALICE, null), null);
    response[3] = (response[3] as number) ^ 1;
    const refused = chap.judge({ user: 'alice', response, challenge: null }, ALICE, null);
    assert.equal(refused, 'wrong CHAP name or secret');
  }
  assert.ok(chapAlgorithmAvailable(7));
  assert.ok(!chapAlgorithmAvailable(4));
  assert.throws(() => chapResponse(4, 1, ALICE.secret, ALICE.secret), RangeError);
});

test('name and secret must both be right, and the log does not say which was not', () => {
  const chap = new ChapAuthenticator(5, counting);
  const good = chapResponse(5, chap.identifier, ALICE.secret, chap.challenge);
  const other = chapResponse(5, chap.identifier, BOB.secret, chap.challenge);
  for (const [user, response] of [
    ['alice', other],
    ['Alice', good],
    ['', good],
    ['alice', good.subarray(1)],
    ['alice', new Uint8Array(0)],
    ['bob', other],
  ] as const) {
    const got = chap.judge({ user, response, challenge: null }, ALICE, null);
    assert.equal(got, 'wrong CHAP name or secret');
  }
});

test('mutual CHAP: a proof, unless it is an attack or cannot be given', () => {
  const chap = new ChapAuthenticator(7, counting);
  const response = chapResponse(7, chap.identifier, ALICE.secret, chap.challenge);
  const theirs = Uint8Array.from({ length: 32 }, (_, i) => 200 - i);
  const answer = { user: 'alice', response, challenge: { identifier: 9, bytes: theirs } };
  const proof = chap.judge(answer, ALICE, BOB);
  assert.deepEqual(proof, { user: 'bob', response: chapResponse(7, 9, BOB.secret, theirs) });
  // A wrong answer gets no proof, whatever it asks.
  const wrong = { ...answer, response: new Uint8Array(32) };
  assert.equal(chap.judge(wrong, ALICE, BOB), 'wrong CHAP name or secret');
  assert.match(chap.judge(answer, ALICE, null) as string, /no secret is set/);
  const mirror = { ...answer, challenge: { identifier: 2, bytes: chap.challenge.slice() } };
  assert.match(chap.judge(mirror, ALICE, BOB) as string, /reflection/);
  const same = { user: 'bob', secret: ALICE.secret };
  assert.match(chap.judge(answer, ALICE, same) as string, /the same/);
});
