import type { Prng } from '../../src/base/prng.ts';
import { makePrng } from './media.ts';
import { planScenario, type Scenario } from './scenario.ts';

/**
 * What a front-end does with the `writeback` byte. `copies` is QEMU: it reads it once, and keeps what a driver writes;
 * later reads take nothing over. `refreshes` takes over what it reads when the configuration has changed. `asks` keeps nothing.
 */
export type FrontEndKind = 'copies' | 'refreshes' | 'asks';

/** How a front-end resets the device: all ways that there are. `silent`: it only stops the rings, as old QEMUs do. */
export type ResetStyle = 'device' | 'status' | 'silent' | 'first';

/** A virtual machine, and what its guest does. Shares are probabilities. */
export interface VmPlan {
  readonly kind: FrontEndKind;
  /** It can be told of changes of the configuration. */
  readonly channel: boolean;
  readonly inflight: boolean;
  readonly status: boolean;
  readonly memorySlots: boolean;
  readonly resetStyle: ResetStyle;
  /** Rings without a kick: the server looks for itself. */
  readonly unkicked: boolean;
  /** Drivers that look for themselves, without interrupts. */
  readonly polls: boolean;
  /** Queues that the device offers. */
  readonly queues: number;
  readonly queueSize: number;
  readonly offerFua: boolean;
  /** Of messages, rings and interrupts. */
  readonly delayMs: number;
  readonly depth: number;
  readonly thinkMs: number;
  readonly hotSectors: number;
  readonly maxSectors: number;
  readonly flushShare: number;
  readonly fuaShare: number;
  readonly readShare: number;
  readonly barrierShare: number;
  /** Of answers: what happens instead of going on. */
  readonly deaths: number;
  readonly resets: number;
  readonly pauses: number;
  readonly switches: number;
  readonly looks: number;
  readonly plugs: number;
}

export interface VmWorld {
  readonly vms: readonly VmPlan[];
  /** At each place where the process can die. */
  readonly kills: number;
  readonly sharing: { readonly delayMs: number; readonly pieceBytes: number };
}

/** The same seed with virtual machines. What they add comes from a stream of its own, so that the rest stays. */
export function planVms(seed: number): { scenario: Scenario; world: VmWorld } {
  const base = planScenario(seed);
  const prng = makePrng(seed, 10);
  const alone = prng.chance(0.5);
  const vms = Array.from({ length: prng.chance(0.3) ? 2 : 1 }, () => planVm(prng, base.sectors));
  const kills = sometimes(prng, 0.3, 0.004);
  const parts = alone && prng.chance(0.3) ? 512 * (1 + prng.below(8)) : undefined;
  return {
    scenario: {
      ...base,
      clients: alone ? [] : base.clients,
      ...(parts === undefined ? {} : { disk: { ...base.disk, maxTransferBytes: parts } }),
    },
    world: {
      vms,
      kills,
      sharing: { delayMs: prng.float() * 2, pieceBytes: prng.pick([1, 5, 40, 400]) },
    },
  };
}

function sometimes(prng: Prng, share: number, most: number): number {
  return prng.chance(share) ? prng.float() * most : 0;
}

function planVm(prng: Prng, sectors: number): VmPlan {
  return {
    kind: prng.pick(['copies', 'refreshes', 'asks'] as const),
    channel: prng.chance(0.8),
    inflight: prng.chance(0.8),
    status: prng.chance(0.6),
    memorySlots: prng.chance(0.5),
    resetStyle: prng.pick(['device', 'status', 'silent', 'first'] as const),
    unkicked: prng.chance(0.05),
    polls: prng.chance(0.1),
    queues: 1 + prng.below(4),
    queueSize: prng.pick([4, 8, 8, 16, 64]),
    offerFua: prng.chance(0.5),
    delayMs: prng.float() * 3,
    depth: 1 + prng.below(16),
    thinkMs: prng.float() * 10,
    hotSectors: 1 + prng.below(Math.min(12, sectors)),
    maxSectors: 1 + prng.below(12),
    flushShare: prng.float() * 0.3,
    fuaShare: prng.float() * 0.5,
    readShare: prng.float() * 0.6,
    barrierShare: sometimes(prng, 0.5, 0.2),
    deaths: sometimes(prng, 0.3, 0.03),
    resets: sometimes(prng, 0.4, 0.05),
    pauses: sometimes(prng, 0.3, 0.05),
    switches: sometimes(prng, 0.5, 0.1),
    looks: sometimes(prng, 0.3, 0.1),
    plugs: sometimes(prng, 0.3, 0.05),
  };
}
