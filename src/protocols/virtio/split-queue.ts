import { assert } from '../../base/assert.ts';
import { ProtocolError } from '../../base/errors.ts';
import { ChainReader } from './chain-reader.ts';
import { SplitInflight } from './inflight-split.ts';
import { MAX_USED_LENGTH } from './limits.ts';
import {
  passes,
  RING,
  splitRing,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_USED_F_NO_NOTIFY,
} from './split-ring.ts';
import type { SplitRing } from './split-ring.ts';
import { VIRTQ_DESC_F } from './virtio.ts';
import { Chain } from './virtqueue.ts';
import type { QueueOptions, Virtqueue } from './virtqueue.ts';

/**
 * The device's side of a split virtqueue [virtio 2.7]. Little-endian, as modern devices are; guests with other legacy
 * byte order are not served.
 *
 * Indices count up in 16 bits and wrap there, not at the ring's size. What both sides touch is loaded and stored with
 * Atomics, which keeps the order between them: buffers before `idx`, `idx` before the look at whether to notify.
 */
export class SplitQueue implements Virtqueue {
  readonly size: number;
  readonly #ring: SplitRing;
  readonly #reader: ChainReader;
  readonly #eventIdx: boolean;
  readonly #inflight: SplitInflight | null;
  /** Heads of an earlier process that are to be taken first, and how many have been. */
  readonly #unfinished: readonly number[];
  #resumed = 0;
  readonly #mask: number;
  /** The next available entry to take, and how far the driver was when last looked at. */
  #next: number;
  #available: number;
  /** The used ring's index as the driver sees it. */
  #used: number;
  /** Heads given since. */
  readonly #given: Uint16Array;
  #givenCount = 0;
  /** 1 for heads that were taken and are not visible as used. */
  readonly #taken: Uint8Array;
  #inFlight = 0;
  readonly #pool: Chain[] = [];
  /** The driver broke the ring (or is being read just now). */
  #broken = false;

  /**
   * Throws a ProtocolError when the rings do not lie as they must [virtio 2.7], when the used ring and where to go on
   * do not fit each other, or when the in-flight region is not this queue's.
   */
  constructor(options: QueueOptions) {
    const { size, memory, indirect, eventIdx, base, inflight } = options;
    this.#ring = splitRing(size, options, eventIdx);
    this.size = size;
    this.#reader = new ChainReader(memory, size, indirect);
    this.#eventIdx = eventIdx;
    this.#mask = size - 1;
    this.#given = new Uint16Array(size);
    this.#taken = new Uint8Array(size);
    this.#used = Atomics.load(this.#ring.used, RING.idx);
    this.#inflight = inflight === null ? null : new SplitInflight(inflight, size, this.#used);
    this.#unfinished = this.#inflight?.unfinished ?? [];
    // With a log, whatever was taken is either used or in it. The front-end does not know better: when it has lost its
    // back-end, its base is the used index.
    const logged = this.#inflight !== null && !this.#inflight.fresh;
    this.#next = (logged ? this.#used + this.#unfinished.length : base) & 0xffff;
    this.#available = this.#next;
    if (((this.#next - this.#used) & 0xffff) > size) {
      throw new ProtocolError('the base is not of this used ring', 'virtio 2.7.8');
    }
    // With event indices, flags stay 0 [virtio 2.7.10.2].
    if (eventIdx) Atomics.store(this.#ring.used, RING.flags, 0);
  }

  get ready(): boolean {
    if (this.#broken) return false;
    return (
      this.#next !== this.#available ||
      this.#resumed < this.#unfinished.length ||
      Atomics.load(this.#ring.available, RING.idx) !== this.#next
    );
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get base(): number {
    assert(this.#inFlight === 0 && this.#givenCount === 0, 'the base of a queue under way');
    return this.#next;
  }

  take(): Chain | null {
    if (this.#broken) throw new ProtocolError('the queue is broken', 'virtio 2.7');
    // If what follows throws, it stays so.
    this.#broken = true;
    let chain: Chain | null = null;
    if (this.#resumed < this.#unfinished.length) {
      chain = this.#copy(this.#unfinished[this.#resumed] as number);
      this.#resumed += 1;
    } else if (this.#next !== this.#available || this.#look()) {
      const { available } = this.#ring;
      chain = this.#copy(available[RING.entries + (this.#next & this.#mask)] as number);
      this.#inflight?.took(chain.id);
      this.#next = (this.#next + 1) & 0xffff;
    }
    this.#broken = false;
    return chain;
  }

  give(chain: Chain, written: number): void {
    const head = chain.id;
    assert(this.#taken[head] === 1, 'a chain was given back twice');
    assert(written <= chain.writable.totalBytes, 'more was written than there was room for');
    this.#taken[head] = 2;
    const { usedWords } = this.#ring;
    const at = 1 + 2 * ((this.#used + this.#givenCount) & this.#mask);
    usedWords[at] = head;
    usedWords[at + 1] = Math.min(written, MAX_USED_LENGTH);
    this.#given[this.#givenCount] = head;
    this.#givenCount += 1;
    this.#inFlight -= 1;
    this.#inflight?.gave(head);
    this.#pool.push(chain);
  }

  publish(): boolean {
    const count = this.#givenCount;
    if (count === 0) return false;
    const { available, used, usedEvent } = this.#ring;
    const before = this.#used;
    const after = (before + count) & 0xffff;
    // Elements first, then idx [virtio 2.7.8.2]; and idx before the driver's wish is read [virtio 2.7.7].
    Atomics.store(used, RING.idx, after);
    this.#inflight?.published(this.#given, count, after);
    for (let i = 0; i < count; i += 1) this.#taken[this.#given[i] as number] = 0;
    this.#used = after;
    this.#givenCount = 0;
    if (this.#eventIdx) return passes(Atomics.load(available, usedEvent), before, after);
    return (Atomics.load(available, RING.flags) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
  }

  enableNotify(): boolean {
    const { used, availEvent } = this.#ring;
    if (this.#eventIdx) Atomics.store(used, availEvent, this.#next);
    else Atomics.store(used, RING.flags, 0);
    // The store above is a full fence: either the driver sees it, or its buffers are seen here.
    return this.ready;
  }

  /** With event indices there is nothing to do: the driver notifies once for each `avail_event`. */
  disableNotify(): void {
    if (!this.#eventIdx) Atomics.store(this.#ring.used, RING.flags, VIRTQ_USED_F_NO_NOTIFY);
  }

  /** Looks how far the driver is. */
  #look(): boolean {
    const available = Atomics.load(this.#ring.available, RING.idx);
    if (((available - this.#next) & 0xffff) > this.size) {
      throw new ProtocolError('more chains are available than the queue holds', 'virtio 2.7.6');
    }
    this.#available = available;
    return available !== this.#next;
  }

  /** Copies the chain that begins at `head` out of the descriptor table [virtio 2.7.5]. */
  #copy(head: number): Chain {
    const { descriptors } = this.#ring;
    const { size } = this;
    if (head >= size) throw new ProtocolError('a head is out of range', 'virtio 2.7.6');
    if (this.#taken[head] !== 0) {
      throw new ProtocolError('a head is available twice', 'virtio 2.7.13');
    }
    const chain = this.#pool.pop() ?? new Chain();
    const reader = this.#reader;
    reader.begin(chain);
    let index = head;
    for (let left = size; ; left -= 1) {
      if (left === 0) throw new ProtocolError('a chain loops', 'virtio 2.7.5.2');
      const at = index * 4;
      const low = descriptors[at] as number;
      const high = descriptors[at + 1] as number;
      const length = descriptors[at + 2] as number;
      const flagsAndNext = descriptors[at + 3] as number;
      if ((flagsAndNext & VIRTQ_DESC_F.INDIRECT) !== 0) {
        reader.splitTable(chain, low, high, length, flagsAndNext);
        break;
      }
      reader.buffer(chain, low, high, length, flagsAndNext);
      if ((flagsAndNext & VIRTQ_DESC_F.NEXT) === 0) break;
      index = flagsAndNext >>> 16;
      if (index >= size) throw new ProtocolError('a link is out of range', 'virtio 2.7.5');
    }
    chain.id = head;
    this.#taken[head] = 1;
    this.#inFlight += 1;
    return chain;
  }
}
