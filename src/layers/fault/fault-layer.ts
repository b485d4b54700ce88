import { assert, unreachable } from '../../base/assert.ts';
import type { Timer, Timers } from '../../base/clock.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { Prng } from '../../base/prng.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { FLAG, Io, OP, type IoOwner } from '../../block/io.ts';
import type { Region, Segments } from '../../block/memory.ts';
import { checkRule, Fault, type FaultRule, type OpName } from './rules.ts';

export interface FaultLayerOptions {
  readonly rules?: readonly FaultRule[];
  /** For probabilities and torn writes. Default 1. */
  readonly seed?: number;
  /** Needed for rules that delay. */
  readonly timers?: Timers;
}

/**
 * A device over one child that goes wrong on purpose, by rule. The first rule that fires decides; two layers stacked
 * combine two effects. Without rules it is transparent. It is for tests and the simulator: a request that a rule acts
 * on costs allocations, all others cost one call.
 */
export class FaultLayer implements BlockDevice, IoOwner {
  readonly #child: BlockDevice;
  readonly #timers: Timers | null;
  readonly #prng: Prng;
  #faults: Fault[] = [];
  readonly #counts: Record<OpName, number> = {
    READ: 0,
    WRITE: 0,
    FLUSH: 0,
    DISCARD: 0,
    WRITE_ZEROES: 0,
    CACHE: 0,
    EXTENTS: 0,
  };
  /** What is still to happen when the child is done with a request. */
  readonly #afterwards = new Map<Io, (error: BlockErrorCode | null) => void>();
  readonly #waiting = new Map<Timer, () => void>();
  #inFlight = 0;
  #closed = false;
  #drained: (() => void) | null = null;

  constructor(child: BlockDevice, options: FaultLayerOptions = {}) {
    this.#child = child;
    this.#timers = options.timers ?? null;
    this.#prng = new Prng(options.seed ?? 1);
    for (const rule of options.rules ?? []) this.add(rule);
  }

  /** The child's. A layer that lies about FLUSH does not say so: that is the fault. */
  get info(): DeviceInfo {
    return this.#child.info;
  }

  /** Requests submitted to this layer since it was made, by op. */
  get counts(): Readonly<Record<OpName, number>> {
    return this.#counts;
  }

  /** Requests submitted and not completed. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Adds a rule after all others. */
  add(rule: FaultRule): Fault {
    checkRule(rule, this.info.blockBytes, this.#timers !== null);
    const fault = new Fault(rule);
    this.#faults.push(fault);
    return fault;
  }

  /** Removes all rules and lets go what they hold. */
  clear(): void {
    const faults = this.#faults;
    this.#faults = [];
    for (const fault of faults) {
      fault.remove();
      fault.release();
    }
  }

  submit(io: Io): void {
    if (this.#closed) {
      io.complete('ESHUTDOWN');
      return;
    }
    this.#count(io);
    this.#inFlight += 1;
    io.push(this, io.flags);
    for (const fault of this.#faults) {
      if (fault.fires(io, this.#prng)) {
        this.#act(fault, io);
        return;
      }
    }
    this.#child.submit(io);
  }

  /** The child is done, or a fault completes the request in its place. */
  ioDone(io: Io): void {
    io.flags = io.saved;
    const afterwards = this.#afterwards.get(io);
    if (afterwards === undefined) {
      this.#finish(io, io.error);
    } else {
      this.#afterwards.delete(io);
      afterwards(io.error);
    }
  }

  /** What hangs or is delayed goes on at once; then waits for all in flight and closes the child. */
  async close(): Promise<void> {
    this.#closed = true;
    this.clear();
    for (const [timer, go] of this.#waiting) {
      timer.cancel();
      this.#waiting.delete(timer);
      go();
    }
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
    await this.#child.close();
  }

  #act(fault: Fault, io: Io): void {
    const { effect } = fault.rule;
    switch (effect.kind) {
      case 'error':
        if (effect.after === true) this.#submitThen(io, () => this.#finish(io, effect.code));
        else io.complete(effect.code);
        return;
      case 'delay':
        this.#hold(io, effect.after === true, (go) => this.#later(effect.ms, go));
        return;
      case 'hang':
        this.#hold(io, effect.after === true, (go) => fault.hold(go));
        return;
      case 'lie':
        this.#lie(io);
        return;
      case 'drop':
        io.complete(null);
        return;
      case 'torn':
        this.#tear(io, effect.code, effect.keepBytes);
        return;
      default:
        unreachable(effect);
    }
  }

  #hold(io: Io, after: boolean, wait: (go: () => void) => void): void {
    if (!after) {
      wait(() => this.#child.submit(io));
      return;
    }
    this.#submitThen(io, (error) => {
      // A layer that is closing waits no longer.
      if (this.#closed) this.#finish(io, error);
      else wait(() => this.#finish(io, error));
    });
  }

  #later(ms: number, go: () => void): void {
    assert(this.#timers !== null, 'a delay needs timers');
    const timer = this.#timers.after(ms, () => {
      this.#waiting.delete(timer);
      go();
    });
    this.#waiting.set(timer, go);
  }

  #lie(io: Io): void {
    if (io.op === OP.FLUSH) {
      io.complete(null);
      return;
    }
    // The owner gets its flags back in ioDone.
    io.flags &= ~FLAG.FUA;
    this.#child.submit(io);
  }

  /** Passes the first bytes on as a request of our own, so that the owner's stays as it is. */
  #tear(io: Io, code: BlockErrorCode, keepBytes?: number): void {
    const { blockBytes } = this.info;
    const blocks = keepBytes === undefined ? this.#prng.below(io.length / blockBytes + 1) : null;
    const keep = Math.min(io.length, blocks === null ? (keepBytes ?? 0) : blocks * blockBytes);
    if (keep === 0) {
      io.complete(code);
      return;
    }
    const part = new Io();
    part.reset(io.op, io.offset, keep, io.flags);
    if (io.op === OP.WRITE) pushFirst(part.segments, io.segments, keep);
    part.push({ ioDone: () => io.complete(code) });
    this.#child.submit(part);
  }

  #submitThen(io: Io, afterwards: (error: BlockErrorCode | null) => void): void {
    this.#afterwards.set(io, afterwards);
    this.#child.submit(io);
  }

  #finish(io: Io, error: BlockErrorCode | null): void {
    this.#inFlight -= 1;
    io.complete(error);
    if (this.#inFlight === 0 && this.#drained !== null) {
      this.#drained();
      this.#drained = null;
      letEventLoopRun();
    }
  }

  #count(io: Io): void {
    switch (io.op) {
      case OP.READ:
        this.#counts.READ += 1;
        return;
      case OP.WRITE:
        this.#counts.WRITE += 1;
        return;
      case OP.FLUSH:
        this.#counts.FLUSH += 1;
        return;
      case OP.DISCARD:
        this.#counts.DISCARD += 1;
        return;
      case OP.WRITE_ZEROES:
        this.#counts.WRITE_ZEROES += 1;
        return;
      case OP.CACHE:
        this.#counts.CACHE += 1;
        return;
      case OP.EXTENTS:
        this.#counts.EXTENTS += 1;
        return;
      default:
        unreachable(io.op);
    }
  }
}

/** Appends the first `length` bytes of `source` to `target`. */
function pushFirst(target: Segments, source: Segments, length: number): void {
  let left = length;
  for (let i = 0; i < source.count && left > 0; i += 1) {
    const take = Math.min(left, source.lengths[i] as number);
    target.push(source.regions[i] as Region, source.starts[i] as number, take);
    left -= take;
  }
}
