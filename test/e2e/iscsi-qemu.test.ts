import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { MiB } from '../../src/base/units.ts';
import { Guest, GUEST_TOOLS, MACHINES, requiresMachine } from './guest.ts';
import { BOOTABLE_TOOLS, bootableImages } from './support/bootable.ts';
import { onBothReactors } from './support/both.ts';
import { run, succeed } from './support/command.ts';
import { makeImage, workspace } from './support/holdfast.ts';
import { IQN, iscsiUrl, startIscsi } from './support/iscsi.ts';
import { QEMU_ISCSI, requires, tool } from './support/requires.ts';

// QEMU's own initiator: its tools, and guests whose disks it attaches.

/** Runs qemu-io commands; a pattern that does not verify fails it. */
async function qemuIo(url: string, ...commands: readonly string[]): Promise<string> {
  const flags = commands.flatMap((command) => ['-c', command]);
  const text = await succeed(['qemu-io', '-f', 'raw', '-d', 'unmap', '-t', 'none', ...flags, url]);
  assert.doesNotMatch(text, /failed|error/i);
  return text;
}

onBothReactors(
  'qemu-io over iSCSI: writes, zeroes and discards read back',
  ['qemu-io', QEMU_ISCSI],
  async (t, reactor) => {
    const image = makeImage(workspace(t), 64);
    const { server, ports } = await startIscsi(t, [image], { reactor });
    const url = iscsiUrl(ports[0] ?? 0);
    await qemuIo(
      url,
      'write -P 0x11 0 1M',
      'write -P 0x22 512k 4k',
      'write -P 0x23 600k 512',
      'write -z 64k 64k',
      'write -z -u 128k 64k',
      'aio_write -P 0x33 2M 1M',
      'aio_write -P 0x44 3M 1M',
      'aio_write -P 0x55 8M 16M',
      'aio_flush',
      'flush',
      'read -P 0x11 0 64k',
      'read -P 0 64k 128k',
      'read -P 0x22 512k 4k',
      'read -P 0x23 600k 512',
      'read -P 0x11 615424 1k',
      'read -P 0x33 2M 1M',
      'read -P 0x44 3M 1M',
      'read -P 0x55 8M 16M',
      'read -P 0 32M 16M',
    );
    const full = statSync(image).blocks;
    await qemuIo(url, 'discard 8M 16M', 'flush', 'read -P 0x11 516k 4k', 'read -P 0 8M 16M');
    assert.ok(statSync(image).blocks * 512 <= full * 512 - 16 * MiB + 8192, 'space is given back');
    const [counters] = await server.stop();
    assert.ok((counters?.discards ?? 0) + (counters?.zeroes ?? 0) >= 3);
    assert.equal(counters?.failed, 0, server.stderr);
  },
);

onBothReactors(
  'qemu-img over iSCSI: what is converted in and out is the same, and sparse',
  ['qemu-img', QEMU_ISCSI],
  async (t, reactor) => {
    const folder = workspace(t);
    const source = makeImage(folder, 64, 24, 'source.img');
    const target = makeImage(folder, 64, 0, 'target.img');
    const { server, ports } = await startIscsi(t, [`source=${source}`, `target=${target}`], {
      reactor,
    });
    const port = ports[0] ?? 0;
    const [from, to] = [iscsiUrl(port, 0), iscsiUrl(port, 1)];
    await succeed(['qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', from, to]);
    const compare = ['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', from, to];
    const same = await run(compare);
    assert.equal(same.status, 0, same.stdout + same.stderr);
    assert.ok(readFileSync(source).equals(readFileSync(target)));
    assert.ok(statSync(target).blocks * 512 < 30 * MiB, 'the copy is sparse');
    await qemuIo(to, 'write -P 1 40M 512');
    assert.equal((await run(compare)).status, 1, 'one byte more makes a difference');
    const text = await succeed(['qemu-img', 'map', '--output=json', '-f', 'raw', from]);
    const map = JSON.parse(text) as { start: number; length: number; zero: boolean }[];
    const zeroes = map.filter(({ zero }) => zero).reduce((sum, { length }) => sum + length, 0);
    assert.equal(zeroes, 40 * MiB, 'GET LBA STATUS tells the hole');
    for (const counters of await server.stop()) {
      assert.equal(counters.failed, 0, server.stderr);
      assert.equal(counters.unstableWrites, 0);
    }
  },
);

onBothReactors(
  'qemu-io over iSCSI: FUA is FUA, and a flush is a sync only once',
  ['qemu-io', QEMU_ISCSI],
  async (t, reactor) => {
    const image = makeImage(workspace(t), 16);
    const { server, ports } = await startIscsi(t, [image], { reactor });
    const url = iscsiUrl(ports[0] ?? 0);
    const start = await server.counter();
    await qemuIo(url, 'write -f -P 0x55 0 4k', 'read -P 0x55 0 4k');
    const fua = await server.counter();
    assert.equal(fua.fuaNative + fua.fuaEmulated, start.fuaNative + start.fuaEmulated + 1);
    assert.equal(fua.unstableWrites, 0, 'a FUA write leaves nothing unstable');
    await qemuIo(url, 'write -P 0x66 4k 4k', 'flush', 'flush', 'flush');
    const flushed = await server.counter();
    assert.equal(flushed.syncs, fua.syncs + 1, 'the write was made stable, once');
    assert.equal(flushed.unstableWrites, 0);
    await server.stop();
  },
);

test(
  'qemu-io over iSCSI: strace sees a sync for each written flush and no other [portable]',
  { ...requires('strace', 'qemu-io', QEMU_ISCSI), timeout: 120_000 },
  async (t) => {
    const folder = workspace(t);
    const trace = join(folder, 'trace');
    const under = [tool('strace'), '-f', '-y', '-qq', '-e', 'trace=fdatasync,fsync', '-o', trace];
    const image = makeImage(folder, 16);
    const { ports } = await startIscsi(t, [image], { reactor: 'portable', under });
    const syncs = (): number =>
      (readFileSync(trace, 'utf8').match(/\b(?:fdatasync|fsync)\(\d+<[^>]*disk\.img>/g) ?? [])
        .length;
    const before = syncs();
    const rounds = Array.from({ length: 10 }, (_, i) => [`write ${i * 8}k 4k`, 'flush', 'flush']);
    await qemuIo(iscsiUrl(ports[0] ?? 0), ...rounds.flat());
    assert.equal(syncs() - before, 10, 'ten writes, twenty flushes, ten syncs');
  },
);

/** What the firmware boots and the kernel has as its root are virtio disks; the third it drives over SCSI itself. */
for (const [name, machine] of Object.entries(MACHINES)) {
  const tools = [...GUEST_TOOLS, ...BOOTABLE_TOOLS, QEMU_ISCSI];
  const options = { ...requiresMachine(machine, ...tools), timeout: 180_000 };
  test(`a machine boots from iSCSI, and passes SCSI through [${name}]`, options, async (t) => {
    const folder = workspace(t);
    const modules = ['virtio_scsi', 'sd_mod'];
    const images = await bootableImages(folder, machine.kernel, {
      modules,
      programs: ['mkfs.ext4', 'e2fsck'],
    });
    const plain = makeImage(folder, 64);
    const disks = [`boot=${images.boot}`, `root=${images.root}`, `plain=${plain}`];
    const { server, ports } = await startIscsi(t, disks);
    const blockdev = (lun: number): string[] => [
      '-blockdev',
      [
        `driver=iscsi,node-name=lun${lun},transport=tcp,portal=127.0.0.1:${ports[0]}`,
        `target=${IQN},lun=${lun},initiator-name=iqn.2026-11.org.example:qemu`,
      ].join(','),
    ];
    const cards = [
      'virtio-blk-pci,drive=lun0,bootindex=0',
      'virtio-blk-pci,drive=lun1',
      'virtio-scsi-pci',
      'scsi-block,drive=lun2',
    ];
    const guest = await Guest.boot(t, {
      machine,
      fromDisk: true,
      devices: [...[0, 1, 2].flatMap(blockdev), ...cards.flatMap((card) => ['-device', card])],
    });
    assert.match(await guest.succeed('mount'), /^\/dev\/vdb on \/ type ext4/m);
    const caches = 'cat /sys/block/vd?/queue/write_cache /sys/class/scsi_disk/*/cache_type';
    assert.equal(await guest.succeed(caches), 'write back\nwrite back\nwrite back\n');
    assert.match(await guest.succeed('cat /sys/block/sda/device/vendor'), /^HOLDFAST/);
    await guest.succeed(`
      mkfs.ext4 -q /dev/sda
      mount -t ext4 /dev/sda /mnt
      dd if=/dev/urandom of=/mnt/large bs=1M count=20 conv=fsync
      sha256sum /mnt/large >/mnt/sum
      echo kept >/kept
      sync
    `);
    await guest.reset();
    assert.equal(await guest.succeed('cat /kept'), 'kept\n');
    const full = statSync(plain).blocks;
    await guest.succeed(`
      mount -t ext4 /dev/sda /mnt
      cd /mnt
      sha256sum -c sum
      rm large
      sync
      fstrim /mnt
      cd /
      umount /mnt
      e2fsck -fn /dev/sda
    `);
    assert.ok(full - statSync(plain).blocks > 30_000, '20 MiB were given back');
    assert.doesNotMatch(guest.console, /I\/O error|call trace/i);
    await guest.shutDown();
    for (const counters of await server.stop()) assert.equal(counters.failed, 0, server.stderr);
  });
}
