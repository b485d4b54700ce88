import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Region, Segments } from '../../block/memory.ts';
import { crc32c, crc32cOfSegments, readDigest, writeDigest } from './crc32c.ts';

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** The digest's bytes as they go over the wire. */
function digest(bytes: Uint8Array): string {
  const out = new Uint8Array(4);
  writeDigest(viewOf(out), 0, crc32c(viewOf(bytes), 0, bytes.length));
  return Buffer.from(out).toString('hex');
}

/** Bit by bit, after the definition: the polynomial 0x11EDC6F41, reflected in and out. */
function slow(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit += 1) {
      const low = (crc ^ (byte >>> bit)) & 1;
      crc = (crc >>> 1) ^ (low === 0 ? 0 : 0x82f63b78);
    }
  }
  return ~crc >>> 0;
}

test('the test vectors of RFC 3720 B.4', () => {
  assert.equal(digest(new Uint8Array(32)), 'aa36918a');
  assert.equal(digest(new Uint8Array(32).fill(0xff)), '43aba862');
  assert.equal(digest(Uint8Array.from({ length: 32 }, (_, i) => i)), '4e79dd46');
  assert.equal(digest(Uint8Array.from({ length: 32 }, (_, i) => 31 - i)), '5cdb3f11');
  const read10 = Buffer.from(
    '01c00000000000000000000000000000' +
      '14000000000004000000001400000018' +
      '28000000000000000200000000000000',
    'hex',
  );
  assert.equal(digest(read10), '563a96d9');
});

test('the check value of CRC-32/ISCSI', () => {
  const text = new TextEncoder().encode('123456789');
  assert.equal(crc32c(viewOf(text), 0, text.length), 0xe3069283);
});

test('any bytes, at any place, in any parts: as bit by bit', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.nat({ max: 20 }),
      fc.array(fc.nat({ max: 200 }), { maxLength: 4 }),
      (bytes, before, cuts) => {
        const around = new Uint8Array(before + bytes.length + 5).fill(0xa5);
        around.set(bytes, before);
        const ends = cuts.map((cut) => Math.min(cut, bytes.length)).toSorted((a, b) => a - b);
        let crc = 0;
        let at = 0;
        for (const end of [...ends, bytes.length]) {
          crc = crc32c(viewOf(around), before + at, end - at, crc);
          at = end;
        }
        assert.equal(crc, slow(bytes));
      },
    ),
  );
});

test('segments, from anywhere in them', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 5 }),
      fc.nat(),
      fc.nat(),
      (parts, a, b) => {
        const segments = new Segments();
        for (const part of parts) segments.push(Region.plain(part), 0, part.length);
        const all = Uint8Array.from(parts.flatMap((part) => [...part]));
        const skip = a % (all.length + 1);
        const length = b % (all.length - skip + 1);
        const want = slow(all.subarray(skip, skip + length));
        assert.equal(crc32cOfSegments(segments, skip, length), want);
      },
    ),
  );
  const short = new Segments();
  short.push(Region.plain(8), 0, 8);
  assert.throws(() => crc32cOfSegments(short, 4, 5), { name: 'AssertionError' });
});

test('a digest that was written is read', () => {
  const view = viewOf(new Uint8Array(8));
  writeDigest(view, 3, 0x89abcdef);
  assert.equal(readDigest(view, 3), 0x89abcdef);
  assert.equal(view.getUint8(3), 0xef);
});
