import assert from 'node:assert/strict';
import test from 'node:test';
import { CLASS_CHARACTERS } from './limits.ts';
import { classOf, readWords } from './words.ts';

void test('what differs between findings of one kind is not in the class', () => {
  const same: readonly (readonly [string, string])[] = [
    ['block 17 is lost', 'block 4711 is lost'],
    ['at 0xdeadbeef: bad', 'at 0x1: bad'],
    ['/tmp/a/b: bad magic', '/run/user/7/c: bad magic'],
    ['./x/y: bad', '../z: bad'],
    ['12:03:59 gone', '3:04:05 gone'],
    ['blocks 1 2 3 lost', 'blocks 9 lost'],
    ['blocks 1, 2, 3 lost', 'blocks 9 lost'],
    ['sum 0a1b2c3d4e5f is wrong', 'sum 99ffee00112233 is wrong'],
    ['1.25 of 3.5', '7.1 of 900'],
    ['id 123e4567-e89b-12d3-a456-426614174000', 'id 00000000-0000-0000-0000-000000000000'],
  ];
  for (const [a, b] of same) assert.equal(classOf(a), classOf(b));
  assert.equal(classOf('block 17 (of 3) is lost'), 'block # (of #) is lost');
  assert.equal(classOf('and/or a feedback'), 'and/or a feedback');
  assert.notEqual(classOf('row 1 is missing'), classOf('row 1 is twice there'));
  assert.equal(classOf('x'.repeat(500)).length, CLASS_CHARACTERS);
});

void test('the first line that means something counts, and a line with an axis most', () => {
  const said = readWords(
    '\n\u001B[31mfsck 1.47.0 (5-Feb-2023)\u001B[0m\nPass 1: blocks\nInode 12 is bad\nmore\n',
  );
  assert.deepEqual(said, {
    axis: null,
    class: 'Inode # is bad',
    detail: 'fsck 1.47.0 (5-Feb-2023)\nPass 1: blocks\nInode 12 is bad\nmore',
  });
  const durable = readWords('looking\ndurability: row 7 is gone\natomicity: no\n');
  assert.equal(durable.axis, 'durability');
  assert.equal(durable.class, 'row # is gone');
  assert.deepEqual(readWords(''), { axis: null, class: '', detail: '' });
});
