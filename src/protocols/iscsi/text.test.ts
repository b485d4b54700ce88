import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { MAX_KEYS, MAX_TEXT_BYTES, MAX_VALUE_BYTES } from './limits.ts';
import {
  encodeText,
  formatBinary,
  type KeyValue,
  parseBinary,
  parseNumber,
  parseText,
  printable,
  TextCollector,
  TextPieces,
} from './text.ts';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

const anyPair = fc.record(
  {
    key: fc.stringMatching(/^[A-Za-z][A-Za-z0-9._-]{0,20}$/),
    value: fc.string({ unit: 'grapheme', maxLength: 60 }).filter((text) => !text.includes('\0')),
  },
  { noNullPrototype: true },
);

test('pairs that were built are parsed', () => {
  fc.assert(
    fc.property(fc.array(anyPair, { maxLength: 20 }), (pairs) => {
      assert.deepEqual(parseText(encodeText(pairs)), pairs);
    }),
  );
  assert.deepEqual(parseText(new Uint8Array(0)), []);
});

test('NULs between pairs and a missing one at the end do no harm', () => {
  const pairs = [
    { key: 'AuthMethod', value: 'CHAP,None' },
    { key: 'CHAP_N', value: 'a=b' },
    { key: 'X#Y', value: '' },
  ];
  assert.deepEqual(parseText(bytesOf('AuthMethod=CHAP,None\0\0\0CHAP_N=a=b\0X#Y=')), pairs);
});

test('text that is no list of pairs is refused in one line', () => {
  const bad: (string | Uint8Array)[] = [
    'Key\0',
    '=value\0',
    'two words=1\0',
    '9Key=1\0',
    `${'K'.repeat(64)}=1\0`,
    `K=${'v'.repeat(MAX_VALUE_BYTES + 1)}\0`,
    'K=1\0'.repeat(MAX_KEYS + 1),
    Uint8Array.of(0x4b, 0x3d, 0xff, 0),
    Uint8Array.of(0x4b, 0xc3, 0x3d, 0x31, 0),
  ];
  for (const text of bad) {
    const got = parseText(typeof text === 'string' ? bytesOf(text) : text);
    assert.equal(typeof got, 'string', String(text));
    assert.match(got as string, /^[ -~]+$/);
  }
  assert.equal((parseText(bytesOf(`${'K'.repeat(63)}=1\0`)) as KeyValue[]).length, 1);
  assert.equal((parseText(bytesOf('K=1\0'.repeat(MAX_KEYS))) as KeyValue[]).length, MAX_KEYS);
});

test('any bytes give pairs or a line', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const got = parseText(bytes);
      assert.ok(typeof got === 'string' ? got !== '' : Array.isArray(got));
    }),
  );
});

test('a list in pieces of any size is put together again, and not more than so much', () => {
  fc.assert(
    fc.property(
      fc.array(anyPair, { maxLength: 10 }),
      fc.integer({ min: 1, max: 50 }),
      (pairs, limit) => {
        const pieces = new TextPieces();
        const collector = new TextCollector();
        pieces.set(encodeText(pairs));
        do {
          const piece = pieces.next(limit);
          assert.ok(piece.length <= limit);
          assert.ok(collector.add(piece));
        } while (pieces.more);
        assert.deepEqual(parseText(collector.take()), pairs);
        assert.ok(collector.empty);
      },
    ),
  );
  const collector = new TextCollector();
  assert.ok(collector.add(new Uint8Array(MAX_TEXT_BYTES)));
  assert.ok(!collector.add(new Uint8Array(1)));
  collector.clear();
  assert.ok(collector.add(new Uint8Array(1)));
});

test('a collector copies: the memory may be used again', () => {
  const collector = new TextCollector();
  const bytes = bytesOf('A=1\0');
  collector.add(bytes);
  bytes.fill(0x42);
  assert.deepEqual(parseText(collector.take()), [{ key: 'A', value: '1' }]);
});

test('numbers', () => {
  for (const [text, value] of [
    ['0', 0],
    ['262144', 262_144],
    ['0x1F', 31],
    ['0Xffffffff', 0xffffffff],
    ['4294967295', 0xffffffff],
  ] as const) {
    assert.equal(parseNumber(text), value);
  }
  for (const text of [
    '',
    '-1',
    '+1',
    '1.5',
    '1e3',
    '0x',
    '4294967296',
    '0x1ffffffff',
    ' 1',
    'Yes',
  ]) {
    assert.equal(parseNumber(text), null, text);
  }
});

test('binary values', () => {
  assert.deepEqual(parseBinary('0x0aFf'), Uint8Array.of(10, 255));
  assert.deepEqual(parseBinary('0xaFf'), Uint8Array.of(10, 255));
  assert.deepEqual(parseBinary('0bCv8='), Uint8Array.of(10, 255));
  assert.deepEqual(parseBinary('0BAAEC'), Uint8Array.of(0, 1, 2));
  for (const text of ['', '0x', '0b', 'ff', '0xgg', '0bA', '0bAA=', '0b====', '12']) {
    assert.equal(parseBinary(text), null, text);
  }
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), (bytes) => {
      assert.deepEqual(parseBinary(formatBinary(bytes)), bytes);
      const base64 = `0b${Buffer.from(bytes).toString('base64')}`;
      assert.deepEqual(parseBinary(base64), bytes);
    }),
  );
});

test('what goes to the log is one bounded line', () => {
  assert.equal(printable(' a\n\u001b[2Jb\u202ec\u2028d '), 'a [2Jb c d');
  assert.equal(printable('x'.repeat(500)).length, 233);
});
