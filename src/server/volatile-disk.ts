import { ConfigError } from '../base/errors.ts';
import { formatSize } from '../base/units.ts';
import type { BlockDevice } from '../block/device.ts';
import {
  LEAST_CACHE_BYTES,
  MOST_CACHE_BYTES,
  UNIT_BYTES,
} from '../layers/volatile-cache/limits.ts';
import { VolatileCache } from '../layers/volatile-cache/volatile-cache.ts';
import type { Reactor } from '../reactor/reactor.ts';
import type { FileStore } from '../stores/file/file-store.ts';
import type { DiskConfig } from './config.ts';

/** Two exports of one file: with a cache of its own, each would not see what the other has written. */
export function checkShared(config: DiskConfig, other: DiskConfig): void {
  if (config.volatileCacheBytes === undefined && other.volatileCacheBytes === undefined) return;
  throw new ConfigError(
    `${config.disk} is the same disk as ${other.disk}, and has a volatile cache`,
    'serve it once: all protocols can show one export',
  );
}

/**
 * The volatile cache that the configuration asks for, over an open store; undefined when it asks for none. `file` is the
 * store if it is a file's: what a failed sync leaves on record, and what an operator resumes, is then its too.
 */
export function openVolatileCache(
  reactor: Pick<Reactor, 'defer'>,
  config: DiskConfig,
  store: BlockDevice,
  file: FileStore | null,
): VolatileCache | undefined {
  const cacheBytes = config.volatileCacheBytes;
  if (cacheBytes === undefined) return undefined;
  checkSize(config, cacheBytes);
  const state = file?.state ?? null;
  const cache = new VolatileCache(store, {
    cacheBytes,
    domain: {
      policy: config.onSyncError,
      defer: (callback) => reactor.defer(callback),
      ...(state === null
        ? {}
        : {
            onFirstVolatile: (recorded) => state.firstVolatile(recorded),
            onPoisoned: (error, recorded) => state.syncFailed(error, recorded),
            onResumed: () => {
              file?.domain.resume();
              state.resumed();
            },
          }),
    },
  });
  const poison = file?.domain.error ?? null;
  if (poison !== null) cache.domain.restorePoison(poison);
  return cache;
}

function checkSize({ disk }: DiskConfig, cacheBytes: number): void {
  const whole = cacheBytes % UNIT_BYTES === 0;
  if (whole && cacheBytes >= LEAST_CACHE_BYTES && cacheBytes <= MOST_CACHE_BYTES) return;
  throw new ConfigError(
    `${disk}: a volatile cache cannot have ${cacheBytes} bytes`,
    `give it ${formatSize(LEAST_CACHE_BYTES)} to ${formatSize(MOST_CACHE_BYTES)}`,
  );
}
