import assert from 'node:assert/strict';
import test from 'node:test';
import { makeImage, REACTORS, startHoldfast, workspace } from './support/holdfast.ts';
import { Guest, GUEST_TOOLS } from './guest.ts';
import { requires } from './support/requires.ts';

const LIMIT_MS = 240_000;
const TCP_LINE = /nbd:\/\/127\.0\.0\.1:(\d+)/;

for (const reactor of REACTORS) {
  const options = { ...requires(...GUEST_TOOLS, 'nbd-client', 'mkfs.ext4'), timeout: LIMIT_MS };
  test(
    `Linux's own nbd driver puts ext4 on an export, over TCP [${reactor}]`,
    options,
    async (t) => {
      const image = makeImage(workspace(t), 256);
      const where = ['-p', '0', '-b', '127.0.0.1'];
      const server = await startHoldfast(t, [image, ...where], { reactor, readyLine: TCP_LINE });
      const port = TCP_LINE.exec(server.stdout)?.[1] ?? '';
      const guest = await Guest.boot(t, {
        devices: [],
        network: true,
        modules: ['nbd'],
        programs: ['nbd-client', 'mkfs.ext4', 'e2fsck'],
      });
      await guest.succeed(`nbd-client -C 4 10.0.2.2 ${port} /dev/nbd0`);
      const cache = await guest.succeed('cat /sys/block/nbd0/queue/write_cache');
      assert.equal(cache.trim(), 'write back');
      // NBD_FLAG_SEND_FUA reaches the block layer.
      assert.equal((await guest.succeed('cat /sys/block/nbd0/queue/fua')).trim(), '1');
      await guest.succeed(`
      mkfs.ext4 -q /dev/nbd0
      mount -o discard /dev/nbd0 /mnt
      dd if=/dev/urandom of=/mnt/large bs=64k count=200 2>/dev/null
      sha256sum /mnt/large > /mnt/sum
      dd if=/dev/urandom of=/mnt/gone bs=64k count=100 2>/dev/null
      sync
      rm /mnt/gone
      sync
      fstrim /mnt
      umount /mnt
      echo 3 > /proc/sys/vm/drop_caches
      mount /dev/nbd0 /mnt
      cd /mnt && sha256sum -c sum && cd /
      umount /mnt
      e2fsck -fn /dev/nbd0
      nbd-client -d /dev/nbd0
    `);
      await guest.shutDown();
      const [counters] = await server.stop();
      assert.ok(counters !== undefined);
      assert.ok(counters.fuaNative + counters.fuaEmulated > 0, 'the journal commits with FUA');
      assert.ok(counters.flushesAsked > 0);
      assert.ok(counters.discards > 0);
      assert.equal(counters.failed, 0, `${JSON.stringify(counters)}\n${server.stderr}`);
    },
  );
}
