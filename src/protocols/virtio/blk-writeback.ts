import type { CacheBelief } from '../../durability/disk-session.ts';

/**
 * What the other side takes the write cache for: who was told which `writeback` byte, and what that is worth.
 *
 * Front-ends keep a copy of the configuration space and answer drivers from it. QEMU reads it when it starts, keeps the
 * byte that a driver writes, and takes over nothing but the capacity when it reads again, so that a driver may be
 * shown a 0 long after it was true here. A driver that believes in a 0 never flushes. Hence: a 0 is believed from the moment
 * it was told or written, by this driver and, through the copy, by its successors; a 1 that is read later only makes it
 * doubtful, until the driver flushes, or writes a 1 itself.
 */
export class WritebackByte {
  /** The byte last told or written; null: none yet. */
  told: 0 | 1 | null = null;
  /** What the front-end may answer from its copy; null: it has none that we know of. */
  #copy: CacheBelief | null = null;
  /** What the driver may have seen. One that was there before us may have seen anything. */
  #driver: CacheBelief = 'off';
  /** No driver of this front-end has begun: what it reads now is what it keeps. */
  #untouched = true;
  /** The next driver is another one. */
  #reset = false;

  /** What the driver now at work, or to come if nobody is, takes the cache for. */
  get belief(): CacheBelief {
    return this.#driver;
  }

  /** The front-end has read the byte. */
  read(value: 0 | 1): void {
    this.told = value;
    if (value === 0) {
      this.#believe('off');
      return;
    }
    if (this.#copy === null) this.#copy = this.#untouched ? 'on' : 'doubtful';
    else if (this.#copy === 'off') this.#copy = 'doubtful';
    if (this.#driver === 'off') this.#driver = 'doubtful';
  }

  /** The driver writes a 0. A front-end that does not wait for the answer believes in it at once. */
  switchingOff(): void {
    this.#believe('off');
  }

  /** What the driver wrote holds. */
  written(value: 0 | 1): void {
    this.told = value;
    this.#believe(value === 1 ? 'on' : 'off');
  }

  /** The 0 that the driver wrote does not hold: it was told so, but whether it listened nobody knows. */
  notSwitchedOff(): void {
    this.#believe(this.told === 1 ? 'doubtful' : 'off');
  }

  /** The device was reset: the driver that comes next knows nothing but what the front-end tells it. */
  deviceReset(): void {
    this.#reset = true;
  }

  /** A driver begins: the one of before, or `another`, which knows nothing but what the front-end tells it. */
  driverBegins(another: boolean): void {
    if (another || this.#reset) this.#driver = this.#copy ?? 'off';
    this.#reset = false;
    this.#untouched = false;
  }

  #believe(belief: CacheBelief): void {
    this.#copy = belief;
    this.#driver = belief;
  }
}
