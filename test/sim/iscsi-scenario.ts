import type { Prng } from '../../src/base/prng.ts';
import { makePrng } from './media.ts';
import { planScenario, type Scenario } from './scenario.ts';

/** What is shared out among the requests of an initiator. Shares are probabilities, of requests or of answers. */
export interface InitiatorTraits {
  readonly depth: number;
  readonly thinkMs: number;
  readonly hotSectors: number;
  readonly maxSectors: number;
  readonly flushShare: number;
  /** Of flushes: a range only; answered at once. */
  readonly rangeShare: number;
  readonly immediateShare: number;
  readonly fuaShare: number;
  readonly readShare: number;
  readonly compareShare: number;
  /** WRITE SAME and UNMAP. */
  readonly zeroShare: number;
  readonly orderedShare: number;
  readonly headShare: number;
  readonly switches: number;
  readonly looks: number;
  readonly aborts: number;
  readonly resets: number;
  readonly cuts: number;
  /** It logs in again while its connection is there. */
  readonly reinstates: number;
  readonly stalls: number;
}

/** One initiator: a name, and so many sessions, each with an ISID of its own. */
export interface InitiatorPlan {
  readonly host: string;
  readonly resumable: boolean;
  readonly name: string;
  readonly sessions: number;
  readonly keys: Readonly<Record<string, string>>;
  readonly traits: InitiatorTraits;
}

export interface IscsiWorld {
  readonly initiators: readonly InitiatorPlan[];
  /** Where the sectors are that most requests go to. */
  readonly hotAt: number;
  /** How much Data-Out all sessions may collect. */
  readonly collectedBytes: number;
}

const HOSTS = ['tcp 127.0.0.1', 'tcp 10.0.0.1', 'tcp 10.0.0.2', 'tcp [2001:db8::7]'];
/** What a flush of a range tells apart: see TouchedRegions. */
const REGION_SECTORS = 128;

/** The same seed with iSCSI initiators. What they add comes from a stream of its own, so that the rest stays. */
export function planIscsi(seed: number): { scenario: Scenario; world: IscsiWorld } {
  const base = planScenario(seed);
  const prng = makePrng(seed, 20);
  // Several regions, or a few sectors that all meet.
  const sectors = prng.chance(0.5) ? REGION_SECTORS * (2 + prng.below(6)) : base.sectors;
  // Around the edge of a region, as a rule.
  const edge = prng.below(Math.ceil(sectors / REGION_SECTORS)) * REGION_SECTORS;
  const hotAt = prng.chance(0.3) ? 0 : Math.max(0, edge - prng.below(8));
  const initiators = Array.from({ length: prng.chance(0.6) ? 2 : 1 }, (_, i) =>
    planInitiator(prng, i, sectors),
  );
  const alone = prng.chance(0.6);
  const clients = alone ? [] : base.clients.slice(0, 1);
  const connections = clients.reduce((sum, each) => sum + each.connections, 0);
  const sessions = initiators.reduce((sum, each) => sum + each.sessions, 0);
  const delayMs = base.network.delayMs;
  return {
    scenario: {
      ...base,
      sectors,
      clients,
      // A session that is taken over by its successor still has its pages.
      poolPages: 3 * (connections + 2 * sessions) + 6,
      network: {
        ...base.network,
        delayMs,
        pieceBytes: prng.pick([29, 512, 4096, 65_536, 262_144]),
      },
    },
    world: {
      initiators,
      hotAt,
      collectedBytes: prng.pick([64 * 1024 * 1024, 64 * 1024 * 1024, 32 * 1024]),
    },
  };
}

function sometimes(prng: Prng, share: number, most: number): number {
  return prng.chance(share) ? prng.float() * most : 0;
}

function planInitiator(prng: Prng, index: number, sectors: number): InitiatorPlan {
  const host = HOSTS[(index + prng.below(3)) % HOSTS.length] as string;
  return {
    host,
    resumable: !host.includes('127.'),
    name: `iqn.2026-11.sim:host${index}`,
    sessions: prng.chance(0.4) ? 2 : 1,
    keys: planKeys(prng),
    traits: {
      depth: 1 + prng.below(16),
      thinkMs: prng.float() * 10,
      hotSectors: 1 + prng.below(Math.min(16, sectors)),
      maxSectors: 1 + prng.below(24),
      flushShare: prng.float() * 0.3,
      rangeShare: prng.float(),
      immediateShare: sometimes(prng, 0.6, 0.6),
      fuaShare: prng.chance(0.3) ? 0 : prng.float() * 0.5,
      readShare: prng.float() * 0.6,
      compareShare: sometimes(prng, 0.6, 0.3),
      zeroShare: prng.float() * 0.3,
      orderedShare: sometimes(prng, 0.5, 0.3),
      headShare: sometimes(prng, 0.4, 0.1),
      switches: sometimes(prng, 0.5, 0.08),
      looks: sometimes(prng, 0.5, 0.1),
      aborts: sometimes(prng, 0.5, 0.1),
      resets: sometimes(prng, 0.3, 0.02),
      cuts: sometimes(prng, 0.4, 0.04),
      reinstates: sometimes(prng, 0.4, 0.04),
      stalls: sometimes(prng, 0.2, 0.05),
    },
  };
}

/** [RFC 7143 13] What is proposed at login. */
function planKeys(prng: Prng): Record<string, string> {
  const yesNo = (): string => (prng.chance(0.5) ? 'Yes' : 'No');
  const digest = (): string => (prng.chance(0.3) ? 'CRC32C' : 'None');
  const bursts = [512, 1024, 4096, 10_240, 262_144];
  const maxBurst = prng.pick(bursts);
  const firstBurst = Math.min(maxBurst, prng.pick(bursts));
  const keys: Record<string, string> = {
    HeaderDigest: digest(),
    DataDigest: digest(),
    InitialR2T: yesNo(),
    ImmediateData: yesNo(),
    MaxBurstLength: String(maxBurst),
    FirstBurstLength: String(firstBurst),
    MaxRecvDataSegmentLength: String(prng.pick([512, 4096, 8192, 262_144])),
    MaxOutstandingR2T: String(1 + prng.below(8)),
  };
  for (const key of Object.keys(keys)) if (prng.chance(0.2)) delete keys[key];
  // It must not be longer than what holds by default.
  if (keys['MaxBurstLength'] !== undefined && keys['FirstBurstLength'] === undefined) {
    delete keys['MaxBurstLength'];
  }
  return keys;
}
