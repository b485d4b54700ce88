import type { Prng } from '../../src/base/prng.ts';
import type { BlockDevice, DeviceInfo } from '../../src/block/device.ts';
import { Io, OP } from '../../src/block/io.ts';
import { Region } from '../../src/block/memory.ts';
import { type MemoryStore, openMemoryStore } from '../../src/stores/memory/memory-store.ts';
import type { Extent } from './virtio-blk-model.ts';

export interface StoreOptions {
  readonly sizeBytes: number;
  readonly blockBytes: 512 | 4096;
  readonly readOnly: boolean;
  readonly maxTransferBytes: number;
  /** Requests wait until they are released, in any order. */
  readonly slow: boolean;
  /** Reads of it fail. */
  readonly bad: Extent;
}

/** A disk in memory, with what drives have beside: time, an order of their own, and sectors that cannot be read. */
export class FuzzStore implements BlockDevice {
  readonly info: DeviceInfo;
  readonly #memory: MemoryStore;
  readonly #slow: boolean;
  readonly #bad: Extent;
  readonly #waiting: Io[] = [];
  readonly #content: Uint8Array;
  readonly #reader = new Io();

  constructor({ sizeBytes, blockBytes, readOnly, maxTransferBytes, slow, bad }: StoreOptions) {
    this.#memory = openMemoryStore({ name: 'fuzzed', sizeBytes, blockBytes, readOnly });
    this.info = Object.freeze({ ...this.#memory.info, maxTransferBytes });
    this.#slow = slow;
    this.#bad = bad;
    this.#content = new Uint8Array(sizeBytes);
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  submit(io: Io): void {
    if (this.#slow) this.#waiting.push(io);
    else this.#perform(io);
  }

  /** Carries out one of the requests that wait. */
  release(prng: Prng): void {
    const [io] = this.#waiting.splice(prng.below(this.#waiting.length), 1);
    if (io !== undefined) this.#perform(io);
  }

  /** All of the disk: the same array each time. */
  read(): Uint8Array {
    const io = this.#reader;
    io.reset(OP.READ, 0, this.#content.length, 0);
    io.segments.push(Region.plain(this.#content), 0, this.#content.length);
    io.push({ ioDone: () => {} });
    this.#memory.submit(io);
    return this.#content;
  }

  write(bytes: Uint8Array): void {
    const io = new Io();
    io.reset(OP.WRITE, 0, bytes.length, 0);
    io.segments.push(Region.plain(bytes), 0, bytes.length);
    io.push({ ioDone: () => {} });
    this.#memory.submit(io);
  }

  close(): Promise<void> {
    return this.#memory.close();
  }

  #perform(io: Io): void {
    const { at, length } = this.#bad;
    if (io.op === OP.READ && io.offset < at + length && at < io.offset + io.length) {
      io.complete('EIO');
    } else this.#memory.submit(io);
  }
}
