import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { CACHE_MODES } from '../../src/durability/modes.ts';
import type { CacheMode } from '../../src/durability/modes.ts';
import type { DiskCounters } from '../../src/server/config.ts';
import { Guest, GUEST_TOOLS, MACHINES, NEWEST, requiresMachine } from './guest.ts';
import { makeImage, workspace } from './support/holdfast.ts';
import type { Holdfast } from './support/holdfast.ts';
import { startVhostUser, vhostUserDisk } from './support/vhost-user.ts';

const LIMIT_MS = 180_000;
const ON = 'write back';
const OFF = 'write through';

/** What a guest has to see: whether it must flush. In unsafe it is not offered a flush that would not be done. */
const SEEN: Readonly<Record<CacheMode, string>> = {
  writeback: ON,
  none: ON,
  'until-flush': ON,
  writethrough: OFF,
  directsync: OFF,
  unsafe: OFF,
};

/** What an instant at the disk and a later one differ in. */
function between(before: DiskCounters, after: DiskCounters): Record<string, number> {
  return {
    writes: after.writes - before.writes,
    flushesAsked: after.flushesAsked - before.flushesAsked,
    fua: after.fuaNative + after.fuaEmulated - (before.fuaNative + before.fuaEmulated),
    unstable: after.unstableWrites,
  };
}

/** Eight requests to write past the guest's page cache, without asking for stability. */
async function writeEight(guest: Guest, letter: string): Promise<void> {
  await guest.succeed(
    `dd if=/dev/zero of=/dev/vd${letter} bs=4k count=8 oflag=direct conv=notrunc 2>/dev/null`,
  );
}

class Disks {
  readonly guest: Guest;
  readonly servers: Map<CacheMode, Holdfast>;
  readonly #start: (mode: CacheMode) => Promise<Holdfast>;

  constructor(
    guest: Guest,
    servers: Map<CacheMode, Holdfast>,
    start: (mode: CacheMode) => Promise<Holdfast>,
  ) {
    this.guest = guest;
    this.servers = servers;
    this.#start = start;
  }

  /** kill -9, and another in its place. */
  async restart(mode: CacheMode): Promise<void> {
    await this.servers.get(mode)?.kill();
    this.servers.set(mode, await this.#start(mode));
  }

  letter(mode: CacheMode): string {
    return 'abcdef'[[...this.servers.keys()].indexOf(mode)] ?? '?';
  }

  /** The block layer's opinion and the device's own, which the driver reads anew. */
  async seen(mode: CacheMode): Promise<string[]> {
    const folder = `/sys/block/vd${this.letter(mode)}`;
    const text = await this.guest.succeed(`cat ${folder}/queue/write_cache ${folder}/cache_type`);
    return text.trim().split('\n');
  }

  async switchTo(mode: CacheMode, value: string): Promise<void> {
    await this.guest.succeed(`echo "${value}" > /sys/block/vd${this.letter(mode)}/cache_type`);
    assert.deepEqual(await this.seen(mode), [value, value], `${mode} switched to ${value}`);
  }

  async writes(mode: CacheMode): Promise<Record<string, number>> {
    const server = this.servers.get(mode) as Holdfast;
    const before = await server.counter();
    await writeEight(this.guest, this.letter(mode));
    return between(before, await server.counter());
  }
}

/** Each write is made stable before it completes, without a flush of the guest's. */
async function assertStrict(disks: Disks, mode: CacheMode): Promise<void> {
  const did = await disks.writes(mode);
  assert.ok((did['writes'] ?? 0) > 0, `${mode}: ${JSON.stringify(did)}`);
  assert.equal(did['fua'], did['writes'], `${mode}: ${JSON.stringify(did)}`);
  assert.equal(did['flushesAsked'], 0, `${mode}: ${JSON.stringify(did)}`);
}

/** The guest has switched the cache off, and a Holdfast comes that was not there when it did. */
async function strictAfterRestart(disks: Disks, mode: CacheMode): Promise<void> {
  await disks.restart(mode);
  assert.equal((await disks.seen(mode))[0], OFF);
  await assertStrict(disks, mode);
}

for (const [name, machine] of Object.entries(MACHINES)) {
  const options = { ...requiresMachine(machine, ...GUEST_TOOLS), timeout: LIMIT_MS };
  test(
    `the write cache as a guest sees it and switches it, in all modes [${name}]`,
    options,
    async (t) => {
      const folder = workspace(t);
      const start = (mode: CacheMode): Promise<Holdfast> => {
        const image = join(folder, `${mode}.img`);
        const socket = join(folder, `${mode}.sock`);
        return startVhostUser(t, [image, '--cache', mode], { socket });
      };
      const servers = new Map<CacheMode, Holdfast>();
      const devices: string[] = [];
      for (const [index, mode] of (Object.keys(CACHE_MODES) as CacheMode[]).entries()) {
        makeImage(folder, 16, 0, `${mode}.img`);
        const server = await start(mode);
        servers.set(mode, server);
        devices.push(...vhostUserDisk(server.socket, machine, { index, reconnect: true }));
      }
      const guest = await Guest.boot(t, { machine, devices });
      const disks = new Disks(guest, servers, start);
      for (const [mode, seen] of Object.entries(SEEN) as [CacheMode, string][]) {
        assert.deepEqual(await disks.seen(mode), [seen, seen], mode);
      }

      // With the cache on, writes complete before they are stable; until-flush waits for a sign that the guest flushes.
      for (const mode of ['writeback', 'none'] as const) {
        const did = await disks.writes(mode);
        assert.ok((did['writes'] ?? 0) > 0 && (did['unstable'] ?? 0) > 0, JSON.stringify(did));
        assert.equal(did['fua'], 0, `${mode}: ${JSON.stringify(did)}`);
      }
      for (const mode of ['writethrough', 'directsync', 'until-flush'] as const) {
        await assertStrict(disks, mode);
      }

      for (const mode of ['writeback', 'none', 'until-flush'] as const) {
        await disks.switchTo(mode, OFF);
        const at = await (servers.get(mode) as Holdfast).counter();
        assert.equal(at.unstableWrites, 0, `P4 ${mode}: the switch covers what came before it`);
        await assertStrict(disks, mode);
      }
      for (const mode of ['writethrough', 'directsync'] as const) {
        await disks.switchTo(mode, ON);
        const did = await disks.writes(mode);
        assert.ok((did['unstable'] ?? 0) > 0, `${mode}, switched on: ${JSON.stringify(did)}`);
        await guest.succeed(`blockdev --flushbufs /dev/vd${disks.letter(mode)}`);
        await guest.succeed(
          `dd if=/dev/zero of=/dev/vd${disks.letter(mode)} bs=4k count=1 conv=notrunc,fsync`,
        );
        const after = await (servers.get(mode) as Holdfast).counter();
        assert.ok(after.flushesAsked > 0, `${mode}: Linux flushes from then on`);
        assert.equal(after.unstableWrites, 0);
      }

      await strictAfterRestart(disks, 'writeback');
      await guest.reset();
      for (const [mode, seen] of Object.entries(SEEN) as [CacheMode, string][]) {
        const now = await disks.seen(mode);
        // QEMU 7.2 shows the next driver the byte that the last one wrote: then that has to be the truth.
        if (machine === NEWEST) assert.deepEqual(now, [seen, seen], `${mode} after a reset`);
        if (now[0] === OFF && mode !== 'unsafe') await assertStrict(disks, mode);
      }
      await guest.shutDown();
      for (const [mode, server] of servers) {
        const [counters] = await server.stop();
        assert.equal(counters?.failed, 0, `${mode}: ${server.stderr}`);
      }
    },
  );
}
