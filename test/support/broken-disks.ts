import { conformance } from '../../src/block/conformance.ts';
import { MISTAKES, VolatileDisk, type Mistake } from './volatile-disk.ts';

let opened = 0;

// Run by conformance.test.ts in a process of its own: one suite for each mistake, all of which must fail.
for (const mistake of MISTAKES) {
  conformance(mistake, async () => targetOf(mistake, false), {
    canCrash: true,
    canFailSync: true,
    exactHoles: true,
    openReadOnly: async () => targetOf(mistake, true),
    steps: 60,
  });
}

function targetOf(
  mistake: Mistake,
  readOnly: boolean,
): { device: VolatileDisk; crash: () => Promise<VolatileDisk>; failNextSync: () => void } {
  opened += 1;
  const device = new VolatileDisk({
    blocks: 512,
    blockBytes: 512,
    seed: opened,
    mistake,
    readOnly,
  });
  return { device, crash: async () => device.crash(), failNextSync: () => device.failNextSync() };
}
