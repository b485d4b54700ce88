import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { decodeText, encodeText, printable, Reader, readU64, viewOf, Writer } from './bytes.ts';

test('numbers of 64 bits survive below 2^53 and stay large above', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      const bytes = new Writer().u64(value).finish();
      assert.equal(readU64(viewOf(bytes), 0), value);
      assert.equal(viewOf(bytes).getBigUint64(0), BigInt(value));
    }),
  );
  fc.assert(
    fc.property(fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }), (value) => {
      const bytes = new Uint8Array(8);
      viewOf(bytes).setBigUint64(0, value);
      assert.ok(readU64(viewOf(bytes), 0) >= 2 ** 53);
    }),
  );
});

test('a reader gives back what a writer wrote, and nothing past the end', () => {
  fc.assert(
    fc.property(
      fc.nat(0xffff),
      fc.nat(0xffffffff),
      fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0')),
      fc.nat(40),
      (u16, u32, text, cut) => {
        const bytes = new Writer().u16(u16).u32(u32).text32(text).finish();
        const reader = new Reader(bytes);
        assert.deepEqual([reader.u16(), reader.u32(), reader.text(reader.u32())], [u16, u32, text]);
        assert.ok(reader.complete);
        const short = new Reader(bytes.subarray(0, Math.max(0, bytes.length - 1 - cut)));
        short.u16();
        short.u32();
        short.text(short.u32());
        assert.ok(short.failed && !short.complete);
      },
    ),
  );
});

test('after the end every field is nothing', () => {
  const reader = new Reader(Uint8Array.of(1, 2, 3, 4, 5));
  assert.equal(reader.u64(), 0);
  assert.ok(reader.failed);
  assert.deepEqual(
    [reader.u16(), reader.u32(), reader.bytes(1).length, reader.text(1)],
    [0, 0, 0, ''],
  );
});

test('a writer grows', () => {
  const writer = new Writer();
  for (let i = 0; i < 1000; i += 1) writer.u32(i);
  assert.equal(writer.zeroes(3).length, 4003);
  const bytes = writer.finish();
  assert.equal(viewOf(bytes).getUint32(999 * 4), 999);
  assert.deepEqual(bytes.subarray(4000), new Uint8Array(3));
});

test('text is UTF-8 without NUL', () => {
  assert.equal(decodeText(encodeText('Größe 𝛑')), 'Größe 𝛑');
  assert.equal(decodeText(encodeText('\uFEFFbom')), '\uFEFFbom');
  assert.equal(decodeText(Uint8Array.of(0x61, 0)), null);
  assert.equal(decodeText(Uint8Array.of(0xff)), null);
  assert.equal(decodeText(Uint8Array.of(0xed, 0xa0, 0x80)), null, 'a surrogate');
});

test('what a peer says is printed on one line', () => {
  assert.equal(printable(encodeText('a\r\nb\u001b[31mc\u202e')), 'a b [31mc');
  assert.equal(printable(encodeText('x'.repeat(1000))).length, 200);
});
