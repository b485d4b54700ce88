import assert from 'node:assert/strict';
import { ProtocolError } from '../../base/errors.ts';
import { Region } from '../../block/memory.ts';
import type { Segments } from '../../block/memory.ts';
import { DriverMemory } from './driver/driver-memory.ts';
import type { Buffer } from './driver/driver-queue.ts';
import { PackedDriver } from './driver/packed-driver.ts';
import type { Place } from './guest-memory.ts';
import { PackedQueue } from './packed-queue.ts';
import type { Chain, QueueOptions } from './virtqueue.ts';

/** Both wrap counters 1, both indices 0. */
export const INITIAL_BASE = 0x80008000;
export const GUEST_ADDRESS = 0x1000_0000;

export interface SetUp {
  size?: number;
  eventIdx?: boolean;
  indirect?: boolean;
  base?: number;
  memoryBytes?: number;
}

/** For tests: a packed queue, a driver of ours on it, and the ring as a hostile driver sees it. */
export class PackedRig {
  readonly memory: DriverMemory;
  readonly driver: PackedDriver;
  readonly options: QueueOptions;
  queue: PackedQueue;

  constructor(setUp: SetUp = {}) {
    const { size = 8, eventIdx = false, indirect = true, base = INITIAL_BASE } = setUp;
    const bytes = setUp.memoryBytes ?? 2 ** 18;
    this.memory = new DriverMemory(Region.plain(bytes), GUEST_ADDRESS);
    const tableEntries = indirect ? 4 : 0;
    this.driver = new PackedDriver({ memory: this.memory, size, eventIdx, tableEntries });
    const { memory } = this.memory;
    const { places } = this.driver;
    this.options = { size, ...places, memory, indirect, eventIdx, base, inflight: null };
    this.queue = new PackedQueue(this.options);
  }

  buffer(length = 16): Buffer {
    return this.memory.allocate(length);
  }

  at(slot: number): number {
    return this.driver.places.descriptors.start + slot * 16;
  }

  /** Writes a descriptor as it is told. */
  put(slot: number, { address, length }: Buffer, id: number, flags: number): void {
    putDescriptor(this.memory.region, this.at(slot), address, length, id, flags);
  }

  flags(slot: number): number {
    return this.memory.region.view.getUint16(this.at(slot) + 14, true);
  }

  id(slot: number): number {
    return this.memory.region.view.getUint16(this.at(slot) + 12, true);
  }

  length(slot: number): number {
    return this.memory.region.view.getUint32(this.at(slot) + 8, true);
  }

  ringBytes(): number[] {
    const start = this.at(0);
    return [...this.memory.region.bytes.subarray(start, start + this.driver.size * 16)];
  }

  /** Writes an indirect table. */
  table(entries: readonly { buffer: Buffer; flags: number; id?: number }[]): Buffer {
    const table = this.memory.allocate(entries.length * 16);
    const { start } = this.memory.placeOf(table.address);
    for (const [i, { buffer, flags, id = 0 }] of entries.entries()) {
      putDescriptor(this.memory.region, start + i * 16, buffer.address, buffer.length, id, flags);
    }
    return table;
  }

  take(): Chain {
    const chain = this.queue.take();
    assert.ok(chain !== null, 'no chain');
    return chain;
  }

  /** What the driver's event suppression says. */
  suppress(flags: number, offset = 0, wrap = 1): void {
    setEvent(this.driver.places.driver, flags, offset, wrap);
  }

  deviceEvent(): { flags: number; offset: number; wrap: number } {
    const { region, start } = this.driver.places.device;
    const desc = region.view.getUint16(start, true);
    const flags = region.view.getUint16(start + 2, true);
    return { flags, offset: desc & 0x7fff, wrap: desc >> 15 };
  }

  rejects(message: RegExp, section: string): void {
    assert.throws(
      () => this.queue.take(),
      (error) =>
        error instanceof ProtocolError &&
        message.test(error.message) &&
        error.spec === `virtio ${section}`,
    );
  }
}

function putDescriptor(
  region: Region,
  at: number,
  address: number,
  length: number,
  id: number,
  flags: number,
): void {
  region.view.setBigUint64(at, BigInt(address), true);
  region.view.setUint32(at + 8, length, true);
  region.view.setUint16(at + 12, id, true);
  region.view.setUint16(at + 14, flags, true);
}

function setEvent({ region, start }: Place, flags: number, offset: number, wrap: number): void {
  region.view.setUint16(start, offset | (wrap << 15), true);
  region.view.setUint16(start + 2, flags, true);
}

/** Segments as guest addresses and lengths. */
export function listed(segments: Segments): Buffer[] {
  return Array.from({ length: segments.count }, (_, i) => ({
    address: GUEST_ADDRESS + (segments.starts[i] as number),
    length: segments.lengths[i] as number,
  }));
}
