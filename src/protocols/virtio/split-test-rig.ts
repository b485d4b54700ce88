import assert from 'node:assert/strict';
import { ProtocolError } from '../../base/errors.ts';
import type { Segments } from '../../block/memory.ts';
import { Region } from '../../block/memory.ts';
import { DriverMemory } from './driver/driver-memory.ts';
import { SplitDriver } from './driver/split-driver.ts';
import type { GuestMemory, Place } from './guest-memory.ts';
import { RING } from './split-ring.ts';
import { SplitQueue } from './split-queue.ts';
import type { Chain, QueueOptions } from './virtqueue.ts';

/** Where the tests' guest memory begins: addresses that need both words. */
export const GUEST_BASE = 0x1_0000_0000;

export interface RigOptions {
  readonly size?: number;
  readonly eventIdx?: boolean;
  readonly indirect?: boolean;
  readonly memoryBytes?: number;
}

/**
 * A driver and the memory of a split queue for tests: what the driver keeps to by itself can be broken by hand, with the
 * setters here.
 */
export class SplitRig {
  readonly memory: DriverMemory;
  readonly driver: SplitDriver;
  readonly size: number;
  readonly #eventIdx: boolean;
  readonly #indirect: boolean;

  constructor({
    size = 8,
    eventIdx = false,
    indirect = true,
    memoryBytes = 1 << 20,
  }: RigOptions = {}) {
    this.memory = new DriverMemory(Region.plain(memoryBytes), GUEST_BASE, 0x7f00_0000_0000);
    this.driver = new SplitDriver({ memory: this.memory, size, eventIdx, tableEntries: 16 });
    this.size = size;
    this.#eventIdx = eventIdx;
    this.#indirect = indirect;
  }

  options(changes: Partial<QueueOptions> = {}): QueueOptions {
    return {
      size: this.size,
      ...this.driver.places,
      memory: this.memory.memory,
      indirect: this.#indirect,
      eventIdx: this.#eventIdx,
      base: 0,
      inflight: null,
      ...changes,
    };
  }

  queue(changes: Partial<QueueOptions> = {}): SplitQueue {
    return new SplitQueue(this.options(changes));
  }

  /** Writes a descriptor, into the ring's table or another one. */
  describe(
    index: number,
    fields: { address: number | bigint; length: number; flags?: number; next?: number },
    table: Place = this.driver.places.descriptors,
  ): void {
    const { view } = table.region;
    const at = table.start + index * 16;
    view.setBigUint64(at, BigInt(fields.address), true);
    view.setUint32(at + 8, fields.length, true);
    view.setUint16(at + 12, fields.flags ?? 0, true);
    view.setUint16(at + 14, fields.next ?? 0, true);
  }

  /** Makes these heads available, after what is there. */
  offer(...heads: number[]): void {
    for (const head of heads) {
      const index = this.available;
      this.set('driver', RING.entries + (index & (this.size - 1)), head);
      this.set('driver', RING.idx, (index + 1) & 0xffff);
    }
  }

  get available(): number {
    return this.get('driver', RING.idx);
  }

  get usedIndex(): number {
    return this.get('device', RING.idx);
  }

  /** A field of 16 bits of the available ring ('driver') or the used ring ('device'), by its place in units of 16 bits. */
  get(ring: 'driver' | 'device', index: number): number {
    const { region, start } = this.driver.places[ring];
    return region.view.getUint16(start + index * 2, true);
  }

  set(ring: 'driver' | 'device', index: number, value: number): void {
    const { region, start } = this.driver.places[ring];
    region.view.setUint16(start + index * 2, value, true);
  }
}

/** All bytes that segments name, one after the other. */
export function bytesOf(segments: Segments): Uint8Array {
  const bytes = new Uint8Array(segments.totalBytes);
  segments.copyTo(bytes);
  return bytes;
}

/** Every byte of the chain lies in the memory table, and the sums are right. */
export function assertInside(memory: GuestMemory, chain: Chain): void {
  for (const segments of [chain.readable, chain.writable]) {
    let total = 0;
    for (let i = 0; i < segments.count; i += 1) {
      const start = segments.starts[i] as number;
      const end = segments.end(i);
      const inside = memory.regions.some(
        ({ region, sizeBytes }) => region === segments.regions[i] && start >= 0 && end <= sizeBytes,
      );
      assert.ok(inside, `bytes ${start} to ${end} lie outside guest memory`);
      total += end - start;
    }
    assert.equal(segments.totalBytes, total);
  }
}

/** What an operation throws must be a ProtocolError of this text and section. */
export function assertBreaks(run: () => unknown, message: RegExp, spec: string): void {
  assert.throws(run, (error) => {
    assert.ok(error instanceof ProtocolError, String(error));
    assert.match(error.message, message);
    assert.equal(error.spec, spec);
    return true;
  });
}
