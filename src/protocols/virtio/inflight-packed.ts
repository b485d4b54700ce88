import { ProtocolError } from '../../base/errors.ts';
import type { Place } from './guest-memory.ts';
import { VIRTQ_PACKED_DESC_F } from './virtio.ts';

// The part of the in-flight region that belongs to one packed queue [vhost-user "Inflight I/O tracking"]. It outlives
// this process. The process may die between any two stores; so every store leaves a state that `#recover` understands.
//
// QueueRegionPacked, in bytes:            DescStatePacked, 32 bytes each from byte 32 on:
//    0 features (u64)                        0 inflight (u8)    8 counter (u64)
//    8 version      10 desc_num              2 next            16 id     18 flags
//   12 free_head    14 old_free_head         4 last            20 len (u32)
//   16 used_idx     18 old_used_idx          6 num             24 addr (u64)
//   20 used_wrap_counter (u8)
//   21 old_used_wrap_counter (u8)

const HEADER_BYTES = 32;
const ENTRY_BYTES = 32;
const VERSION = 1;
const SPEC = 'vhost-user "Inflight I/O tracking"';

/** Places of header fields, in units of their size: u16, u8 or f64. */
const AT = {
  VERSION: 4,
  DESC_NUM: 5,
  FREE_HEAD: 6,
  OLD_FREE_HEAD: 7,
  USED_IDX: 8,
  OLD_USED_IDX: 9,
  USED_WRAP_COUNTER: 20,
  OLD_USED_WRAP_COUNTER: 21,
  /** All four of the used fields, and two bytes of padding. */
  USED_FIELDS: 2,
} as const;

/** The same of an entry, from its start. */
const OF = {
  INFLIGHT: 0,
  NEXT: 1,
  LAST: 2,
  NUM: 3,
  COUNTER: 2,
  ID: 8,
  FLAGS: 9,
  LEN: 5,
  ADDR: 6,
} as const;

/** Every queue's part begins at a multiple of it, as in QEMU and DPDK. */
const ALIGNMENT_BYTES = 64;

const OWNERS = VIRTQ_PACKED_DESC_F.AVAIL | VIRTQ_PACKED_DESC_F.USED;

/** Bytes that the part of one queue takes, so that the next one is aligned. */
export function packedRegionBytes(queueSize: number): number {
  const bytes = HEADER_BYTES + ENTRY_BYTES * queueSize;
  return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

/**
 * Remembers chains from when they are taken until the driver can see them used. Constructing it recovers what an earlier
 * process has left; then chains are taken (`begin`, `add` for each descriptor), and batches are published (`free` for each
 * chain, `advance`, the ring's own store, `settle`). Every step is the text's, in its order.
 */
export class PackedInflight {
  readonly #size: number;
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #words: Uint32Array;
  /** The used fields are one of these: they change together, by one store. */
  readonly #doubles: Float64Array;
  readonly #scratch = new Float64Array(1);
  readonly #scratchHalves = new Uint16Array(this.#scratch.buffer);
  #freeHead = 0;
  #oldFreeHead = 0;
  /** Of the chain that is being taken: the descriptors so far. */
  #taken = 0;
  /** The global counter. Below 2^53 for the next hundred years. */
  #counter = 0;

  /** Where the driver expects the next used descriptor, and the device's wrap counter there. */
  usedIndex: number;
  usedWrap: number;
  /** Entries of chains that an earlier process took and did not publish, oldest first. */
  readonly left: readonly number[];
  /** Ring slots that they take. */
  readonly leftSlots: number;

  /**
   * `ring` is the descriptor ring as 16-bit words. `usedIndex` and `usedWrap` are what the front-end says; they count
   * only for a region that was never used, since QEMU cannot know them after a crash of the back-end: packed rings
   * have no index in guest memory. Throws a ProtocolError when the region is not one of this queue or is damaged.
   */
  constructor(
    place: Place,
    queueSize: number,
    ring: Uint16Array,
    usedIndex: number,
    usedWrap: number,
  ) {
    const { bytes } = place.region;
    const start = bytes.byteOffset + place.start;
    const length = HEADER_BYTES + ENTRY_BYTES * queueSize;
    if (start % 8 !== 0 || place.start + length > bytes.length) {
      throw damaged('is misplaced');
    }
    this.#size = queueSize;
    this.#bytes = new Uint8Array(bytes.buffer, start, length);
    this.#halves = new Uint16Array(bytes.buffer, start, length / 2);
    this.#words = new Uint32Array(bytes.buffer, start, length / 4);
    this.#doubles = new Float64Array(bytes.buffer, start, length / 8);
    this.usedIndex = usedIndex;
    this.usedWrap = usedWrap;
    const version = this.#halves[AT.VERSION];
    // "Zero value indicates an uninitialized buffer".
    if (version === 0) this.#initialize();
    else if (version !== VERSION) throw damaged(`has version ${version}`);
    else this.#recover(ring);
    this.left = this.#findLeft();
    this.leftSlots = this.left.reduce((sum, entry) => sum + this.num(entry), 0);
    if (this.#countFree() + this.leftSlots !== queueSize) throw damaged('has lost entries');
    for (const entry of this.left) {
      this.#counter = Math.max(this.#counter, this.#counterOf(entry) + 1);
    }
  }

  /** Starts the record of a chain: its head is the next descriptor added. Returns the chain's entry. */
  begin(): number {
    // A chain that broke the protocol half-way was not taken.
    this.#freeHead = this.#oldFreeHead;
    const entry = this.#oldFreeHead;
    this.#taken = 0;
    this.#halves[halfOf(entry) + OF.NUM] = 0;
    const counter = wordOf(entry) + OF.COUNTER;
    this.#words[counter] = this.#counter;
    this.#words[counter + 1] = this.#counter / 2 ** 32;
    this.#counter += 1;
    this.#bytes[byteOf(entry) + OF.INFLIGHT] = 1;
    return entry;
  }

  /** Records one descriptor as it was in the ring. With the `last` one the chain is in flight. */
  add(low: number, high: number, length: number, id: number, flags: number, last: boolean): void {
    const halves = this.#halves;
    const words = this.#words;
    const head = halfOf(this.#oldFreeHead);
    const free = this.#freeHead;
    const half = halfOf(free);
    const word = wordOf(free);
    if (last) halves[head + OF.LAST] = free;
    this.#taken += 1;
    halves[head + OF.NUM] = this.#taken;
    words[word + OF.ADDR] = low;
    words[word + OF.ADDR + 1] = high;
    words[word + OF.LEN] = length;
    halves[half + OF.FLAGS] = flags;
    halves[half + OF.ID] = id;
    this.#freeHead = halves[half + OF.NEXT] as number;
    halves[AT.FREE_HEAD] = this.#freeHead;
    if (last) {
      this.#oldFreeHead = this.#freeHead;
      halves[AT.OLD_FREE_HEAD] = this.#freeHead;
    }
  }

  /** The batch that is about to be published has this chain. */
  free(entry: number): void {
    const halves = this.#halves;
    const last = halves[halfOf(entry) + OF.LAST] as number;
    halves[halfOf(last) + OF.NEXT] = this.#freeHead;
    this.#freeHead = entry;
    halves[AT.FREE_HEAD] = entry;
  }

  /** Begins the record of a batch: what a broken chain left half taken is free again. */
  beginBatch(): void {
    this.#freeHead = this.#oldFreeHead;
  }

  /** All chains of the batch are freed: the next used descriptor will be here. After it, the ring's own store. */
  advance(usedIndex: number, usedWrap: number): void {
    this.#storeUsed(usedIndex, usedWrap, this.usedIndex, this.usedWrap);
    this.usedIndex = usedIndex;
    this.usedWrap = usedWrap;
  }

  /** The driver can see the batch; this chain of it is not in flight any more. */
  clear(entry: number): void {
    this.#bytes[byteOf(entry) + OF.INFLIGHT] = 0;
  }

  /** All of the batch is cleared. */
  settle(): void {
    this.#oldFreeHead = this.#freeHead;
    this.#halves[AT.OLD_FREE_HEAD] = this.#freeHead;
    this.#storeUsed(this.usedIndex, this.usedWrap, this.usedIndex, this.usedWrap);
  }

  /** Descriptors of the chain with this entry. */
  num(entry: number): number {
    return this.#halves[halfOf(entry) + OF.NUM] as number;
  }

  /** The entry of the next descriptor of a chain. */
  next(entry: number): number {
    return this.#halves[halfOf(entry) + OF.NEXT] as number;
  }

  low(entry: number): number {
    return this.#words[wordOf(entry) + OF.ADDR] as number;
  }

  high(entry: number): number {
    return this.#words[wordOf(entry) + OF.ADDR + 1] as number;
  }

  length(entry: number): number {
    return this.#words[wordOf(entry) + OF.LEN] as number;
  }

  id(entry: number): number {
    return this.#halves[halfOf(entry) + OF.ID] as number;
  }

  flags(entry: number): number {
    return this.#halves[halfOf(entry) + OF.FLAGS] as number;
  }

  /**
   * One store of eight bytes: the text's separate stores of the index and the wrap counter would leave, between them,
   * states that look like a batch not yet published. Read as a double it is tiny and never a NaN, for the padding above is 0.
   */
  #storeUsed(index: number, wrap: number, oldIndex: number, oldWrap: number): void {
    const scratch = this.#scratchHalves;
    scratch[0] = index;
    scratch[1] = oldIndex;
    scratch[2] = wrap | (oldWrap << 8);
    this.#doubles[AT.USED_FIELDS] = this.#scratch[0] as number;
  }

  /** All entries are free, linked in order. `version` is stored last: until then the region counts as never used. */
  #initialize(): void {
    this.#bytes.fill(0);
    const halves = this.#halves;
    halves[AT.DESC_NUM] = this.#size;
    for (let i = 0; i < this.#size; i += 1) halves[halfOf(i) + OF.NEXT] = i + 1;
    this.#storeUsed(this.usedIndex, this.usedWrap, this.usedIndex, this.usedWrap);
    halves[AT.VERSION] = VERSION;
  }

  /** "When reconnecting". Each state it passes through is again one that it understands. */
  #recover(ring: Uint16Array): void {
    const halves = this.#halves;
    const size = this.#size;
    if (halves[AT.DESC_NUM] !== size) {
      throw damaged(`is for a queue of ${halves[AT.DESC_NUM]}, not ${size}`);
    }
    if (this.#words[0] !== 0 || this.#words[1] !== 0) throw damaged('has unknown features');
    const used = { index: halves[AT.USED_IDX] as number, wrap: this.#wrap(AT.USED_WRAP_COUNTER) };
    const old = {
      index: halves[AT.OLD_USED_IDX] as number,
      wrap: this.#wrap(AT.OLD_USED_WRAP_COUNTER),
    };
    if (used.index >= size || old.index >= size) throw damaged('has an index out of range');
    // The wrap counters too, other than the text has it: a batch that fills the ring comes back to the same index.
    if (used.index !== old.index || used.wrap !== old.wrap) {
      const flags = (ring[old.index * 8 + 7] as number) & OWNERS;
      const available = old.wrap === 1 ? VIRTQ_PACKED_DESC_F.AVAIL : VIRTQ_PACKED_DESC_F.USED;
      if (flags !== available) {
        // The driver has seen the batch.
        halves[AT.OLD_FREE_HEAD] = halves[AT.FREE_HEAD] as number;
        this.#storeUsed(used.index, used.wrap, used.index, used.wrap);
        old.index = used.index;
        old.wrap = used.wrap;
      }
    }
    // What was begun and not finished has not happened.
    this.#oldFreeHead = halves[AT.OLD_FREE_HEAD] as number;
    this.#freeHead = this.#oldFreeHead;
    halves[AT.FREE_HEAD] = this.#oldFreeHead;
    this.#storeUsed(old.index, old.wrap, old.index, old.wrap);
    this.usedIndex = old.index;
    this.usedWrap = old.wrap;
    this.#countFree((entry) => this.clear(entry));
  }

  /** The number of free entries. The end of their list is a link out of range. */
  #countFree(each?: (entry: number) => void): number {
    let count = 0;
    for (let entry = this.#freeHead; entry < this.#size; entry = this.next(entry)) {
      count += 1;
      if (count > this.#size) throw damaged('has a loop in its free list');
      each?.(entry);
    }
    return count;
  }

  /** Heads of chains in flight, by their counters. Every entry belongs to one chain at most, and to none if it is free. */
  #findLeft(): number[] {
    const seen = new Uint8Array(this.#size);
    this.#countFree((entry) => {
      seen[entry] = 1;
    });
    const heads: number[] = [];
    for (let head = 0; head < this.#size; head += 1) {
      if (this.#bytes[byteOf(head) + OF.INFLIGHT] === 0) continue;
      heads.push(head);
      const num = this.num(head);
      let entry = head;
      for (let i = 0; i < num; i += 1) {
        if (i > 0) entry = this.next(entry);
        if (entry >= this.#size || seen[entry] === 1) throw damaged('has entries in two chains');
        seen[entry] = 1;
      }
      if (num === 0 || entry !== this.#halves[halfOf(head) + OF.LAST]) {
        throw damaged('has a chain without its end');
      }
    }
    return heads.toSorted((a, b) => this.#counterOf(a) - this.#counterOf(b));
  }

  #counterOf(entry: number): number {
    const at = wordOf(entry) + OF.COUNTER;
    return (this.#words[at + 1] as number) * 2 ** 32 + (this.#words[at] as number);
  }

  #wrap(at: number): number {
    const wrap = this.#bytes[at] as number;
    if (wrap > 1) throw damaged('has a wrap counter that is no bit');
    return wrap;
  }
}

function byteOf(entry: number): number {
  return HEADER_BYTES + entry * ENTRY_BYTES;
}

function halfOf(entry: number): number {
  return byteOf(entry) / 2;
}

function wordOf(entry: number): number {
  return byteOf(entry) / 4;
}

function damaged(what: string): ProtocolError {
  return new ProtocolError(`the in-flight region ${what}`, SPEC);
}
