import { after } from 'node:test';
import { MiB } from '../../base/units.ts';
import type { BlockDevice } from '../../block/device.ts';
import { conformance, type ConformanceTarget } from '../../block/conformance.ts';
import { openFileStore } from '../../stores/file/open.ts';
import {
  openFaultyReactor,
  REACTORS,
  storeOptions,
  TestDirectory,
  type FaultyReactor,
} from '../../stores/file/testing.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { CUT_MODELS, type CutModel } from './requests.ts';
import { VolatileCache } from './volatile-cache.ts';

/** The largest request fits, and little more: much is written back for room. */
const SMALL = 1 * MiB;
const LARGE = 4 * MiB;
let cuts = 0;

/** What can be done to a layer, for the suite. `cut` is by another seed each time. */
function target(
  child: BlockDevice,
  cacheBytes: number,
  model: CutModel,
): Pick<ConformanceTarget, 'device' | 'crash' | 'failNextSync'> {
  const layer = new VolatileCache(child, { cacheBytes });
  return {
    device: layer,
    crash: async () => {
      cuts += 1;
      layer.cutPower();
      await layer.survive({ seed: cuts, model, offForMs: 0 });
      return new VolatileCache(child, { cacheBytes });
    },
    failNextSync: () => layer.failFlush({ when: 'once', data: 'keep' }),
  };
}

for (const model of CUT_MODELS) {
  for (const [cacheBytes, blockBytes] of [
    [LARGE, 512],
    [SMALL, 512],
    [SMALL, 4096],
  ] as const) {
    conformance(
      `volatile cache of ${cacheBytes / MiB} MiB over memory, blocks of ${blockBytes}, ${model}`,
      async () =>
        target(openMemoryStore({ name: 'm', sizeBytes: 4 * MiB, blockBytes }), cacheBytes, model),
      {
        // Tears are of 512 bytes, and the suite expects whole blocks.
        canCrash: blockBytes === 512 || model === 'M0' || model === 'M1',
        canFailSync: true,
        exactHoles: true,
        atomicBlocks: true,
        openReadOnly: async () => ({
          device: new VolatileCache(
            openMemoryStore({ name: 'm', sizeBytes: 1 * MiB, blockBytes, readOnly: true }),
            { cacheBytes },
          ),
        }),
      },
    );
  }
}

for (const kind of REACTORS) {
  let reactor: Promise<FaultyReactor> | null = null;
  const reactorOf = (): Promise<FaultyReactor> => (reactor ??= openFaultyReactor(kind));
  after(async () => {
    await (await reactorOf()).close();
  });
  for (const direct of [false, true]) {
    const open = async (): Promise<ConformanceTarget> => {
      const directory = new TestDirectory();
      const path = directory.image(8 * MiB);
      const store = await openFileStore(await reactorOf(), storeOptions(path, [], { direct }));
      return {
        ...target(store, SMALL, direct ? 'M0' : 'M2'),
        dispose: async () => directory.remove(),
      };
    };
    conformance(`volatile cache over a file, ${kind}, ${direct ? 'direct' : 'buffered'}`, open, {
      steps: 100,
      canCrash: true,
      canFailSync: true,
    });
  }
}
