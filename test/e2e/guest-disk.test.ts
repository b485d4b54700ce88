import assert from 'node:assert/strict';
import test from 'node:test';
import { makeImage, REACTORS, startHoldfast, workspace } from './support/holdfast.ts';
import { Guest, GUEST_TOOLS, virtioDisk } from './guest.ts';
import { requires } from './support/requires.ts';

const LIMIT_MS = 240_000;

function disk(socket: string): string[] {
  return virtioDisk(`file=nbd+unix:///?socket=${socket},cache=writeback,discard=unmap`);
}

for (const reactor of REACTORS) {
  const options = { ...requires(...GUEST_TOOLS, 'mkfs.ext4'), timeout: LIMIT_MS };
  test(`a guest loses power and finds what it had synced [${reactor}]`, options, async (t) => {
    const image = makeImage(workspace(t), 256);
    const server = await startHoldfast(t, [image], { reactor });
    const programs = ['mkfs.ext4', 'e2fsck'];
    const first = await Guest.boot(t, { devices: disk(server.socket), programs });
    const cache = await first.succeed('cat /sys/block/vda/queue/write_cache');
    assert.equal(cache.trim(), 'write back', 'the guest sees a write cache and flushes it');
    await first.succeed(`
      mkfs.ext4 -q /dev/vda
      mount /dev/vda /mnt
      dd if=/dev/urandom of=/mnt/large bs=64k count=200 2>/dev/null
      for i in $(seq 1 50); do echo "file $i" > /mnt/$i; done
      sync
      sha256sum /mnt/large > /mnt/sum
      sync
    `);
    const synced = await server.counter();
    assert.ok(synced.flushesAsked > 0 && synced.syncs > 0, 'the guest flushes and we sync');
    // Not synced: it may be there afterwards or not, but it must not hurt what was.
    await first.succeed(
      'dd if=/dev/zero of=/mnt/late bs=64k count=100 2>/dev/null; echo late > /mnt/1x',
    );
    await first.cutPower();

    const second = await Guest.boot(t, { devices: disk(server.socket), programs });
    await second.succeed('mount /dev/vda /mnt; cd /mnt; sha256sum -c sum');
    const files = await second.succeed('cd /mnt; for i in $(seq 1 50); do cat $i; done');
    assert.equal(files, Array.from({ length: 50 }, (_, i) => `file ${i + 1}\n`).join(''));
    await second.succeed('umount /mnt; e2fsck -fn /dev/vda');
    await second.shutDown();
    const [counters] = await server.stop();
    assert.equal(counters?.failed, 0, `${JSON.stringify(counters)}\n${server.stderr}`);
    assert.equal(counters?.unstableWrites, 0, JSON.stringify(counters));
  });
}
