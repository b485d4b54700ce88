import assert from 'node:assert/strict';
import { onBothReactors } from './support/both.ts';
import { succeed } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';

for (const cache of ['writeback', 'none', 'writethrough'] as const) {
  onBothReactors(`fio verifies what it wrote, cache=${cache}`, ['fio'], async (t, reactor) => {
    const image = makeImage(workspace(t), 64);
    const server = await startHoldfast(t, [image, '--cache', cache], { reactor });
    await succeed(
      [
        'fio',
        '--name=verify',
        '--ioengine=nbd',
        `--uri=${server.uri()}`,
        '--rw=randrw',
        '--bsrange=512-128k',
        '--bs_unaligned=0',
        '--blockalign=512',
        '--size=48m',
        '--io_size=24m',
        '--iodepth=16',
        // Without a write cache there is no flush to ask for, and libnbd refuses to send one.
        ...(cache === 'writethrough' ? [] : ['--fsync=64']),
        '--verify=crc32c',
        '--verify_fatal=1',
        '--randseed=7',
        '--thread',
      ],
      // fio leaves its verify state where it runs.
      { cwd: workspace(t), timeoutMs: 100_000 },
    );
    const [counters] = await server.stop();
    assert.ok(counters !== undefined && counters.writes > 100 && counters.reads > 100);
    assert.equal(counters.failed, 0);
  });
}
