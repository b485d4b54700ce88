import assert from 'node:assert/strict';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import type { DiskCounters } from '../../src/server/config.ts';
import { Guest, GUEST_TOOLS, MACHINES, requiresMachine, SYSTEM } from './guest.ts';
import type { Machine } from './guest.ts';
import { until } from './support/command.ts';
import { makeImage, workspace } from './support/holdfast.ts';
import type { Holdfast } from './support/holdfast.ts';
import {
  discover,
  initiatorGuest,
  INITIATOR_TOOLS,
  IQN,
  logIn,
  nodeAt,
  notePortal,
  startInitiator,
  startIscsi,
} from './support/iscsi.ts';
import type { NodeSettings, Portal } from './support/iscsi.ts';
import {
  assertStampsIn,
  endStamps,
  moreStamps,
  STAMPS_FILES,
  STAMPS_PROGRAMS,
  startStamps,
} from './support/stamps.ts';

// Linux's own initiator, in a guest that reaches this machine over its network card.

const LIMIT_MS = 240_000;
const FILE_SYSTEMS = ['ext4', 'xfs'] as const;
/** mkfs.xfs makes none below 300 MiB. */
const IMAGE_MIB = 384;
const DIGESTS: NodeSettings = {
  'node.conn[0].iscsi.HeaderDigest': 'CRC32C',
  'node.conn[0].iscsi.DataDigest': 'CRC32C',
};
/** What the kernel says when a command fails, a connection breaks that nobody broke, or something hangs. */
const WRONG = /I\/O error|detected conn error|call trace|blocked for more/i;

interface Setup {
  readonly server: Holdfast;
  readonly image: (name: string) => string;
  /** A guest that is logged in, and its disks: ext4's and xfs's. */
  readonly boot: () => Promise<{ guest: Guest; ext4: string; xfs: string }>;
}

/** Two disks of one server as LUN 0 and 1 of one target. */
async function setUp(t: TestContext, machine: Machine): Promise<Setup> {
  const folder = workspace(t);
  const image = (name: string): string => join(folder, `${name}.img`);
  for (const name of FILE_SYSTEMS) makeImage(folder, IMAGE_MIB, 0, `${name}.img`);
  const disks = FILE_SYSTEMS.map((name) => `${name}=${image(name)}`);
  const { server, ports } = await startIscsi(t, disks);
  const portal = { port: ports[0] ?? 0 };
  const programs = ['mkfs.ext4', 'mkfs.xfs', 'e2fsck', 'xfs_repair', 'sdparm'];
  const options = { ...initiatorGuest(['xfs'], programs), machine };
  const boot: Setup['boot'] = async () => {
    const guest = await Guest.boot(t, options);
    await startInitiator(guest, 'one');
    assert.match(await discover(guest, portal), new RegExp(`,1 ${IQN}$`, 'm'));
    await notePortal(guest, portal, DIGESTS);
    const [ext4 = '', xfs = ''] = await logIn(guest, portal, 2);
    return { guest, ext4, xfs };
  };
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

/** How many files were reported, of each file system. */
function filesReported(guest: Guest): Map<string, number> {
  const reported = new Map<string, number>();
  for (const [, fs = '', count] of guest.marks.matchAll(/^\+(\w+)\.(\d+)\n/gm)) {
    reported.set(fs, Number(count));
  }
  return reported;
}

async function moreFiles(guest: Guest, count: number): Promise<void> {
  const before = filesReported(guest);
  await until(`${count} more files`, 60_000, () => {
    const now = filesReported(guest);
    return FILE_SYSTEMS.every((fs) => (now.get(fs) ?? 0) >= (before.get(fs) ?? 0) + count) || null;
  });
}

/** Switches the write cache of a disk by its mode page and lets the driver look. Returns what it sees. */
async function setCache(guest: Guest, disk: string, on: boolean): Promise<string> {
  const name = disk.slice('/dev/'.length);
  // The first command of another initiator, or of this one through another node, hears that the page was changed.
  const text = await guest.succeed(`
    sdparm --quiet --set=WCE=${on ? 1 : 0} ${disk} || sdparm --quiet --set=WCE=${on ? 1 : 0} ${disk}
    echo 1 >/sys/block/${name}/device/rescan
    cat /sys/block/${name}/device/scsi_disk/*/cache_type
  `);
  return text.trim();
}

const WRITES = 32;

function fuaWrites(counters: DiskCounters): number {
  return counters.fuaNative + counters.fuaEmulated;
}

/** Writes without a flush, to the first disk; what they were for the server. */
async function writeDirect(
  guest: Guest,
  server: Holdfast,
  disk: string,
): Promise<{ writes: number; fua: number; unstable: number }> {
  const [before] = await server.counters(2);
  await guest.succeed(`dd if=/dev/urandom of=${disk} bs=4k count=${WRITES} seek=64 oflag=direct`);
  const [after] = await server.counters(2);
  assert.ok(before !== undefined && after !== undefined);
  return {
    writes: after.writes - before.writes,
    fua: fuaWrites(after) - fuaWrites(before),
    unstable: after.unstableWrites,
  };
}

for (const [name, machine] of Object.entries(MACHINES)) {
  const tools = [...GUEST_TOOLS, ...INITIATOR_TOOLS, 'mkfs.ext4', 'mkfs.xfs', 'sdparm'];
  const options = { ...requiresMachine(machine, ...tools), timeout: LIMIT_MS };
  const title = `ext4 and xfs over iSCSI: the write cache is switched under load, power is lost, space is given back [${name}]`;
  test(title, options, async (t) => {
    const { server, image, boot } = await setUp(t, machine);
    const { guest, ext4, xfs } = await boot();
    await guest.succeed(`
      mkdir -p /mnt/ext4 /mnt/xfs
      mkfs.ext4 -q ${ext4}
      mkfs.xfs -q ${xfs}
    `);
    assert.equal(await setCache(guest, ext4, false), 'write through');
    const strict = await writeDirect(guest, server, ext4);
    assert.equal(strict.fua, strict.writes, 'without a write cache an answer means stable');
    assert.equal(await setCache(guest, ext4, true), 'write back');
    const cached = await writeDirect(guest, server, ext4);
    assert.ok(cached.fua === 0 && cached.unstable >= WRITES, 'and with one it does not');
    await guest.succeed(`
      mkfs.ext4 -qF ${ext4}
      mount -t ext4 ${ext4} /mnt/ext4
      mount -t xfs ${xfs} /mnt/xfs
    `);
    await guest.succeed(FSYNC_LOAD);
    await moreFiles(guest, 10);
    for (const on of [false, true, false]) {
      for (const disk of [ext4, xfs]) {
        assert.equal(await setCache(guest, disk, on), on ? 'write back' : 'write through');
      }
      await moreFiles(guest, 10);
    }
    assert.doesNotMatch(guest.console, WRONG);
    await guest.cutPower();
    const reported = filesReported(guest);

    const second = await boot();
    await second.guest.succeed('mkdir -p /mnt/ext4 /mnt/xfs');
    for (const fs of FILE_SYSTEMS) {
      await second.guest.succeed(`
        mount -t ${fs} ${second[fs]} /mnt/${fs}
        for i in $(seq 1 ${reported.get(fs)}); do
          yes "${fs} file $i" | head -c 16384 | cmp - /mnt/${fs}/$i
        done
        dd if=/dev/urandom of=/mnt/${fs}/large bs=1M count=24 conv=fsync
      `);
      const full = statSync(image(fs)).blocks;
      await second.guest.succeed(`rm /mnt/${fs}/large; sync`);
      // xfs frees the blocks of a removed file later.
      await until(`24 MiB of ${fs} to be given back`, 20_000, async () => {
        await second.guest.succeed(`fstrim /mnt/${fs}`);
        return full - statSync(image(fs)).blocks > 40_000 ? true : null;
      });
    }
    await second.guest.succeed(`
      umount /mnt/ext4 /mnt/xfs
      e2fsck -fn ${second.ext4}
      xfs_repair -n ${second.xfs}
      iscsiadm -m node --logoutall=all
    `);
    assert.doesNotMatch(second.guest.console, WRONG);
    await second.guest.shutDown();
    for (const disk of await server.stop()) {
      assert.equal(disk.failed, 0, server.stderr);
      assert.equal(disk.unstableWrites, 0, 'the session that ended left nothing in the cache');
    }
  });
}

/** A multipath device over these disks, round robin, that waits while no path is left. */
function multipathTable(guest: Guest, disks: readonly string[]): Promise<string> {
  const paths = disks.map((disk) => `$(cat /sys/block/${disk.slice(5)}/dev) 1`).join(' ');
  const size = `$(cat /sys/block/${disks[0]?.slice(5)}/size)`;
  const selector = `round-robin 0 ${disks.length} 1 ${paths}`;
  const table = `0 ${size} multipath 1 queue_if_no_path 0 1 1 ${selector}`;
  return guest.succeed(`
    if dmsetup info both >/dev/null 2>&1; then
      dmsetup reload both --table "${table}" && dmsetup resume --noudevsync both
    else
      dmsetup create both --noudevsync --table "${table}"
    fi
  `);
}

const tools = [...GUEST_TOOLS, ...INITIATOR_TOOLS, 'perl', 'dmsetup'];
const pathOptions = { ...requiresMachine(SYSTEM, ...tools), timeout: LIMIT_MS };
test(
  'two paths under load: kill -9 and restarts of Holdfast, and paths that go, lose nothing',
  pathOptions,
  async (t) => {
    const image = makeImage(workspace(t), 64);
    const { server, ports } = await startIscsi(t, [image], { ports: [0, 0] });
    const portals = ports.map((port) => ({ port })) as [Portal, Portal];
    const guest = await Guest.boot(t, {
      ...initiatorGuest(['dm_multipath', 'dm_round_robin'], [...STAMPS_PROGRAMS, 'dmsetup']),
      files: STAMPS_FILES,
    });
    await startInitiator(guest, 'paths');
    await notePortal(guest, portals[0], DIGESTS);
    await notePortal(guest, portals[1]);
    const [first = ''] = await logIn(guest, portals[0]);
    const [second = ''] = await logIn(guest, portals[1]);
    await multipathTable(guest, [first, second]);
    await startStamps(guest, '/dev/dm-0');
    await moreStamps(guest, 50);
    let current = server;
    for (let round = 0; round < 2; round += 1) {
      await current.kill();
      assertStampsIn(image, guest);
      current = (await startIscsi(t, [image], { ports })).server;
      await moreStamps(guest, 50);
    }
    await guest.succeed(`${nodeAt(portals[0])} --logout`);
    await moreStamps(guest, 50);
    const [again = ''] = await logIn(guest, portals[0]);
    await multipathTable(guest, [again, second]);
    await moreStamps(guest, 20);
    await guest.succeed(`${nodeAt(portals[1])} --logout`);
    await moreStamps(guest, 50);
    await endStamps(guest);
    assertStampsIn(image, guest);
    assert.doesNotMatch(guest.console, /call trace|blocked for more/i);
    await guest.shutDown();
    const [counters] = await current.stop();
    assert.equal(counters?.failed, 0, current.stderr);
  },
);

const SG_TOOLS = ['sg_sync', 'sg_modes', 'sg_vpd', 'sg_persist', 'sg_raw', 'sg_logs'] as const;
const sgOptions = {
  ...requiresMachine(SYSTEM, ...GUEST_TOOLS, ...INITIATOR_TOOLS, ...SG_TOOLS),
  timeout: LIMIT_MS,
};
/** sg3_utils' exit status for a reservation conflict, and open-iscsi's for a refused login. */
const SG_RESERVATION_CONFLICT = 24;
const ISCSI_ERR_LOGIN_AUTH_FAILED = 24;
/** Its own: what the target answered is no proof. */
const ISCSI_ERR_FATAL_LOGIN = 19;

function write(disk: string): string {
  return `dd if=/dev/zero of=${disk} bs=4k count=1 oflag=direct`;
}

test(
  'sg3_utils: pages, ranges to sync, reservations of two nexuses that outlive kill -9',
  sgOptions,
  async (t) => {
    const image = makeImage(workspace(t), 64);
    const { server, ports } = await startIscsi(t, [image], { ports: [0, 0] });
    const portals = ports.map((port) => ({ port }));
    const guest = await Guest.boot(t, initiatorGuest([], SG_TOOLS));
    await startInitiator(guest, 'sg');
    const disks: string[] = [];
    for (const portal of portals) {
      await notePortal(guest, portal);
      disks.push(...(await logIn(guest, portal)));
    }
    const [one = '', two = ''] = disks;
    await checkPages(guest, one);
    await checkRanges(guest, one, server);
    await checkGroups(guest, one, two);

    const persist = (text: string): Promise<string> => guest.succeed(`sg_persist -n ${text}`);
    await persist(`--out --register --param-sark=a1 --param-aptpl ${one}`);
    await persist(`--out --register --param-sark=b2 --param-aptpl ${two}`);
    await persist(`--out --reserve --param-rk=a1 --prout-type=1 ${one}`);
    assert.match(await persist(`--read-reservation ${two}`), /Key=0xa1[^]*Write Exclusive/);
    await guest.succeed(write(one));
    assert.notEqual((await guest.run(write(two))).status, 0, 'reserved by another');
    const release = `sg_persist -n --out --reserve --param-rk=b2 --prout-type=1 ${two}`;
    assert.equal((await guest.run(release)).status, SG_RESERVATION_CONFLICT);

    await server.kill();
    const after = await startIscsi(t, [image], { ports });
    assert.match(await guest.succeed(`head -c 4096 ${two} | wc -c`, 90_000), /4096/);
    assert.match(await persist(`--read-reservation ${two}`), /Key=0xa1/, 'it was kept in a file');
    assert.notEqual((await guest.run(write(two))).status, 0, 'still reserved by the other');

    await persist(`--out --preempt --param-rk=b2 --param-sark=a1 --prout-type=1 ${two}`);
    await guest.succeed(write(two));
    // Its first command hears of it, and the kernel says so and tries again.
    assert.notEqual((await guest.run(write(one))).status, 0, 'preempted');
    assert.match(guest.console, /Parameters changed/);
    const keys = await persist(`--read-keys ${one}`);
    assert.match(keys, /0xb2/);
    assert.doesNotMatch(keys, /0xa1/);
    await persist(`--out --clear --param-rk=b2 ${two}`);
    await guest.succeed(write(one));
    await guest.shutDown();
    await after.server.stop();
  },
);

async function checkPages(guest: Guest, disk: string): Promise<void> {
  const limits = await guest.succeed(`sg_vpd -p bl ${disk}`);
  assert.match(limits, /Maximum compare and write length: [1-9]/);
  assert.match(limits, /Optimal unmap granularity: 8 blocks/);
  const thin = await guest.succeed(`sg_vpd -p lbpv ${disk}`);
  assert.match(thin, /LBPU\): 1[^]*LBPRZ\): 1[^]*thin provisioned/);
  const names = await guest.succeed(`sg_vpd -p di ${disk}`);
  assert.match(names, /designator type: NAA,[^]*0x3[0-9a-f]{15}\n/);
  assert.match(names, new RegExp(`${IQN},t,0x0001`));
  // The caching page with WCE, the control page with its TST of one task set.
  const modes = await guest.succeed(`sg_modes --all ${disk}`);
  assert.match(modes, /DpoFua=1/);
  assert.match(modes, /Caching, page_control: current\n 00 {5}08 12 04/);
}

/** Only a range that was written needs a sync, and a sync of a range is one of all. */
async function checkRanges(guest: Guest, disk: string, server: Holdfast): Promise<void> {
  await guest.succeed(`sg_sync ${disk}`);
  await guest.succeed(`dd if=/dev/zero of=${disk} bs=4k count=1 seek=8192 oflag=direct`);
  const written = await server.counter();
  assert.ok(written.unstableWrites > 0);
  await guest.succeed(`sg_sync --lba=0 --count=64 ${disk}`);
  const elsewhere = await server.counter();
  assert.equal(elsewhere.syncs, written.syncs, 'nothing was written there');
  assert.equal(elsewhere.unstableWrites, written.unstableWrites);
  await guest.succeed(`sg_sync --lba=65536 --count=8 ${disk}`);
  const there = await server.counter();
  assert.equal(there.syncs, written.syncs + 1);
  assert.equal(there.unstableWrites, 0);
}

/** READ (10) of eight blocks in group 5, by both paths, and what the log page of the group says. */
async function checkGroups(guest: Guest, ...disks: string[]): Promise<void> {
  for (const disk of disks) {
    await guest.succeed(`sg_raw --request=4096 ${disk} 28 00 00 00 00 00 05 00 08 00`);
  }
  for (const disk of disks) {
    const page = await guest.succeed(`sg_logs --page=0x19,0x5 ${disk}`);
    assert.match(page, /group n number of read commands = 2$/m);
    assert.match(page, /group n number of logical blocks transmitted = 16$/m);
  }
}

const fioOptions = {
  ...requiresMachine(SYSTEM, ...GUEST_TOOLS, ...INITIATOR_TOOLS, 'fio'),
  timeout: LIMIT_MS,
};
test(
  'fio writes at random from several jobs, flushes now and then, and finds what it wrote, also after kill -9 of Holdfast',
  fioOptions,
  async (t) => {
    const image = makeImage(workspace(t), 64);
    const { server, ports } = await startIscsi(t, [image]);
    const portal = { port: ports[0] ?? 0 };
    const guest = await Guest.boot(t, initiatorGuest([], ['fio']));
    await startInitiator(guest, 'fio');
    await notePortal(guest, portal, DIGESTS);
    const [disk = ''] = await logIn(guest, portal);
    const fio = (mode: string): Promise<string> =>
      guest.succeed(
        `fio --name=check --filename=${disk} --direct=1 --rw=randwrite --bsrange=512-64k --size=8M \
          --numjobs=4 --offset_increment=16M --thread --ioengine=pvsync --fdatasync=16 \
          --randseed=7 --verify=crc32c --verify_fatal=1 ${mode}`,
        120_000,
      );
    await fio('--do_verify=1');
    await server.kill();
    const after = await startIscsi(t, [image], { ports });
    // Nothing of it comes from the guest's memory: direct, and what the server has now is what the file has.
    await fio('--verify_only');
    await guest.shutDown();
    const [counters] = await after.server.stop();
    assert.equal(counters?.failed, 0, after.server.stderr);
    assert.ok((counters?.readBytes ?? 0) >= 32 * 2 ** 20, 'all of it was read back');
  },
);

test(
  'CHAP: the right secret, the wrong one, none, and a target that proves itself',
  sgOptions,
  async (t) => {
    const folder = workspace(t);
    const image = makeImage(folder, 64);
    const files = { chap: join(folder, 'chap.txt'), mutual: join(folder, 'mutual.txt') };
    writeFileSync(files.chap, 'guest:a secret of the guest\n', { mode: 0o600 });
    writeFileSync(files.mutual, 'target:a secret of the target\n', { mode: 0o600 });
    const query = `?chap=${files.chap}&mutual-chap=${files.mutual}`;
    const { server, ports } = await startIscsi(t, [image], { query });
    const portal = { port: ports[0] ?? 0 };
    const guest = await Guest.boot(t, initiatorGuest([], []));
    await startInitiator(guest, 'chap');
    const refused = async (
      settings: NodeSettings,
      expected = ISCSI_ERR_LOGIN_AUTH_FAILED,
    ): Promise<void> => {
      await notePortal(guest, portal, settings);
      const { status, output } = await guest.run(`${nodeAt(portal)} --login`);
      assert.equal(status, expected, output);
    };
    await refused({});
    await refused({
      'node.session.auth.authmethod': 'CHAP',
      'node.session.auth.username': 'guest',
      'node.session.auth.password': 'a secret of another',
    });
    await refused({
      'node.session.auth.username': 'another',
      'node.session.auth.password': 'a secret of the guest',
    });
    await notePortal(guest, portal, { 'node.session.auth.username': 'guest' });
    const [once = ''] = await logIn(guest, portal);
    await guest.succeed(`dd if=${once} of=/dev/null bs=64k count=4; ${nodeAt(portal)} --logout`);
    // Now the initiator asks the target for a proof as well.
    await refused(
      {
        'node.session.auth.username_in': 'target',
        'node.session.auth.password_in': 'not what it knows',
      },
      ISCSI_ERR_FATAL_LOGIN,
    );
    await notePortal(guest, portal, { 'node.session.auth.password_in': 'a secret of the target' });
    const [twice = ''] = await logIn(guest, portal);
    await guest.succeed(`dd if=${twice} of=/dev/null bs=64k count=4; ${nodeAt(portal)} --logout`);
    await guest.shutDown();
    await server.stop();
    assert.doesNotMatch(server.stderr + server.stdout, /a secret of/);
  },
);
