import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { MiB } from '../../src/base/units.ts';
import { Guest, GUEST_TOOLS, MACHINES, requiresMachine, SYSTEM } from './guest.ts';
import type { Machine } from './guest.ts';
import { makeImage, workspace } from './support/holdfast.ts';
import type { Holdfast } from './support/holdfast.ts';
import {
  assertStampsIn,
  endStamps,
  moreStamps,
  STAMPS_FILES,
  STAMPS_PROGRAMS,
  startStamps,
} from './support/stamps.ts';
import { startVhostUser, vhostUserDisk } from './support/vhost-user.ts';

const LIMIT_MS = 180_000;
/** What the Linux driver says when a request is completed twice, lost or failed, and what a hung one brings. */
const WRONG = /is not a head|I\/O error|call trace|blocked for more/i;

interface Setup {
  readonly image: string;
  readonly server: Holdfast;
  readonly guest: Guest;
  /** Starts Holdfast anew where it was. */
  readonly again: () => Promise<Holdfast>;
}

async function setUp(
  t: TestContext,
  machine: Machine,
  packed: boolean,
  cache = 'writeback',
): Promise<Setup> {
  const folder = workspace(t);
  const image = makeImage(folder, 64);
  const socket = join(folder, 'blk.sock');
  const again = (): Promise<Holdfast> => startVhostUser(t, [image, '--cache', cache], { socket });
  const server = await again();
  const guest = await Guest.boot(t, {
    machine,
    processors: 2,
    devices: vhostUserDisk(socket, machine, { queues: 2, packed, reconnect: true }),
    files: STAMPS_FILES,
    programs: STAMPS_PROGRAMS,
  });
  return { image, server, guest, again };
}

for (const [name, machine] of Object.entries(MACHINES)) {
  for (const packed of [false, true]) {
    const options = { ...requiresMachine(machine, ...GUEST_TOOLS, 'perl'), timeout: LIMIT_MS };
    const rings = packed ? 'packed' : 'split';
    const title = `a guest goes on over restarts of Holdfast, and after its kill -9 under load: ${rings} rings, ${name}`;
    test(title, options, async (t) => {
      const { image, server, guest, again } = await setUp(t, machine, packed);
      await startStamps(guest);
      await moreStamps(guest, 50);
      let current = server;
      for (let round = 0; round < 3; round += 1) {
        await current.kill();
        assertStampsIn(image, guest);
        current = await again();
        await moreStamps(guest, 50);
      }
      await current.stop();
      assertStampsIn(image, guest);
      current = await again();
      await moreStamps(guest, 50);
      await endStamps(guest);
      assertStampsIn(image, guest);
      assert.doesNotMatch(guest.console, WRONG);
      await guest.shutDown();
      const [counters] = await current.stop();
      assert.equal(counters?.failed, 0, current.stderr);
    });
  }
}

const onSystem = { ...requiresMachine(SYSTEM, ...GUEST_TOOLS, 'perl'), timeout: LIMIT_MS };

test('QEMU is killed: what the guest was told is stable is in the image', onSystem, async (t) => {
  for (const cache of ['writeback', 'none']) {
    const { image, server, guest } = await setUp(t, SYSTEM, cache === 'none', cache);
    await startStamps(guest);
    await moreStamps(guest, 200);
    await guest.cutPower();
    const [counters] = await server.stop();
    assertStampsIn(image, guest);
    assert.equal(counters?.failed, 0, server.stderr);
    assert.ok((counters?.flushesAsked ?? 0) > 0 && (counters?.syncs ?? 0) > 0);
  }
});

test('kill -9: what was acknowledged and not flushed is in the page cache', onSystem, async (t) => {
  const { image, server, guest, again } = await setUp(t, SYSTEM, false);
  await guest.succeed(`
    yes acknowledged | head -c 1048576 > /tmp/data
    dd if=/tmp/data of=/dev/vda bs=64k oflag=direct conv=notrunc 2>/dev/null
  `);
  const counters = await server.counter();
  assert.ok(counters.unstableWrites > 0, 'nothing was flushed');
  await server.kill();
  const wanted = Buffer.from('acknowledged\n'.repeat(Math.ceil(MiB / 13))).subarray(0, MiB);
  assert.ok(readFileSync(image).subarray(0, MiB).equals(wanted));
  const second = await again();
  assert.equal(
    await guest.succeed('head -c 1048576 /dev/vda | cmp - /tmp/data && echo same'),
    'same\n',
  );
  await guest.shutDown();
  await second.stop();
});
