import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { UsageError } from './errors.ts';
import { formatSize, GiB, KiB, MiB, parseDuration, parseSize } from './units.ts';

test('sizes as QEMU writes them', () => {
  const sizes: [string, number][] = [
    ['0', 0],
    ['512', 512],
    ['4k', 4096],
    ['4K', 4096],
    ['1M', MiB],
    ['1.5k', 1536],
    ['10G', 10 * GiB],
    ['10GiB', 10 * GiB],
    ['10gb', 10 * GiB],
    ['2T', 2 * 1024 * GiB],
    ['1P', 2 ** 50],
    [' 64k ', 64 * KiB],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ];
  for (const [text, bytes] of sizes) assert.equal(parseSize(text), bytes, text);
});

test('what is not a size is refused in one line that shows it', () => {
  const refused = [
    '',
    'k',
    '-1',
    '+1',
    '1e3',
    '0x10',
    '1,5k',
    '1 k',
    '1kk',
    '1X',
    'NaN',
    '0.3k',
    '.5k',
  ];
  for (const text of [...refused, '9007199254740992', '9999999P', '1\n2']) {
    assert.throws(() => parseSize(text), { name: 'UsageError', message: /^not a size: '/ }, text);
  }
});

test('whole units are parsed back as they were written', () => {
  fc.assert(
    fc.property(fc.nat({ max: 1023 }), fc.nat({ max: 4 }), (count, power) => {
      const bytes = count * 1024 ** power;
      assert.equal(parseSize(`${count}${'bkmgt'[power] ?? ''}`), bytes);
      assert.equal(parseSize(formatSize(bytes).replace(' ', '')), bytes);
    }),
    { seed: 1 },
  );
});

test('sizes for people', () => {
  const sizes: [number, string][] = [
    [0, '0 B'],
    [512, '512 B'],
    [1023, '1023 B'],
    [1536, '1.5 KiB'],
    [GiB, '1 GiB'],
    [2 ** 50, '1 PiB'],
    [2 ** 60, '1024 PiB'],
  ];
  for (const [bytes, text] of sizes) assert.equal(formatSize(bytes), text);
});

test('times have a unit, or are seconds', () => {
  assert.equal(parseDuration('5s'), 5000);
  assert.equal(parseDuration('1.5'), 1500);
  assert.equal(parseDuration('250ms'), 250);
  assert.equal(parseDuration('2m'), 120_000);
  for (const text of ['', 's', '5h', '-1s', '1e3', '1.2.3s']) {
    assert.throws(() => parseDuration(text), UsageError, text);
  }
});
