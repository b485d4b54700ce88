import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { barriersOff, mountOf, natureOf, parseMountInfo, punchesHoles } from './mounts.ts';

const TEXT = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard,nobarrier
28 27 0:25 / /srv/my\\040disks rw,noatime shared:7 master:2 - xfs /dev/mapper/vg-lv\\0401 rw,attr2,noquota
29 27 0:26 / /srv/my\\040disks/fast rw - tmpfs tmpfs rw,size=4k
30 27 0:27 /vol /data rw,relatime - btrfs /dev/sdb1 rw,compress=zstd:3,subvol=/vol
31 30 0:28 / /data ro - nfs4 server:/export rw,vers=4.2
not a line of mountinfo
32 27 0:29 / /broken`;

const mounts = parseMountInfo(TEXT);
const at = (path: string): string | undefined => mountOf(mounts, path)?.fileSystem;

void describe('mountinfo', () => {
  test('lines with and without optional fields, and escapes, are understood', () => {
    assert.equal(mounts.length, 6);
    assert.deepEqual(mounts[2], {
      device: '0:25',
      root: '/',
      mountPoint: '/srv/my disks',
      fileSystem: 'xfs',
      source: '/dev/mapper/vg-lv 1',
      options: ['rw', 'noatime', 'attr2', 'noquota'],
    });
    assert.equal(mounts[4]?.root, '/vol');
  });

  test('a path is on the deepest mount above it, and on the last of several in one place', () => {
    assert.equal(at('/srv/disk.img'), 'ext4');
    assert.equal(at('/srv/my disks/a.img'), 'xfs');
    assert.equal(at('/srv/my disks/fast/a.img'), 'tmpfs');
    assert.equal(at('/srv/my disks/faster'), 'xfs');
    assert.equal(at('/srv/my disks'), 'xfs');
    assert.equal(at('/data/a.img'), 'nfs4');
    assert.equal(mountOf([], '/data'), null);
  });

  test('what a file system is and was told', () => {
    assert.ok(mounts[1] !== undefined && barriersOff(mounts[1]));
    assert.ok(mounts[2] !== undefined && !barriersOff(mounts[2]));
    assert.equal(natureOf('tmpfs'), 'memory');
    assert.equal(natureOf('nfs4'), 'network');
    assert.equal(natureOf('fuse.sshfs'), 'network');
    assert.equal(natureOf('fuseblk'), 'fuse');
    assert.equal(natureOf('overlay'), 'overlay');
    assert.equal(natureOf('ext4'), 'local');
    assert.equal(punchesHoles('ext4'), true);
    assert.equal(punchesHoles('vfat'), false);
    assert.equal(punchesHoles('something new'), null);
  });
});
