/**
 * The cache modes, named and meant as QEMU's (qemu-options.hx, -drive cache=), plus until-flush, librbd's
 * writethrough-until-flush made re-arming.
 */
export const CACHE_MODES = {
  /** Host page cache; the guest sees a write cache and flushes it. */
  writeback: { direct: false, writeCache: true, ignoreFlush: false, untilFlush: false },
  /** O_DIRECT; still a write cache: the drive's. */
  none: { direct: true, writeCache: true, ignoreFlush: false, untilFlush: false },
  /** Every write is stable before it completes. */
  writethrough: { direct: false, writeCache: false, ignoreFlush: false, untilFlush: false },
  directsync: { direct: true, writeCache: false, ignoreFlush: false, untilFlush: false },
  /** Flushes are acknowledged and not done: for disks that may be lost. */
  unsafe: { direct: false, writeCache: true, ignoreFlush: true, untilFlush: false },
  /** writethrough until a session's first flush shows that it knows how, then writeback for that session. */
  'until-flush': { direct: false, writeCache: true, ignoreFlush: false, untilFlush: true },
} as const;

export type CacheMode = keyof typeof CACHE_MODES;

export const DEFAULT_CACHE_MODE: CacheMode = 'writeback';

/** What happens after a sync failed: `poison` fails all that needs stability, `stop` parks it for the operator. */
export const SYNC_ERROR_POLICIES = ['poison', 'stop'] as const;
export type SyncErrorPolicy = (typeof SYNC_ERROR_POLICIES)[number];
