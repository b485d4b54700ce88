import assert from 'node:assert/strict';
import test from 'node:test';
import { parseCommand } from './command-template.ts';

const places = { disks: ['/m/disk0', '/m/disk1'], acks: '/m/acks', scratch: '/m/s' };

void test('plain words need no shell', () => {
  const template = parseCommand(' e2fsck  -fn {disk} ', 1);
  assert.equal(template.shell, false);
  assert.equal(template.usesAcks, false);
  assert.deepEqual(template.argv(places), ['e2fsck', '-fn', '/m/disk0']);
  assert.deepEqual(parseCommand('x --file={disk1}', 2).argv(places).at(-1), 'x --file=/m/disk1');
});

void test('what only a shell understands gets one', () => {
  for (const line of [
    'a {disk} | b',
    "a '{disk}'",
    'X=1 a {disk}',
    'a {disk} $HOME',
    'exit 3 {disk}',
    'a {disk}; b',
  ]) {
    assert.equal(parseCommand(line, 1).shell, true, line);
  }
  const template = parseCommand("cmp {disk0} {disk1} && grep '{acks}' {scratch}/x", 2);
  assert.equal(template.usesAcks, true);
  assert.deepEqual(template.argv(places), [
    '/bin/sh',
    '-c',
    "cmp /m/disk0 /m/disk1 && grep '/m/acks' /m/s/x",
  ]);
});

void test('braces that are not ours stay, paths with blanks are quoted', () => {
  const line = "awk '{print $1}' {disk} {other}";
  const odd = { ...places, disks: ["/a b/it's"] };
  assert.equal(
    parseCommand(line, 1).argv(odd)[2],
    String.raw`awk '{print $1}' '/a b/it'\''s' {other}`,
  );
});

void test('a command without a disk, or with one that is not there, is refused', () => {
  assert.throws(() => parseCommand('fsck', 1), { name: 'UsageError', message: /write \{disk\}/ });
  assert.throws(() => parseCommand('fsck {disk1}', 1), { name: 'UsageError', message: /one disk/ });
  assert.throws(() => parseCommand('fsck {disk0} {disk2}', 2), { message: /2 disks/ });
});
