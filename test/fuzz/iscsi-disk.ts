import { Buffer } from 'node:buffer';
import type { Timers } from '../../src/base/clock.ts';
import type { Prng } from '../../src/base/prng.ts';
import type { BlockDevice, DeviceInfo } from '../../src/block/device.ts';
import { Io, OP } from '../../src/block/io.ts';
import { Region } from '../../src/block/memory.ts';
import { openMemoryStore } from '../../src/stores/memory/memory-store.ts';
import type { Ledger } from './iscsi-ledger.ts';

/** A disk that takes its time, fails now and then, and has each change judged. */
export class JudgedDisk implements BlockDevice {
  readonly info: DeviceInfo;
  readonly #store: BlockDevice;
  readonly #ledger: Ledger;
  readonly #timers: Timers;
  readonly #prng: Prng;
  readonly #failing: number;
  readonly #slow: number;
  #quiet = false;

  constructor(ledger: Ledger, timers: Timers, prng: Prng) {
    const { sizeBytes, blockBytes, shadow } = ledger;
    this.#store = openMemoryStore({ name: 'fuzzed', sizeBytes, blockBytes });
    this.info = { ...this.#store.info, writeCache: true };
    this.#ledger = ledger;
    this.#timers = timers;
    this.#prng = prng;
    this.#failing = prng.chance(0.2) ? 0.02 : 0;
    this.#slow = prng.pick([0, 0.1, 0.6]);
    const content = Buffer.from(shadow.subarray(0, firstZero(shadow)));
    if (content.length > 0) this.#store.submit(ioOf(OP.WRITE, 0, content));
  }

  submit(io: Io): void {
    if (this.#quiet || !this.#prng.chance(this.#slow)) this.#perform(io);
    else this.#timers.after(this.#prng.float() * 5, () => this.#perform(io));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** From here on it is a good disk. */
  recover(): void {
    this.#quiet = true;
  }

  content(): Buffer {
    const bytes = Buffer.alloc(this.info.sizeBytes);
    this.#store.submit(ioOf(OP.READ, 0, bytes));
    return bytes;
  }

  #perform(io: Io): void {
    if (!this.#quiet && this.#failing > 0 && this.#prng.chance(this.#failing)) {
      io.complete(this.#prng.pick(['EIO', 'ENOSPC']));
      return;
    }
    if (io.op === OP.WRITE) {
      const bytes = Buffer.alloc(io.length);
      io.segments.copyTo(bytes);
      this.#ledger.wrote(io.offset, bytes);
    } else if (io.op === OP.WRITE_ZEROES || io.op === OP.DISCARD) {
      this.#ledger.zeroed(io.offset, io.length);
    }
    this.#store.submit(io);
  }
}

function firstZero(shadow: Buffer): number {
  const at = shadow.indexOf(Buffer.alloc(8));
  return at < 0 ? shadow.length : at & ~511;
}

function ioOf(op: typeof OP.READ | typeof OP.WRITE, offset: number, bytes: Buffer): Io {
  const io = new Io();
  io.reset(op, offset, bytes.length, 0);
  io.segments.push(Region.plain(bytes), 0, bytes.length);
  io.push({ ioDone: () => {} });
  return io;
}
