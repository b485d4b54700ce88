import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { Guest, GUEST_TOOLS, MACHINES, requiresMachine, SYSTEM } from './guest.ts';
import type { Machine } from './guest.ts';
import { succeed, until } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';
import type { Holdfast } from './support/holdfast.ts';
import { vhostUserDisk } from './support/vhost-user.ts';

const LIMIT_MS = 240_000;
const FILE_SYSTEMS = ['ext4', 'xfs'] as const;
/** mkfs.xfs makes none below 300 MiB. */
const IMAGE_MIB = 384;
/** More than lies below the hole of the PC's address space: the guest's memory is two regions. */
const MEMORY_MIB = 5 * 1024;

interface Setup {
  readonly server: Holdfast;
  readonly image: (name: string) => string;
  readonly boot: () => Promise<Guest>;
}

/** Two disks of one server: ext4 with split rings, xfs with packed ones. */
async function setUp(t: TestContext, machine: Machine): Promise<Setup> {
  const folder = workspace(t);
  const image = (name: string): string => join(folder, `${name}.img`);
  const socket = (name: string): string => join(folder, `${name}.sock`);
  const places: string[] = [];
  const devices: string[] = [];
  for (const [index, name] of FILE_SYSTEMS.entries()) {
    makeImage(folder, IMAGE_MIB, 0, `${name}.img`);
    places.push('--listen', `vhost-user-blk:${socket(name)}?export=${name}&serial=disk-${name}`);
    const options = { index, queues: 2, packed: name === 'xfs' };
    devices.push(...vhostUserDisk(socket(name), machine, options));
  }
  const disks = FILE_SYSTEMS.map((name) => `${name}=${image(name)}`);
  const server = await startHoldfast(t, [...disks, ...places], { readyLine: /vhost-user-blk/ });
  const boot = (): Promise<Guest> =>
    Guest.boot(t, {
      machine,
      devices,
      memoryMib: MEMORY_MIB,
      processors: 2,
      modules: ['xfs'],
      programs: ['mkfs.ext4', 'mkfs.xfs', 'e2fsck', 'xfs_repair', 'blkdiscard'],
    });
  return { server, image, boot };
}

/** Files of 16 KiB, each synced and then reported. */
const FSYNC_LOAD = `
for fs in ${FILE_SYSTEMS.join(' ')}; do
  i=0
  while true; do
    i=$((i + 1))
    yes "$fs file $i" | head -c 16384 | dd of=/mnt/$fs/$i bs=16k iflag=fullblock conv=fsync 2>/dev/null || break
    echo "+$fs.$i" >/dev/ttyS2
  done &
done
`;

async function checkFiles(guest: Guest, reported: ReadonlyMap<string, number>): Promise<void> {
  for (const [fs, count] of reported) {
    await guest.succeed(`
      mount -t ${fs} /dev/${fs === 'ext4' ? 'vda' : 'vdb'} /mnt/${fs}
      for i in $(seq 1 ${count}); do
        yes "${fs} file $i" | head -c 16384 | cmp - /mnt/${fs}/$i
      done
    `);
  }
}

for (const [name, machine] of Object.entries(MACHINES)) {
  const tools = [...GUEST_TOOLS, 'mkfs.ext4', 'mkfs.xfs', 'blkdiscard'];
  const options = { ...requiresMachine(machine, ...tools), timeout: LIMIT_MS };
  test(`ext4 and xfs lose power, are whole, and give space back [${name}]`, options, async (t) => {
    const { server, image, boot } = await setUp(t, machine);
    const first = await boot();
    await first.succeed(`
      mkdir -p /mnt/ext4 /mnt/xfs
      mkfs.ext4 -q /dev/vda
      mkfs.xfs -q /dev/vdb
      mount -t ext4 /dev/vda /mnt/ext4
      mount -t xfs /dev/vdb /mnt/xfs
    `);
    for (const [letter, fs] of [
      ['a', 'ext4'],
      ['b', 'xfs'],
    ] as const) {
      const queue = `/sys/block/vd${letter}`;
      assert.equal(await first.succeed(`cat ${queue}/serial`), `disk-${fs}`);
      assert.equal(await first.succeed(`ls ${queue}/mq`), '0\n1\n', 'two queues');
      assert.equal((await first.succeed(`cat ${queue}/ro`)).trim(), '0');
    }
    await first.succeed(FSYNC_LOAD);
    await first.mark(/^\+ext4\.30$/m);
    await first.mark(/^\+xfs\.30$/m);
    await first.cutPower();
    const reported = new Map<string, number>();
    for (const [, fs = '', count] of first.marks.matchAll(/^\+(\w+)\.(\d+)\n/gm)) {
      reported.set(fs, Number(count));
    }
    assert.deepEqual([...reported.keys()].toSorted(), [...FILE_SYSTEMS]);

    const second = await boot();
    await second.succeed('mkdir -p /mnt/ext4 /mnt/xfs');
    await checkFiles(second, reported);
    for (const fs of FILE_SYSTEMS) {
      await second.succeed(`dd if=/dev/urandom of=/mnt/${fs}/large bs=1M count=24 conv=fsync`);
      const full = statSync(image(fs)).blocks;
      await second.succeed(`rm /mnt/${fs}/large; sync`);
      // xfs frees the blocks of a removed file later.
      await until(`24 MiB of ${fs} to be given back`, 20_000, async () => {
        await second.succeed(`fstrim /mnt/${fs}`);
        return full - statSync(image(fs)).blocks > 40_000 ? true : null;
      });
    }
    await second.succeed(`
      umount /mnt/ext4 /mnt/xfs
      e2fsck -fn /dev/vda
      xfs_repair -n /dev/vdb
      /usr/sbin/blkdiscard -z -l 16M /dev/vda
      blkdiscard /dev/vdb
      [ "$(head -c 16M /dev/vda | tr -d '\\0' | wc -c)" = 0 ]
    `);
    assert.ok(statSync(image('xfs')).blocks < 100, 'a discard of everything leaves nothing');
    assert.doesNotMatch(second.console, /is not a head|I\/O error|call trace/i);
    await second.shutDown();
    const counters = await server.stop();
    assert.deepEqual(
      counters.map((disk) => [disk.failed, disk.discards > 0, disk.unstableWrites]),
      [
        [0, true, 0],
        [0, true, 0],
      ],
    );
    assert.ok((counters[0]?.zeroes ?? 0) > 0, 'zeroes were written as such');
  });
}

const onSystem = { ...requiresMachine(SYSTEM, ...GUEST_TOOLS), timeout: LIMIT_MS };

test('a disk that is only read', onSystem, async (t) => {
  const folder = workspace(t);
  const image = makeImage(folder, 8, 8);
  const socket = join(folder, 'blk.sock');
  await startHoldfast(t, [image, '-r', '--listen', `vhost-user-blk:${socket}`], {
    readyLine: /vhost-user-blk/,
  });
  const guest = await Guest.boot(t, { devices: vhostUserDisk(socket, SYSTEM) });
  assert.equal((await guest.succeed('cat /sys/block/vda/ro')).trim(), '1');
  const write = await guest.run('dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync');
  assert.notEqual(write.status, 0, write.output);
  const [sum] = (await succeed(['sha256sum', image])).split(' ');
  assert.equal((await guest.succeed('sha256sum /dev/vda')).split(' ')[0], sum);
  await guest.shutDown();
});
