import { conformance } from '../../block/conformance.ts';
import { MiB } from '../../base/units.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { CUT_MODELS, type CutModel } from './requests.ts';
import { VolatileCache } from './volatile-cache.ts';

const CACHE_BYTES = 4 * MiB;
let opened = 0;

async function afterCut(layer: VolatileCache, child: Parameters<typeof make>[0], model: CutModel) {
  layer.cutPower();
  opened += 1;
  await layer.survive({ seed: opened, model, offForMs: 0 });
  return make(child);
}

function make(child: ConstructorParameters<typeof VolatileCache>[0]): VolatileCache {
  return new VolatileCache(child, { cacheBytes: CACHE_BYTES });
}

for (const model of CUT_MODELS) {
  for (const blockBytes of [512, 4096] as const) {
    conformance(
      `volatile cache over memory, blocks of ${blockBytes}, cut by ${model}`,
      async () => {
        const child = openMemoryStore({ name: 'm', sizeBytes: 4 * MiB, blockBytes });
        const layer = make(child);
        return {
          device: layer,
          crash: () => afterCut(layer, child, model),
          failNextSync: () => layer.failFlush({ when: 'once', data: 'keep' }),
        };
      },
      // Tears are of 512 bytes, and the suite expects whole blocks.
      {
        canCrash: blockBytes === 512 || model < 'M2',
        canFailSync: true,
        exactHoles: true,
        atomicBlocks: true,
      },
    );
  }
}
