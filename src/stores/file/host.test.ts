import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import { stableDeviceId } from './device-id.ts';
import { deviceNumber } from './device-number.ts';
import { describeHost, hostWarnings, kernelAtLeast, readHost, type HostFacts } from './host.ts';
import type { Mount } from './mounts.ts';
import { defaultStateDirectory, escapeId, statePathUnder } from './state-path.ts';
import { drivesOf, readBlockDevice } from './sysfs.ts';
import { TestDirectory } from './testing.ts';

let directory: TestDirectory;
let sysfs: string;

/** A disk with a partition, LVM over it, a mirror of two, a loop device: as Linux lays them out under /sys. */
const TREE: Readonly<Record<string, string>> = {
  'devices/pci/sda/dev': '8:0\n',
  'devices/pci/sda/size': '2048\n',
  'devices/pci/sda/device/model': 'ACME SSD        \n',
  'devices/pci/sda/queue/write_cache': 'write back\n',
  'devices/pci/sda/queue/fua': '1\n',
  'devices/pci/sda/queue/rotational': '0\n',
  'devices/pci/sda/queue/logical_block_size': '512\n',
  'devices/pci/sda/queue/physical_block_size': '4096\n',
  'devices/pci/sda/queue/write_zeroes_max_bytes': '1048576\n',
  'devices/pci/sda/sda1/dev': '8:1\n',
  'devices/pci/sda/sda1/size': '1024\n',
  'devices/pci/sda/sda1/partition': '1\n',
  'devices/pci/sdb/dev': '8:16\n',
  'devices/pci/sdb/queue/write_cache': 'write through\n',
  'devices/pci/sdb/queue/fua': '0\n',
  'devices/pci/sdb/queue/rotational': '1\n',
  'devices/virtual/md0/dev': '9:0\n',
  'devices/virtual/md0/md/level': 'raid1\n',
  'devices/virtual/dm-0/dev': '253:0\n',
  'devices/virtual/dm-0/dm/name': 'vg-disk\n',
  'devices/virtual/dm-0/dm/uuid': 'LVM-abc\n',
  'devices/virtual/loop3/dev': '7:3\n',
  'devices/virtual/loop3/loop/backing_file': '/srv/an image.img\n',
  'devices/virtual/zram0/dev': '252:0\n',
};

before(() => {
  directory = new TestDirectory();
  sysfs = join(directory.path, 'sys');
  for (const [path, text] of Object.entries(TREE)) {
    mkdirSync(dirname(join(sysfs, path)), { recursive: true });
    writeFileSync(join(sysfs, path), text);
  }
  const link = (target: string, at: string): void => {
    mkdirSync(dirname(join(sysfs, at)), { recursive: true });
    symlinkSync(join(sysfs, target), join(sysfs, at));
  };
  link('devices/pci/sda/sda1', 'devices/virtual/md0/slaves/sda1');
  link('devices/pci/sdb', 'devices/virtual/md0/slaves/sdb');
  link('devices/virtual/md0', 'devices/virtual/dm-0/slaves/md0');
  for (const [number, folder] of [
    ['8:0', 'pci/sda'],
    ['8:1', 'pci/sda/sda1'],
    ['253:0', 'virtual/dm-0'],
    ['7:3', 'virtual/loop3'],
    ['252:0', 'virtual/zram0'],
  ] as const) {
    link(`devices/${folder}`, `dev/block/${number}`);
  }
});
after(() => directory.remove());

const MOUNT: Mount = {
  device: '253:0',
  root: '/',
  mountPoint: '/srv',
  fileSystem: 'ext4',
  source: '/dev/mapper/vg-disk',
  options: ['rw'],
};

/** A host like this one would be with another mount or device. */
function factsWith(change: Partial<HostFacts>): HostFacts {
  return {
    path: '/srv/a.img',
    realPath: '/srv/a.img',
    kind: 'file',
    sizeBytes: MiB,
    allocatedBytes: 0,
    direct: true,
    directAlignment: null,
    writeDsync: true,
    ...describeHost(MOUNT, null),
    ...change,
  };
}

const compressed = (options: string[]): boolean =>
  describeHost({ ...MOUNT, fileSystem: 'btrfs', options }, null).compressed;

const codes = (facts: HostFacts, mode: Parameters<typeof hostWarnings>[1]): string[] =>
  hostWarnings(facts, mode).map(({ code }) => code);

void describe('the host, as sysfs tells it', () => {
  test('a partition has the queue of its disk', () => {
    const node = readBlockDevice('8:1', sysfs);
    assert.equal(node?.kind, 'partition');
    assert.equal(node.sizeBytes, 1024 * 512);
    assert.equal(node.writeCache, 'write back');
    assert.deepEqual(
      [
        node.fua,
        node.rotational,
        node.logicalBlockBytes,
        node.physicalBlockBytes,
        node.writesZeroes,
      ],
      [true, false, 512, 4096, true],
    );
    assert.deepEqual(
      drivesOf(node).map(({ name, model }) => [name, model]),
      [['sda', 'ACME SSD']],
    );
  });

  test('LVM over a mirror of a partition and a disk ends at both drives', () => {
    const node = readBlockDevice('253:0', sysfs);
    assert.deepEqual([node?.kind, node?.detail], ['dm', 'vg-disk']);
    assert.ok(node !== null);
    assert.deepEqual([node.beneath[0]?.kind, node.beneath[0]?.detail], ['md', 'raid1']);
    assert.deepEqual(
      drivesOf(node).map(({ name }) => name),
      ['sda', 'sdb'],
    );
    const host = describeHost(MOUNT, node);
    assert.equal(host.volatileCache, true);
    assert.equal(host.driveFua, false);
  });

  test('what sysfs does not say is null, not a guess', () => {
    assert.equal(readBlockDevice('8:99', sysfs), null);
    const loop = readBlockDevice('7:3', sysfs);
    assert.deepEqual(
      [loop?.kind, loop?.detail, loop?.writeCache, loop?.fua],
      ['loop', '/srv/an image.img', null, null],
    );
    const host = describeHost(null, loop);
    assert.deepEqual([host.volatileCache, host.driveFua, host.punchHole], [null, null, null]);
    assert.deepEqual(
      [describeHost(MOUNT, null).volatileCache, describeHost(MOUNT, null).driveFua],
      [null, null],
    );
  });

  test('names that last: of a mapping, of a loop device’s file, of a path', () => {
    const nowhere = join(directory.path, 'by-id');
    assert.equal(stableDeviceId('/dev/dm-0', '253:0', sysfs, nowhere), 'dm-uuid-LVM-abc');
    assert.equal(stableDeviceId('/dev/loop3', '7:3', sysfs, nowhere), 'loop-/srv/an image.img');
    assert.equal(stableDeviceId('/dev/sda', '8:0', sysfs, nowhere), '/dev/sda');
    mkdirSync(nowhere);
    const disk = join(directory.path, 'sda');
    writeFileSync(disk, '');
    symlinkSync(disk, join(nowhere, 'wwn-2'));
    symlinkSync(disk, join(nowhere, 'ata-1'));
    symlinkSync('gone', join(nowhere, 'a'));
    assert.equal(stableDeviceId(disk, '8:0', sysfs, nowhere), 'ata-1');
  });

  test('device numbers are taken apart as the kernel puts them together', () => {
    assert.equal(deviceNumber(0xfe00), '254:0');
    assert.equal(deviceNumber((259n << 8n) | 3n), '259:3');
    assert.equal(deviceNumber(((0x12345n >> 8n) << 20n) | (8n << 8n) | 0x45n), '8:74565');
  });
});

void describe('warnings', () => {
  test('an ordinary host gets none', () => {
    assert.deepEqual(codes(factsWith({}), 'writeback'), []);
    assert.deepEqual(codes(factsWith({}), 'none'), []);
  });

  test('each reason for doubt has its own', () => {
    const on = (mount: Partial<Mount>): HostFacts =>
      factsWith(describeHost({ ...MOUNT, ...mount }, null));
    assert.deepEqual(codes(on({ fileSystem: 'tmpfs' }), 'writethrough'), ['volatile-storage']);
    assert.deepEqual(codes(on({ options: ['rw', 'barrier=0'] }), 'writeback'), ['barriers-off']);
    assert.deepEqual(codes(on({ fileSystem: 'nfs4' }), 'writeback'), ['network']);
    assert.deepEqual(codes(on({ fileSystem: 'fuse.bindfs' }), 'writeback'), ['fuse']);
    assert.deepEqual(codes(on({ fileSystem: 'overlay' }), 'writeback'), ['overlay']);
    assert.deepEqual(codes(on({ fileSystem: 'btrfs' }), 'none'), ['direct-copies']);
    assert.deepEqual(codes(on({ fileSystem: 'btrfs', options: ['nodatacow'] }), 'none'), []);
    assert.deepEqual(codes(on({ fileSystem: 'btrfs' }), 'writeback'), []);
    assert.deepEqual(codes(factsWith({ direct: false }), 'directsync'), ['direct-unavailable']);
    assert.deepEqual(codes(factsWith({ direct: false }), 'writeback'), []);
    assert.deepEqual(codes(factsWith({}), 'unsafe'), ['mode-ignores-flush']);
    const zram = factsWith(describeHost(MOUNT, readBlockDevice('252:0', sysfs)));
    assert.deepEqual(codes(zram, 'writeback'), ['volatile-storage']);
    const loop = factsWith(describeHost(null, readBlockDevice('7:3', sysfs)));
    assert.deepEqual(codes(loop, 'writeback'), ['loop']);
  });

  test('compression on btrfs is seen', () => {
    assert.ok(compressed(['compress=zstd:3']));
    assert.ok(compressed(['compress-force=lzo']));
    assert.ok(compressed(['compress']));
    assert.ok(!compressed(['compress=no']));
    assert.ok(!compressed(['rw']));
  });
});

void describe('this host', () => {
  test('a file can be read about', () => {
    const path = directory.image(MiB);
    const facts = readHost(path);
    assert.equal(facts.kind, 'file');
    assert.equal(facts.sizeBytes, MiB);
    assert.ok(facts.mount !== null && facts.nature !== null);
    assert.ok(facts.realPath.startsWith(facts.mount.mountPoint));
  });

  test('what is no disk is refused', () => {
    assert.throws(() => readHost(directory.path), ConfigError);
    assert.throws(() => readHost(join(directory.path, 'none')), /does not exist/);
  });

  test('kernel releases', () => {
    assert.ok(kernelAtLeast('6.1.0-18-amd64', 4, 7));
    assert.ok(kernelAtLeast('4.7', 4, 7));
    assert.ok(!kernelAtLeast('4.4.302', 4, 7));
    assert.ok(!kernelAtLeast('unknown', 4, 7));
  });
});

void describe('the state of devices', () => {
  test('lies in the service’s directory under an escaped name', () => {
    assert.equal(defaultStateDirectory({}), '/var/lib/holdfast');
    assert.equal(defaultStateDirectory({ STATE_DIRECTORY: '/a:/b' }), '/a');
    assert.equal(escapeId('/dev/sda'), 'sda');
    assert.equal(escapeId('/srv/an image-1'), String.raw`-srv-an\x20image\x2d1`);
    assert.equal(escapeId('../é'), String.raw`..-\xc3\xa9`);
    assert.equal(statePathUnder('/a', '/dev/sda'), '/a/sda.holdfast');
  });
});
