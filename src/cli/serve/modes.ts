import type { CacheMode } from '../../durability/modes.ts';

/** What each mode means for completed writes of a file or a device, in one line. */
export const MODE_LINES: Readonly<Record<CacheMode, string>> = {
  writeback: "completed writes may wait in the host's page cache until the client flushes",
  none: "past the host's page cache; completed writes may wait in the drive's cache until the client flushes",
  writethrough: 'every write is stable before it completes',
  directsync: "past the host's page cache; every write is stable before it completes",
  unsafe:
    'FLUSHES ARE ACKNOWLEDGED AND NOT DONE; after a power cut or a crash of this machine the disk may be ruined',
  'until-flush':
    "every write is stable before it completes until a session's first flush, then as writeback",
};

/** The same for one disk, wherever it is shown: there is no host's cache below memory:SIZE. */
export function modeLine(disk: string, mode: CacheMode): string {
  if (disk.startsWith('memory:') && mode !== 'unsafe') {
    return 'in the memory of the server, gone when it ends';
  }
  return MODE_LINES[mode];
}
