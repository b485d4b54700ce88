import type { Prng } from '../../src/base/prng.ts';
import { CACHE_MODES, type CacheMode, type SyncErrorPolicy } from '../../src/durability/modes.ts';
import type { ClientTraits } from './client.ts';
import { makePrng } from './media.ts';
import type { DiskTraits } from './sim-disk.ts';
import type { NetworkTraits } from './stream.ts';

export interface ClientPlan {
  /** As Stream.peer shows it, without the port. */
  readonly host: string;
  readonly resumable: boolean;
  readonly connections: number;
  readonly traits: ClientTraits;
}

/** How often, per simulated second. */
export interface ChaosTraits {
  readonly processKills: number;
  readonly hostCrashes: number;
  readonly restarts: number;
  readonly switches: number;
}

/** Everything a seed decides. */
export interface Scenario {
  readonly seed: number;
  readonly mode: CacheMode;
  readonly policy: SyncErrorPolicy;
  readonly sectors: number;
  /** Requests before the clients leave. */
  readonly budget: number;
  readonly poolPages: number;
  readonly deferredSyncs: boolean;
  readonly persistMs: number;
  readonly persistFails: number;
  readonly disk: DiskTraits;
  readonly network: NetworkTraits;
  readonly clients: readonly ClientPlan[];
  readonly chaos: ChaosTraits;
}

const HOSTS = ['unix', 'tcp 127.0.0.1', 'tcp 10.0.0.1', 'tcp 10.0.0.2', 'tcp [2001:db8::7]'];

/** A probability that is often 0, so that runs without this fault are common, too. */
function sometimes(prng: Prng, share: number, most: number): number {
  return prng.chance(share) ? prng.float() * most : 0;
}

export function planScenario(seed: number): Scenario {
  const prng = makePrng(seed, 1);
  const sectors = prng.chance(0.15) ? 1600 : 16 + prng.below(200);
  const clients = Array.from({ length: 1 + prng.below(3) }, (_, i) => planClient(prng, i, sectors));
  const connections = clients.reduce((sum, each) => sum + each.connections, 0);
  const modes = Object.keys(CACHE_MODES) as CacheMode[];
  return {
    seed,
    mode: prng.chance(0.4) ? 'writeback' : prng.pick(modes),
    policy: prng.chance(0.7) ? 'poison' : 'stop',
    sectors,
    budget: 40 + prng.below(260),
    poolPages: 3 * connections + 6,
    deferredSyncs: prng.chance(0.7),
    persistMs: prng.chance(0.5) ? 0 : prng.float() * 20,
    persistFails: sometimes(prng, 0.1, 0.3),
    disk: {
      native: prng.chance(0.5),
      writeMs: prng.float() * 8,
      syncMs: prng.float() * 30,
      inline: prng.chance(0.5) ? prng.float() : 0,
      writeFails: sometimes(prng, 0.2, 0.05),
      readFails: sometimes(prng, 0.2, 0.05),
      syncFails: sometimes(prng, 0.35, 0.3),
      syncLies: 0,
    },
    network: {
      pieceBytes: prng.pick([1, 7, 29, 512, 4096, 65536, 65536, 262144]) * (sectors > 500 ? 64 : 1),
      delayMs: prng.float() * 3,
      windowBytes: prng.pick([4096, 65536, 1 << 20]),
    },
    clients,
    chaos: {
      processKills: sometimes(prng, 0.3, 3),
      hostCrashes: sometimes(prng, 0.35, 4),
      restarts: sometimes(prng, 0.2, 3),
      switches: sometimes(prng, 0.4, 30),
    },
  };
}

function planClient(prng: Prng, index: number, sectors: number): ClientPlan {
  const host = HOSTS[(index + prng.below(3)) % HOSTS.length] as string;
  return {
    host,
    resumable: host.startsWith('tcp') && !host.includes('127.'),
    connections: 1 + prng.below(3),
    traits: {
      depth: 1 + prng.below(16),
      thinkMs: prng.float() * 10,
      hotSectors: 1 + prng.below(Math.min(12, sectors)),
      maxSectors: 1 + prng.below(12),
      huge: sectors > 500 ? 0.15 : 0.02,
      flushShare: prng.float() * 0.3,
      fuaShare: prng.chance(0.3) ? 0 : prng.float() * 0.5,
      readShare: prng.float() * 0.6,
      cuts: sometimes(prng, 0.5, 0.06),
      stalls: sometimes(prng, 0.2, 0.05),
      form: prng.pick(['simple', 'structured', 'extended'] as const),
      exportName: '',
    },
  };
}
