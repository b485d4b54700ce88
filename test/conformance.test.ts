import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { conformance } from '../src/block/conformance.ts';
import { MISTAKES, VolatileDisk } from './support/volatile-disk.ts';

let opened = 0;

for (const seed of [1, 2, 3]) {
  const blockBytes = seed === 3 ? 4096 : 512;
  conformance(
    `a disk with a volatile cache, seed ${seed}`,
    async () => {
      opened += 1;
      const device = new VolatileDisk({ blocks: 512, blockBytes, seed: opened });
      return {
        device,
        crash: async () => device.crash(),
        failNextSync: () => device.failNextSync(),
      };
    },
    {
      seed,
      canCrash: true,
      canFailSync: true,
      exactHoles: true,
      atomicBlocks: true,
      openReadOnly: async () => ({
        device: new VolatileDisk({ blocks: 512, blockBytes, seed, readOnly: true }),
      }),
    },
  );
}

test('the suite catches every mistake', { timeout: 120_000 }, async (t) => {
  const output = await runBroken();
  for (const mistake of MISTAKES) {
    await t.test(mistake, () => {
      const verdict = output.split('\n').find((line) => line.endsWith(` - ${mistake}`));
      assert.ok(verdict !== undefined, `no verdict in:\n${output}`);
      assert.match(verdict, /^not ok /, `a disk that errs passed: ${mistake}`);
    });
  }
});

/** The TAP output of the suites over disks with mistakes. */
function runBroken(): Promise<string> {
  const file = fileURLToPath(new URL('support/broken-disks.ts', import.meta.url));
  return new Promise((resolve) => {
    // Without this the child reports to this test runner in its own format.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const args = ['--test-reporter=tap', '--test-timeout=5000', file];
    execFile(process.execPath, args, { env, maxBuffer: 1 << 28 }, (_error, stdout) =>
      resolve(stdout),
    );
  });
}
