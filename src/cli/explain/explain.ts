import { CACHE_MODES, type CacheMode } from '../../durability/modes.ts';
import { hostWarnings, type HostFacts, type HostWarning } from '../../stores/file/host.ts';
import { sizeRefused } from '../../stores/file/refusals.ts';

/** What a mode means for a disk on this host, in sentences. */
export interface Explanation {
  readonly write: readonly string[];
  readonly flush: readonly string[];
  readonly fua: readonly string[];
  /** What is still there after which failure. */
  readonly survives: Survival;
  readonly warnings: readonly (Omit<HostWarning, 'code'> & { readonly code: string })[];
}

export interface Survival {
  readonly serverCrash: string;
  readonly hostCrash: string;
}

const EVERYTHING = 'every acknowledged write';
const FLUSHED =
  'what was flushed, or written with FUA; of the rest any part may be lost, in any order';
const NOTHING_SURE = 'nothing for certain: parts of any age may be missing';

/** P9: what a session without flushes gets. Over NBD and iSCSI every client is given the flush while there is a write cache. */
const WITHOUT_FLUSH =
  'A virtual machine (vhost-user-blk) whose driver knows no flush gets it acknowledged only ' +
  'when it is stable; and so does everybody while a virtual machine or an iSCSI initiator ' +
  '(WCE 0) has switched the write cache off.';

/** Puts a mode and a host together. Pure: all that it says follows from `facts`. */
export function explain(facts: HostFacts, mode: CacheMode): Explanation {
  return {
    write: explainWrite(facts, mode),
    flush: explainFlush(facts, mode),
    fua: explainFua(facts, mode),
    survives: survival(facts, mode),
    warnings: warnings(facts, mode),
  };
}

/** memory:SIZE has no host to look at. */
export function explainMemory(mode: CacheMode): Explanation {
  const gone = 'nothing: the disk is part of the server';
  const modeWord =
    mode === 'unsafe' ? ' The mode says that flushes are ignored; here that changes nothing.' : '';
  return {
    write: ['It is copied into the memory of the server and acknowledged.'],
    flush: [`There is nothing to sync; it is answered at once.${modeWord}`],
    fua: ['It is a write like any other.'],
    survives: { serverCrash: gone, hostCrash: gone },
    warnings: [
      { code: 'volatile-storage', message: 'the disk is gone when its server ends, in every mode' },
    ],
  };
}

function explainWrite(facts: HostFacts, mode: CacheMode): string[] {
  const { direct, writeCache, untilFlush, ignoreFlush } = CACHE_MODES[mode];
  const guest = ignoreFlush ? [] : [WITHOUT_FLUSH];
  const way = direct
    ? `It goes past the host's page cache (O_DIRECT) to ${below(facts)}.`
    : "It is copied into the host's page cache.";
  if (untilFlush) {
    return [
      way,
      "Until the session's first flush it is acknowledged only when it is stable: the server makes it so.",
      'After that it is acknowledged at once and is not stable until a flush.',
      WITHOUT_FLUSH,
    ];
  }
  if (!writeCache) {
    const told = [way, `It is acknowledged only when it is stable: ${stableBy(facts)}.`];
    if (facts.writeDsync) {
      told.push('Where it is expected to be faster, one write is made so by itself (RWF_DSYNC).');
    }
    return told;
  }
  if (!direct) return [way, 'It is acknowledged then, and is not stable until a flush.', ...guest];
  return [
    way,
    facts.volatileCache === false
      ? 'It is acknowledged then. No drive below has a volatile cache, but what the file ' +
        'system or device needs to find new blocks may still be in memory: it is stable ' +
        'after a flush.'
      : "It is acknowledged then, perhaps only in the drive's volatile cache: 'none' is a " +
        'write-back mode too, and the write is stable after a flush.',
    ...guest,
  ];
}

function explainFlush(facts: HostFacts, mode: CacheMode): string[] {
  const { ignoreFlush, writeCache } = CACHE_MODES[mode];
  if (ignoreFlush) return ['It is acknowledged and NOT done.'];
  if (!writeCache) {
    return [
      'It finds nothing to do: every acknowledged write is stable already, and clients are told ' +
        'that there is no write cache to flush. It costs no sync.',
    ];
  }
  return [
    `It is acknowledged when every write acknowledged before it, to any client, is stable: ${stableBy(facts)}.`,
    'Flushes that wait together share one sync; a flush with nothing new to make stable costs none.',
  ];
}

function explainFua(facts: HostFacts, mode: CacheMode): string[] {
  const { ignoreFlush, writeCache } = CACHE_MODES[mode];
  if (ignoreFlush) return ['It is a write like any other; the FUA bit is ignored as flushes are.'];
  if (!writeCache) return ['It is a write like any other: all are stable when acknowledged.'];
  if (!facts.writeDsync) {
    return [
      'It is acknowledged when it is stable: a write, then a sync shared with others that wait.',
    ];
  }
  return [
    'It is acknowledged when it is stable: by itself (RWF_DSYNC), or by a sync shared ' +
      'with others that wait, whichever is expected to be faster.',
    `By itself: ${stableByItself(facts)}.`,
  ];
}

/** How the host makes one write stable, ending without a full stop. */
function stableByItself(facts: HostFacts): string {
  if (facts.nature === 'memory') return 'in memory, where "stable" means nothing';
  const cache = facts.volatileCache !== false;
  if (facts.barriersOff && cache) return "it leaves the drive's cache alone (no barriers)";
  if (facts.driveFua === true) return 'the drive takes it through its cache';
  if (!cache) return 'no drive has a cache to pass';
  return "the kernel may have to flush the drive's whole cache for it";
}

/** How the host makes data stable, ending without a full stop. */
function stableBy(facts: HostFacts): string {
  const { nature, mount } = facts;
  const fileSystem = mount?.fileSystem ?? '';
  if (nature === 'memory') return `${fileSystem} is memory, so "stable" means nothing here`;
  if (nature === 'network') return `fdatasync(2) asks the server of ${fileSystem} to do it`;
  if (nature === 'fuse') return `fdatasync(2) asks the program behind ${fileSystem} to do it`;
  if (nature === 'overlay') return `fdatasync(2), passed on to the file system below ${fileSystem}`;
  const first =
    facts.kind === 'block'
      ? 'fdatasync(2) writes out what the page cache holds of the device'
      : `fdatasync(2) writes out the file's data and what ${fileSystem || 'the file system'} needs to find them`;
  if (facts.barriersOff) return `${first}, and leaves the drive's cache alone (no barriers)`;
  if (facts.volatileCache === true)
    return `${first}, and flushes the volatile cache of ${volatile(facts)}`;
  if (facts.volatileCache === false) return `${first}; no drive below has a volatile cache`;
  return `${first}, and flushes the drive, about which the kernel says nothing here`;
}

function volatile(facts: HostFacts): string {
  const names = facts.drives.filter((drive) => drive.writeCache === 'write back');
  return names.map((drive) => drive.name).join(', ');
}

function below(facts: HostFacts): string {
  const names = facts.drives.map((drive) => drive.name).join(', ');
  if (names !== '') return `the drive (${names})`;
  return facts.mount === null ? 'the device' : `what ${facts.mount.fileSystem} keeps its data on`;
}

function survival(facts: HostFacts, mode: CacheMode): Survival {
  const { ignoreFlush, writeCache, untilFlush } = CACHE_MODES[mode];
  const memory =
    facts.nature === 'memory' ||
    facts.drives.some((drive) => drive.kind === 'ram' || drive.kind === 'zram');
  if (memory) return { serverCrash: EVERYTHING, hostCrash: 'nothing: the storage is memory' };
  if (ignoreFlush) return { serverCrash: EVERYTHING, hostCrash: NOTHING_SURE };
  if (facts.barriersOff && facts.volatileCache !== false) {
    return { serverCrash: EVERYTHING, hostCrash: `${NOTHING_SURE} (no barriers)` };
  }
  if (untilFlush) {
    const hostCrash = `before a session's first flush, every acknowledged write of it; then ${FLUSHED}`;
    return { serverCrash: EVERYTHING, hostCrash };
  }
  return { serverCrash: EVERYTHING, hostCrash: writeCache ? FLUSHED : EVERYTHING };
}

function warnings(facts: HostFacts, mode: CacheMode): Explanation['warnings'] {
  const blockBytes = CACHE_MODES[mode].direct ? (facts.directAlignment?.offsetBytes ?? 512) : 512;
  const refused =
    facts.sizeBytes === null ? null : sizeRefused(facts.path, facts.sizeBytes, blockBytes);
  const own =
    refused === null
      ? []
      : [{ code: 'not-servable', message: `${refused.message}; ${refused.hint}` }];
  return [...own, ...hostWarnings(facts, mode)];
}
