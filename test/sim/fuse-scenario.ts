import type { Prng } from '../../src/base/prng.ts';
import { makePrng, SECTOR_BYTES } from './media.ts';
import { planScenario, type Scenario } from './scenario.ts';

/** What is shared out among the requests of a program. Shares are probabilities, of requests or of answers. */
export interface ProgramTraits {
  readonly depth: number;
  readonly thinkMs: number;
  readonly hotSectors: number;
  readonly maxSectors: number;
  /** As long as the disk, if need be. */
  readonly huge: number;
  readonly flushShare: number;
  /** Of opens for writing: with O_DSYNC or O_SYNC. */
  readonly stableOpens: number;
  /** Of writes: RWF_DSYNC. */
  readonly stableWrites: number;
  readonly readOnlyOpens: number;
  readonly readShare: number;
  /** Of changes: fallocate(2), which punches holes or makes zeroes. */
  readonly zeroShare: number;
  /** Of reads: lseek(2) for data or a hole. */
  readonly seekShare: number;
  readonly interrupts: number;
  /** It closes the file, and opens it again. */
  readonly closes: number;
  /** Of these: while requests are under way. */
  readonly hasty: number;
}

/** One place where the disk is mounted. */
export interface MountPlan {
  readonly programs: readonly ProgramTraits[];
}

export interface FuseWorld {
  readonly mounts: readonly MountPlan[];
  /** How long requests and answers are under way between the kernel and the programs. */
  readonly delayMs: number;
  /** Per simulated second and mount: the connection is aborted (umount -f); the server cuts it. */
  readonly aborts: number;
  readonly cuts: number;
  /** Somebody tries to unmount it. */
  readonly unmounts: number;
}

/** The same seed with programs. What they add comes from a stream of its own, so that the rest stays. */
export function planFuse(seed: number): { scenario: Scenario; world: FuseWorld } {
  const base = planScenario(seed);
  const prng = makePrng(seed, 30);
  // Blocks of several sectors are changed in parts, and others of their sectors are written back as they were read. That
  // is one mount's affair: nobody else's writes are kept apart from it.
  const sectorsOfBlock = prng.chance(0.6) ? prng.pick([2, 8, 8]) : 1;
  const alone = sectorsOfBlock > 1;
  const sectors = Math.ceil(base.sectors / sectorsOfBlock) * sectorsOfBlock;
  const mounts = Array.from({ length: !alone && prng.chance(0.4) ? 2 : 1 }, () => ({
    programs: Array.from({ length: 1 + prng.below(3) }, () => planProgram(prng, sectors)),
  }));
  const clients = alone || prng.chance(0.4) ? [] : base.clients.slice(0, 1);
  const connections = clients.reduce((sum, each) => sum + each.connections, 0);
  return {
    scenario: {
      ...base,
      sectors,
      clients,
      // A mount that has ended may still have its pages when the next one is there.
      poolPages: 3 * connections + mounts.length * (prng.chance(0.3) ? 14 : 48),
      disk: { ...base.disk, blockBytes: sectorsOfBlock * SECTOR_BYTES },
    },
    world: {
      mounts,
      delayMs: prng.float() * 3,
      aborts: sometimes(prng, 0.4, 8),
      cuts: sometimes(prng, 0.3, 8),
      unmounts: sometimes(prng, 0.3, 30),
    },
  };
}

function sometimes(prng: Prng, share: number, most: number): number {
  return prng.chance(share) ? prng.float() * most : 0;
}

function planProgram(prng: Prng, sectors: number): ProgramTraits {
  return {
    depth: 1 + prng.below(16),
    thinkMs: prng.float() * 10,
    hotSectors: 1 + prng.below(Math.min(16, sectors)),
    maxSectors: 1 + prng.below(20),
    huge: sectors > 500 ? 0.15 : 0.02,
    flushShare: prng.float() * 0.3,
    stableOpens: sometimes(prng, 0.6, 1),
    stableWrites: sometimes(prng, 0.5, 0.5),
    readOnlyOpens: sometimes(prng, 0.4, 0.5),
    readShare: prng.float() * 0.6,
    zeroShare: prng.float() * 0.3,
    seekShare: sometimes(prng, 0.5, 0.2),
    interrupts: sometimes(prng, 0.5, 0.1),
    closes: sometimes(prng, 0.7, 0.1),
    hasty: prng.float(),
  };
}
