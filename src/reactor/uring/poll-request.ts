import { assert } from '../../base/assert.ts';
import { Completion } from '../reactor.ts';
import { IORING_OP, type Ring } from './ring.ts';

// [io_uring_enter(2)] IORING_OP_POLL_ADD: flags travel in len.
const IORING_POLL_ADD_MULTI = 1;

class Cancel extends Completion {
  readonly #done: () => void;
  constructor(done: () => void) {
    super();
    this.#done = done;
  }
  override complete(): void {
    this.#done();
  }
}

/**
 * Waits on the ring until a descriptor has one of some events [poll(2)]. Once per `arm`, which sees what is there
 * already; with `multishot`, on and on at every new event, without looking at what was there before.
 */
export class PollRequest extends Completion {
  readonly #ring: Ring;
  readonly #fd: number;
  readonly #events: number;
  readonly #multishot: boolean;
  readonly #happened: (result: number) => void;
  readonly #cancel: Cancel;
  #armed = false;
  #stopped: (() => void) | null = null;

  /** `happened` gets the events, or -errno. */
  constructor(
    ring: Ring,
    fd: number,
    events: number,
    multishot: boolean,
    happened: (result: number) => void,
  ) {
    super();
    this.#ring = ring;
    this.#fd = fd;
    this.#events = events;
    this.#multishot = multishot;
    this.#happened = happened;
    this.#cancel = new Cancel(() => {
      ring.forget(this.#cancel);
      this.#finish();
    });
  }

  /** Whether the kernel still watches. */
  get armed(): boolean {
    return this.#armed;
  }

  /** Harmless when it is armed already. */
  arm(): void {
    assert(this.#stopped === null, 'a stopped poll is not armed again');
    if (this.#armed) return;
    this.#armed = true;
    const flags = this.#multishot ? IORING_POLL_ADD_MULTI : 0;
    this.#ring.prepare(this, IORING_OP.POLL_ADD, this.#fd, 0, flags, 0, this.#events);
  }

  override complete(result: number): void {
    this.#armed = this.#ring.more;
    if (this.#stopped === null) this.#happened(result);
    else this.#finish();
  }

  /**
   * `happened` is not called any more. `stopped` comes in a later turn: from then on the kernel has nothing of it. The
   * descriptor may be closed earlier, once the ring has submitted the cancellation.
   */
  stop(stopped: () => void): void {
    assert(this.#stopped === null, 'a poll is stopped once');
    this.#stopped = stopped;
    // Also when nothing is armed: the answer then says so, and comes in a later turn as always.
    const slot = this.slot < 0 ? NO_SLOT : this.slot;
    this.#ring.prepare(this.#cancel, IORING_OP.ASYNC_CANCEL, -1, slot, 0, 0, 0);
  }

  #finish(): void {
    // Both must be through, else the slot could be another's while the cancellation still looks for it.
    if (this.#armed || this.#cancel.slot >= 0) return;
    this.#ring.forget(this);
    this.#stopped?.();
  }
}

/** No Completion has this slot. */
const NO_SLOT = 2 ** 31 - 1;
