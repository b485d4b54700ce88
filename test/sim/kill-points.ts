import { AssertionError } from '../../src/base/assert.ts';
import type { Prng } from '../../src/base/prng.ts';
import type { Region } from '../../src/block/memory.ts';

/** Thrown where the process dies. Nobody catches it but the world: for the server it is a failed assertion. */
export class Killed extends AssertionError {
  readonly killed = true;
}

/**
 * Places inside the server at which it may die: between any two stores to a log of requests in flight, and right before
 * and after a batch becomes visible to a driver. Elsewhere a process that dies between two events has done the same.
 */
export class KillPoints {
  readonly #prng: Prng;
  readonly #chance: number;
  /** A server that stops by itself is left alone. */
  allowed: () => boolean = () => true;

  constructor(prng: Prng, chance: number) {
    this.#prng = prng;
    this.#chance = chance;
  }

  get #now(): boolean {
    return this.#chance > 0 && this.#prng.chance(this.#chance) && this.allowed();
  }

  check(): void {
    if (this.#now) throw new Killed('between two stores');
  }

  /** Its DataView may kill the process before any store. */
  watch(region: Region): void {
    if (this.#chance === 0) return;
    const { bytes } = region;
    const view = new FatalView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    view.kills = this;
    Object.assign(region, { view });
  }

  /**
   * Does `publish`, which makes used chains visible to a driver with one atomic store. `visible` is called right after it,
   * before anything else is done.
   */
  around(publish: () => boolean, visible: () => void): boolean {
    const store = Atomics.store;
    let done = false;
    const watched = (array: Uint16Array, index: number, value: number): number => {
      if (done) return store(array, index, value);
      done = true;
      this.check();
      store(array, index, value);
      visible();
      this.check();
      return value;
    };
    Atomics.store = watched as unknown as typeof store;
    try {
      return publish();
    } finally {
      Atomics.store = store;
    }
  }
}

class FatalView extends DataView<ArrayBufferLike> {
  kills: KillPoints | null = null;

  override setUint8(at: number, value: number): void {
    this.kills?.check();
    super.setUint8(at, value);
  }

  override setUint16(at: number, value: number, littleEndian?: boolean): void {
    this.kills?.check();
    super.setUint16(at, value, littleEndian);
  }

  override setUint32(at: number, value: number, littleEndian?: boolean): void {
    this.kills?.check();
    super.setUint32(at, value, littleEndian);
  }
}
