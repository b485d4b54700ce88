import { assert, unreachable } from '../../base/assert.ts';
import type { Prng } from '../../base/prng.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { FLAG, OP, type Io, type Op } from '../../block/io.ts';

export type OpName = keyof typeof OP;

/** What goes wrong with a request. */
export type FaultEffect =
  /** It fails. `after`: the child has done it all the same (default: it has not seen it). */
  | { readonly kind: 'error'; readonly code: BlockErrorCode; readonly after?: boolean }
  /** It takes longer. `after`: the wait comes when the child has done it (default: before). */
  | { readonly kind: 'delay'; readonly ms: number; readonly after?: boolean }
  /** It waits until `Fault.release` (or close). `after` as with delay. */
  | { readonly kind: 'hang'; readonly after?: boolean }
  /** Only for FLUSH and requests with FUA: FLUSH completes and is not done, FUA is taken off on the way down. */
  | { readonly kind: 'lie' }
  /** Only for WRITE, WRITE_ZEROES and DISCARD: it completes and nothing is changed. */
  | { readonly kind: 'drop' }
  /**
   * Only for WRITE, WRITE_ZEROES and DISCARD: the first `keepBytes` are done (default: random whole blocks), then it
   * fails.
   */
  | { readonly kind: 'torn'; readonly code: BlockErrorCode; readonly keepBytes?: number };

/** Which requests, and what happens to them. All given conditions must hold. */
export interface FaultRule {
  /** Default: every op. */
  readonly ops?: readonly OpName[];
  /** Only requests with FUA, or only those without. */
  readonly fua?: boolean;
  /** Only requests that touch this range of bytes. FLUSH touches none. */
  readonly range?: { readonly offset: number; readonly length: number };
  /** Lets so many matching requests pass first. */
  readonly skip?: number;
  /** Then acts on so many. Default: all. */
  readonly times?: number;
  /** Acts on each of these with this probability, from the layer's seed. Default: 1. */
  readonly probability?: number;
  readonly effect: FaultEffect;
}

/** A rule at work, as `FaultLayer.add` returns it. */
export class Fault {
  readonly rule: FaultRule;
  /** Requests that matched ops, fua and range. */
  matched = 0;
  /** Requests that the effect was done to. */
  fired = 0;
  readonly #held = new Set<() => void>();
  #removed = false;

  constructor(rule: FaultRule) {
    this.rule = rule;
  }

  /** No more requests are touched. Those held stay held. */
  remove(): void {
    this.#removed = true;
  }

  /** Lets all requests held by a `hang` go on. */
  release(): void {
    for (const go of this.#held) {
      this.#held.delete(go);
      go();
    }
  }

  /** Requests held now. */
  get holding(): number {
    return this.#held.size;
  }

  /** For FaultLayer: counts the request and says whether the effect is done to it. */
  fires(io: Io, prng: Prng): boolean {
    const { rule } = this;
    if (this.#removed || !applies(rule, io)) return false;
    this.matched += 1;
    if (this.matched <= (rule.skip ?? 0)) return false;
    if (rule.times !== undefined && this.fired >= rule.times) return false;
    if (rule.probability !== undefined && !prng.chance(rule.probability)) return false;
    this.fired += 1;
    return true;
  }

  /** For FaultLayer. */
  hold(go: () => void): void {
    this.#held.add(go);
  }
}

/** Refuses rules that could never do what they say. */
export function checkRule(rule: FaultRule, blockBytes: number, hasTimers: boolean): void {
  const { effect, probability = 1 } = rule;
  assert(effect.kind !== 'delay' || hasTimers, 'a delay needs timers');
  assert(probability >= 0 && probability <= 1, 'a probability is between 0 and 1');
  assert(
    effect.kind !== 'torn' || (effect.keepBytes ?? 0) % blockBytes === 0,
    'writes tear between blocks',
  );
  assert(rule.ops === undefined || rule.ops.length > 0, 'a rule without ops never acts');
}

function applies(rule: FaultRule, io: Io): boolean {
  const { ops, fua, range } = rule;
  if (ops !== undefined && !ops.some((name) => OP[name] === io.op)) return false;
  if (fua !== undefined && fua !== hasFua(io)) return false;
  if (range !== undefined && !touches(io, range.offset, range.length)) return false;
  switch (rule.effect.kind) {
    case 'lie':
      return isFlush(io.op) || (io.mutates && hasFua(io));
    case 'drop':
    case 'torn':
      return io.mutates;
    case 'error':
    case 'delay':
    case 'hang':
      return true;
    default:
      return unreachable(rule.effect);
  }
}

function hasFua(io: Io): boolean {
  return (io.flags & FLAG.FUA) !== 0;
}

function isFlush(op: Op): boolean {
  return op === OP.FLUSH;
}

function touches(io: Io, offset: number, length: number): boolean {
  if (isFlush(io.op)) return false;
  return io.offset < offset + length && io.offset + io.length > offset;
}
