import { VIRTQ_DESC_F } from '../../src/protocols/virtio/virtio.ts';
import type { Arena, Piece } from './virtio-arena.ts';

// What a device may make of a chain, read from memory a second time and by other means than the device's: with 64-bit
// integers, from the specification.

export interface Descriptor {
  readonly address: bigint;
  readonly length: number;
  readonly flags: number;
  /** Split: the next one's index. Packed: the buffer id. */
  readonly link: number;
}

/** Where flags and link are in a descriptor. */
export interface Form {
  readonly packed: boolean;
  readonly flagsAt: number;
  readonly linkAt: number;
}

export const SPLIT: Form = { packed: false, flagsAt: 12, linkAt: 14 };
export const PACKED: Form = { packed: true, flagsAt: 14, linkAt: 12 };

/** An indirect table may have this many entries at least, whatever the queue's size. */
const TABLE_ENTRIES = 1024;

export function readDescriptor({ view }: Arena, at: number, form: Form): Descriptor {
  return {
    address: view.getBigUint64(at, true),
    length: view.getUint32(at + 8, true),
    flags: view.getUint16(at + form.flagsAt, true),
    link: view.getUint16(at + form.linkAt, true),
  };
}

export function writeDescriptor(
  { view }: Arena,
  at: number,
  form: Form,
  { address, length, flags, link }: Descriptor,
): void {
  view.setBigUint64(at, BigInt.asUintN(64, address), true);
  view.setUint32(at + 8, length, true);
  view.setUint16(at + form.flagsAt, flags, true);
  view.setUint16(at + form.linkAt, link, true);
}

/** One chain: its buffers, or why there can be none. */
export class Walk {
  readonly readable: Piece[] = [];
  readonly writable: Piece[] = [];
  readonly tables: Piece[] = [];
  /** Why the ring is broken by it. */
  broken: string | null = null;
  /** Split: the head. Packed: the buffer id. */
  id = 0;
  #writing = false;

  /** Whether the chain may go on. */
  buffer(arena: Arena, { address, length, flags }: Descriptor): boolean {
    const writes = (flags & VIRTQ_DESC_F.WRITE) !== 0;
    if (this.#writing && !writes) return this.breaks('readable after writable');
    this.#writing = writes;
    const pieces = arena.translate(address, length);
    if (pieces === null) return this.breaks(`a buffer at ${address.toString(16)}, ${length}`);
    (writes ? this.writable : this.readable).push(...pieces);
    return true;
  }

  table(arena: Arena, named: Descriptor, form: Form, queueSize: number): boolean {
    const { address, length } = named;
    const pieces = arena.translate(address, length);
    if (length === 0 || length % 16 !== 0) return this.breaks(`a table of ${length} bytes`);
    const piece = pieces?.[0];
    if (piece === undefined || piece.length !== length) return this.breaks('a table elsewhere');
    this.tables.push(piece);
    const entries = length / 16;
    const most = Math.max(queueSize, TABLE_ENTRIES);
    return form.packed
      ? this.#packedTable(arena, piece.at, entries, most)
      : this.#splitTable(arena, piece.at, entries, most);
  }

  #packedTable(arena: Arena, at: number, entries: number, most: number): boolean {
    if (entries > most) return this.breaks('a long table');
    for (let i = 0; i < entries; i += 1) {
      if (!this.buffer(arena, readDescriptor(arena, at + 16 * i, PACKED))) return false;
    }
    return true;
  }

  #splitTable(arena: Arena, at: number, entries: number, most: number): boolean {
    const visited = new Set<number>();
    for (let index = 0; ;) {
      if (visited.has(index)) return this.breaks('a table with a loop');
      if (visited.size === most) return this.breaks('a long table');
      visited.add(index);
      const entry = readDescriptor(arena, at + 16 * index, SPLIT);
      if ((entry.flags & VIRTQ_DESC_F.INDIRECT) !== 0) return this.breaks('a table in a table');
      if (!this.buffer(arena, entry)) return false;
      if ((entry.flags & VIRTQ_DESC_F.NEXT) === 0) return true;
      index = entry.link;
      if (index >= entries) return this.breaks('a link out of a table');
    }
  }

  breaks(why: string): false {
    this.broken ??= why;
    return false;
  }
}
