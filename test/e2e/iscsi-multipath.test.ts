import assert from 'node:assert/strict';
import test from 'node:test';
import { Guest, GUEST_TOOLS, requiresMachine, SYSTEM } from './guest.ts';
import { until } from './support/command.ts';
import { makeImage, workspace } from './support/holdfast.ts';
import {
  initiatorGuest,
  INITIATOR_TOOLS,
  logIn,
  nodeAt,
  notePortal,
  startInitiator,
  startIscsi,
} from './support/iscsi.ts';
import {
  assertStampsIn,
  endStamps,
  moreStamps,
  STAMPS_FILES,
  STAMPS_PROGRAMS,
  startStamps,
} from './support/stamps.ts';

// multipathd puts two paths together by what the disk says of itself, and goes on with the one that is left.

const LIMIT_MS = 240_000;
/** What it loads when it needs it, at the place where Debian has it. */
const LOADED = [
  '/lib/multipath/libchecktur.so',
  '/lib/multipath/libprioconst.so',
  '/lib/x86_64-linux-gnu/libgcc_s.so.1',
];
const CONFIG = `
defaults {
  find_multipaths no
  path_checker tur
  polling_interval 1
  no_path_retry queue
  path_selector "round-robin 0"
  path_grouping_policy multibus
}
blacklist {
  devnode "^(ram|loop|vd|dm-)"
}
`;

/** There is no udev in the guest: what it would note of a disk is the kernel's name for it, from its identification page. */
async function noteDisks(guest: Guest, disks: readonly string[]): Promise<void> {
  for (const disk of disks) {
    const block = `/sys/block/${disk.slice('/dev/'.length)}`;
    await guest.succeed(`
      mkdir -p /run/udev/data
      wwid=$(tr ' ' _ <${block}/device/wwid)
      printf 'I:1\\nE:ID_SERIAL=%s\\nE:ID_WWN=%s\\n' "$wwid" "$wwid" >/run/udev/data/b$(cat ${block}/dev)
    `);
  }
}

/** Waits until it takes exactly these disks for paths that work, of one map. */
async function pathsAre(guest: Guest, disks: readonly string[]): Promise<void> {
  const wanted = disks.map((disk) => disk.slice('/dev/'.length)).toSorted();
  let last = '';
  await until(`multipathd to use ${wanted.join(' and ')}`, 60_000, async () => {
    last = (await guest.run('multipathd show maps topology')).output;
    assert.ok((last.match(/ dm-\d/g) ?? []).length <= 1, `more than one disk: ${last}`);
    const active = [...last.matchAll(/(sd\w+) +\d+:\d+ +active ready running/g)];
    const found = active.map(([, name = '']) => name).toSorted();
    return found.join() === wanted.join() ? true : null;
  }).catch((error: unknown) => {
    throw new Error(`multipathd has: ${last}`, { cause: error });
  });
}

const tools = [...GUEST_TOOLS, ...INITIATOR_TOOLS, 'perl', 'multipathd'];
const options = { ...requiresMachine(SYSTEM, ...tools), timeout: LIMIT_MS };
test(
  'multipathd: two portals are two paths to one disk; kill -9 of Holdfast and paths that go and come lose nothing',
  options,
  async (t) => {
    const image = makeImage(workspace(t), 64);
    const { server, ports } = await startIscsi(t, [image], { ports: [0, 0] });
    const [one, two] = ports.map((port) => ({ port }));
    assert.ok(one !== undefined && two !== undefined);
    const guest = await Guest.boot(t, {
      ...initiatorGuest(['dm_multipath', 'dm_round_robin'], [...STAMPS_PROGRAMS, 'multipathd']),
      files: { ...STAMPS_FILES, ...Object.fromEntries(LOADED.map((path) => [path, path])) },
    });
    await startInitiator(guest, 'multipath');
    await notePortal(guest, one);
    await notePortal(guest, two);
    const [first = ''] = await logIn(guest, one);
    const [second = ''] = await logIn(guest, two);
    await noteDisks(guest, [first, second]);
    await guest.succeed(`mkdir -p /etc/multipath; cat >/etc/multipath.conf <<'END'${CONFIG}END`);
    await guest.succeed('multipathd -d -v2 >/tmp/multipathd.log 2>&1 &');
    await pathsAre(guest, [first, second]);

    await startStamps(guest, '/dev/dm-0');
    await moreStamps(guest, 50);
    await server.kill();
    assertStampsIn(image, guest);
    const after = await startIscsi(t, [image], { ports });
    await moreStamps(guest, 50);
    await pathsAre(guest, [first, second]);

    await guest.succeed(`${nodeAt(one)} --logout`);
    await moreStamps(guest, 50);
    const [again = ''] = await logIn(guest, one);
    await noteDisks(guest, [again]);
    // Nobody tells it of new disks: udev would.
    await guest.succeed(`multipathd add path ${again.slice('/dev/'.length)}`);
    await pathsAre(guest, [again, second]);
    await guest.succeed(`${nodeAt(two)} --logout`);
    await moreStamps(guest, 50);
    await endStamps(guest);
    assertStampsIn(image, guest);
    assert.doesNotMatch(guest.console, /call trace|blocked for more/i);
    await guest.shutDown();
    const [counters] = await after.server.stop();
    assert.equal(counters?.failed, 0, after.server.stderr);
  },
);
