import assert from 'node:assert/strict';
import test from 'node:test';
import { UsageError } from '../../base/errors.ts';
import type { DiskConfig } from '../../server/config.ts';
import { holdfast } from '../testing.ts';
import { attachFuse } from './attach-fuse.ts';
import { fuseFile, isFuse, nameFuseDisk, parseFuse } from './fuse.ts';
import { chooseListen } from './listen.ts';

const PLAIN = { protocol: 'fuse', exportName: null, readOnly: false, pageCache: false };

function disk(exportName: string): DiskConfig {
  return {
    disk: 'disk.img',
    exportName,
    description: '',
    cache: 'writeback',
    readOnly: false,
    onSyncError: 'poison',
  };
}

function refuses(text: string, why: RegExp): void {
  assert.throws(
    () => parseFuse(text),
    (error) => error instanceof UsageError && why.test(error.message),
    text,
  );
}

test('a place is a file, with what there is to say of it', () => {
  assert.ok(isFuse('fuse:x') && !isFuse('fuses') && !isFuse('nbd://fuse:x'));
  assert.deepEqual(parseFuse('fuse:/tmp/disk'), { ...PLAIN, path: '/tmp/disk' });
  assert.deepEqual(parseFuse('fuse:a%3Fb%25?export=a%26b&read-only=on&page-cache=on'), {
    protocol: 'fuse',
    path: 'a?b%',
    exportName: 'a&b',
    readOnly: true,
    pageCache: true,
  });
  assert.deepEqual(parseFuse('fuse:d?read-only=off').readOnly, false);
});

test('mistakes in a place are named', () => {
  refuses('fuse:', /has no name/);
  refuses('fuse:?export=a', /has no name/);
  refuses('fuse:a%00b', /no NUL/);
  refuses('fuse:50%', /written %25/);
  refuses('fuse:a?mode=1', /'mode' is not known \(known: export, read-only, page-cache\)/);
  refuses('fuse:a?export', /export needs a value/);
  refuses('fuse:a?export=b&export=c', /there twice/);
  refuses('fuse:a?read-only=yes', /on or off, not 'yes'/);
});

test('--fuse is a file as it is, and no place for NBD is made beside it', () => {
  const choices = chooseListen({ fuse: ['a?b%'], listen: ['fuse:c'] }, [], 'off');
  assert.deepEqual(choices, [
    { ...PLAIN, path: 'c' },
    { protocol: 'fuse', path: 'a?b%', exportName: null },
  ]);
});

test('which disk it is must be clear', () => {
  assert.equal(nameFuseDisk(fuseFile('f'), [disk('one')]).exportName, 'one');
  const two = [disk('one'), disk('two')];
  assert.throws(
    () => nameFuseDisk(fuseFile('f'), two),
    /fuse:f\?export=NAME', one of 'one', 'two'/,
  );
  const named = { ...fuseFile('f'), exportName: 'two' };
  assert.equal(nameFuseDisk(named, two).exportName, 'two');
  assert.throws(() => nameFuseDisk(named, [disk('one')]), /no disk is named 'two'; there is 'one'/);
});

test('commands for a file are ready for a shell', () => {
  const [qemu, losetup, mount] = attachFuse('/tmp/a b,c', false);
  assert.match(qemu?.command ?? '', /'file=\/tmp\/a b,,c,format=raw,if=virtio,discard=unmap'/);
  assert.equal(losetup?.command, "sudo losetup --find --show '/tmp/a b,c'");
  assert.equal(mount?.command, "sudo mount -o loop '/tmp/a b,c' /mnt");
  const readOnly = attachFuse('/d', true).map(({ command }) => command);
  assert.ok(readOnly[0]?.includes('readonly=on') && readOnly[1]?.includes('--show -r'));
});

test('mount needs a disk and a file, and says what is wrong with them', async (t) => {
  for (const [words, why] of [
    [['mount', 'memory:1M'], /missing required argument 'FILE'/],
    [['mount', 'memory:1M', ''], /has no name/],
    [['mount', 'memory:1X', '/tmp/x'], /1X/],
    [['mount', 'memory:1M', '/tmp/x', '--on-sync-error', 'stop'], /needs --control/],
  ] as const) {
    const { code, stderr } = await holdfast(t, ...words);
    assert.equal(code, 2, stderr);
    assert.match(stderr, why);
  }
});
