import { ProtocolError } from '../../base/errors.ts';
import type { Place } from './guest-memory.ts';

/** [vhost-user "Inflight I/O tracking"] */
const SPEC = 'vhost-user "Inflight I/O tracking"';

/** QueueRegionSplit, offsets in bytes. All fields are little-endian. */
const HEADER = {
  features: 0,
  version: 8,
  desc_num: 10,
  last_batch_head: 12,
  used_idx: 14,
  bytes: 16,
} as const;
/** DescStateSplit, offsets in bytes. */
const ENTRY = { inflight: 0, next: 6, counter: 8, bytes: 16 } as const;

const VERSION = 1;
const WORD = 2 ** 32;

/** Parts of a region begin at multiples of it, so that queues share no cache line. libvhost-user and DPDK do the same. */
const ALIGNMENT = 64;

/** Bytes of one split queue's part of an in-flight region. */
export function splitRegionBytes(queueSize: number): number {
  return Math.ceil((HEADER.bytes + queueSize * ENTRY.bytes) / ALIGNMENT) * ALIGNMENT;
}

/**
 * The log of what a split queue has taken and not yet given back [vhost-user "Inflight I/O tracking"]. It lies in memory
 * that outlives this process, and is right after every single store: a successor gives the driver each chain back once,
 * though it may execute it again.
 *
 * The region comes from the front-end. What it says is checked before it is believed.
 */
export class SplitInflight {
  /** Heads that an earlier process had taken and not given back, oldest first. */
  readonly unfinished: readonly number[];
  /** There was no log yet. */
  readonly fresh: boolean;
  readonly #view: DataView;
  readonly #start: number;
  #counter: number;
  /** Our own copy of last_batch_head. */
  #batchHead: number;

  /**
   * Begins a log, or goes on with it: `usedIndex` is the used ring's. Throws a ProtocolError when the region is too short
   * or is not the log of a queue of this size at this index.
   */
  constructor(place: Place, queueSize: number, usedIndex: number) {
    const { region, start } = place;
    this.#view = region.view;
    this.#start = start;
    if (start + splitRegionBytes(queueSize) > region.bytes.length) {
      throw new ProtocolError('the in-flight region is too short', SPEC);
    }
    const version = this.#view.getUint16(start + HEADER.version, true);
    this.fresh = version === 0;
    if (this.fresh) this.#begin(region.bytes, queueSize, usedIndex);
    else this.#check(version, queueSize);
    this.#settleBatch(queueSize, usedIndex);
    const found = this.#collect(queueSize);
    this.unfinished = found.map(({ head }) => head);
    this.#counter = (found.at(-1)?.counter ?? -1) + 1;
    this.#batchHead = this.#view.getUint16(start + HEADER.last_batch_head, true);
  }

  /** A head was taken. Before anything of it is executed. */
  took(head: number): void {
    const at = this.#entry(head);
    const counter = this.#counter;
    this.#counter = counter + 1;
    this.#view.setUint32(at + ENTRY.counter, counter >>> 0, true);
    this.#view.setUint32(at + ENTRY.counter + 4, Math.floor(counter / WORD), true);
    this.#view.setUint8(at + ENTRY.inflight, 1);
  }

  /** A head is in the batch that is made visible next. */
  gave(head: number): void {
    this.#view.setUint16(this.#entry(head) + ENTRY.next, this.#batchHead, true);
    this.#view.setUint16(this.#start + HEADER.last_batch_head, head, true);
    this.#batchHead = head;
  }

  /** The batch, `count` heads, is visible: the used ring's index is `usedIndex` now. */
  published(heads: Uint16Array, count: number, usedIndex: number): void {
    for (let i = 0; i < count; i += 1) {
      this.#view.setUint8(this.#entry(heads[i] as number) + ENTRY.inflight, 0);
    }
    this.#view.setUint16(this.#start + HEADER.used_idx, usedIndex, true);
  }

  #entry(head: number): number {
    return this.#start + HEADER.bytes + head * ENTRY.bytes;
  }

  /** "Zero value indicates an uninitialized buffer": the version is set last. */
  #begin(bytes: Uint8Array, queueSize: number, usedIndex: number): void {
    bytes.fill(0, this.#start, this.#start + splitRegionBytes(queueSize));
    this.#view.setUint16(this.#start + HEADER.desc_num, queueSize, true);
    this.#view.setUint16(this.#start + HEADER.used_idx, usedIndex, true);
    this.#view.setUint16(this.#start + HEADER.version, VERSION, true);
  }

  #check(version: number, queueSize: number): void {
    if (version !== VERSION) {
      throw new ProtocolError(`the in-flight region has version ${version}`, SPEC);
    }
    const entries = this.#view.getUint16(this.#start + HEADER.desc_num, true);
    if (entries !== queueSize) {
      throw new ProtocolError(
        `the in-flight region is for a queue of ${entries}, not ${queueSize}`,
        SPEC,
      );
    }
    if (this.#view.getBigUint64(this.#start + HEADER.features, true) !== 0n) {
      throw new ProtocolError('the in-flight region has unknown features', SPEC);
    }
  }

  /** Finishes the last batch if the process ended between making it visible and noting that. */
  #settleBatch(queueSize: number, usedIndex: number): void {
    const noted = this.#view.getUint16(this.#start + HEADER.used_idx, true);
    const count = (usedIndex - noted) & 0xffff;
    if (count === 0) return;
    if (count > queueSize) {
      throw new ProtocolError('the in-flight region is not of this used ring', SPEC);
    }
    const heads = new Uint16Array(count);
    const seen = new Set<number>();
    let head = this.#view.getUint16(this.#start + HEADER.last_batch_head, true);
    for (let i = 0; i < count; i += 1) {
      if (head >= queueSize || seen.has(head)) {
        throw new ProtocolError('the last batch of the in-flight region is broken', SPEC);
      }
      seen.add(head);
      heads[i] = head;
      head = this.#view.getUint16(this.#entry(head) + ENTRY.next, true);
    }
    this.published(heads, count, usedIndex);
  }

  #collect(queueSize: number): { head: number; counter: number }[] {
    const found: { head: number; counter: number }[] = [];
    for (let head = 0; head < queueSize; head += 1) {
      const at = this.#entry(head);
      const inflight = this.#view.getUint8(at + ENTRY.inflight);
      if (inflight === 0) continue;
      const low = this.#view.getUint32(at + ENTRY.counter, true);
      const counter = this.#view.getUint32(at + ENTRY.counter + 4, true) * WORD + low;
      if (inflight !== 1 || counter >= Number.MAX_SAFE_INTEGER) {
        throw new ProtocolError('an entry of the in-flight region is broken', SPEC);
      }
      found.push({ head, counter });
    }
    return found.toSorted((a, b) => a.counter - b.counter);
  }
}
