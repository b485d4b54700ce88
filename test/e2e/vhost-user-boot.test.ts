import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { Guest, GUEST_TOOLS, MACHINES } from './guest.ts';
import { BOOTABLE_TOOLS, bootableImages } from './support/bootable.ts';
import { workspace } from './support/holdfast.ts';
import { startVhostUser, vhostUserDisk } from './support/vhost-user.ts';
import { requiresMachine } from './guest.ts';

const LIMIT_MS = 180_000;

for (const [name, machine] of Object.entries(MACHINES)) {
  const tools = [...GUEST_TOOLS, ...BOOTABLE_TOOLS];
  const options = { ...requiresMachine(machine, ...tools), timeout: LIMIT_MS };
  test(
    `SeaBIOS, a boot loader and Linux, one after the other on one connection [${name}]`,
    options,
    async (t) => {
      const folder = workspace(t);
      const images = await bootableImages(folder, machine.kernel);
      const sockets = { boot: join(folder, 'boot.sock'), root: join(folder, 'root.sock') };
      const server = await startVhostUser(
        t,
        [
          `boot=${images.boot}`,
          `root=${images.root}`,
          '--listen',
          `vhost-user-blk:${sockets.root}?export=root`,
        ],
        { socket: sockets.boot, query: '?export=boot' },
      );
      const guest = await Guest.boot(t, {
        machine,
        fromDisk: true,
        devices: [
          ...vhostUserDisk(sockets.boot, machine, { bootable: true }),
          ...vhostUserDisk(sockets.root, machine, { index: 1, queues: 2 }),
        ],
      });
      assert.match(guest.console, /SeaBIOS[^]*SYSLINUX[^]*Loading vmlinuz/, 'read by the firmware');
      assert.match(await guest.succeed('mount'), /^\/dev\/vdb on \/ type ext4/m);
      // The firmware sees no flush and no switch of the cache; what it left behind is not what Linux is told.
      const caches = await guest.succeed('cat /sys/block/vd?/queue/write_cache');
      assert.equal(caches, 'write back\nwrite back\n');
      await guest.succeed('echo kept >/kept; sync');
      await guest.reset();
      assert.equal(await guest.succeed('cat /kept; umount /mnt 2>/dev/null || true'), 'kept\n');
      const log = guest.console;
      assert.doesNotMatch(log, /I\/O error|is not a head|call trace/i);
      await guest.shutDown();
      const counters = await server.stop();
      assert.deepEqual(
        counters.map((disk) => disk.failed),
        [0, 0],
      );
    },
  );
}
