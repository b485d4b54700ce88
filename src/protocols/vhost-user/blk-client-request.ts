import { copyBytes } from '../../base/copy-bytes.ts';
import { unreachable } from '../../base/assert.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { FLAG, type Io, OP } from '../../block/io.ts';
import type { Region } from '../../block/memory.ts';
import {
  BLK_HEADER_BYTES,
  BLK_RANGE_BYTES,
  SECTOR_BYTES,
  VIRTIO_BLK_REQ_FLAG,
  VIRTIO_BLK_S,
  VIRTIO_BLK_T,
  VIRTIO_BLK_WRITE_ZEROES_FLAG,
} from '../virtio/blk.ts';
import { ChainBuffer, isShared, type RequestPlace } from './blk-client-memory.ts';

/** What can be asked of the device. `writeBack` changes at run time. */
export interface BlkTerms {
  /** T_FLUSH was negotiated. */
  readonly flush: boolean;
  /** A write can carry FUA: bits 18 and 19. */
  readonly fua: boolean;
  readonly discardBytes: number;
  readonly zeroesBytes: number;
  readonly zeroesMayUnmap: boolean;
  readonly maxTransferBytes: number;
  /** The most bytes of one buffer. */
  readonly sizeMax: number;
  /** The most data buffers of one request. */
  readonly dataBuffers: number;
  /** Where the shared memory lies, and where the device sees its first byte. */
  readonly memory: Region;
  readonly guestAddress: number;
  /** Completed writes may be volatile. */
  writeBack: boolean;
}

/** No status of the device's. */
const NO_STATUS = 0xff;

type Stage = 'before' | 'body' | 'after' | 'end';

/**
 * One Io of our driver on its way, reused, with its place in shared memory. It becomes one request of the device, or
 * several in turn: pieces where the device takes no more at once, a flush after where it knows no FUA, a flush before
 * and after for a barrier.
 */
export class BlkRequest {
  readonly index: number;
  io: Io | null = null;
  error: BlockErrorCode | null = null;
  /** The queue it goes through. */
  queue = 0;

  // The chain to add, valid after `next` returned true.
  readable: readonly ChainBuffer[] = [];
  writable: readonly ChainBuffer[] = [];

  readonly #terms: BlkTerms;
  readonly #place: RequestPlace;
  /** All buffers that chains were ever made of; the first is the header, or the data that comes back. */
  readonly #out: ChainBuffer[] = [];
  readonly #in: ChainBuffer[] = [];
  /** The first n of them, as lists: made once, so that a request makes none. */
  readonly #outLists: ChainBuffer[][] = [];
  readonly #inLists: ChainBuffer[][] = [];
  #stage: Stage = 'end';
  /** Bytes of the Io that requests have been made for. */
  #asked = 0;
  /** The Io was submitted when completed writes could be volatile. */
  #wasWriteBack = false;
  #flushing = false;
  /** Bytes to copy out of the request's own data when it is done. */
  #copyBack = 0;
  /** Bytes that the device must say it has written. */
  #expected = 0;

  constructor(index: number, terms: BlkTerms, place: RequestPlace) {
    this.index = index;
    this.#terms = terms;
    this.#place = place;
  }

  begin(io: Io): void {
    this.io = io;
    this.error = null;
    this.#asked = 0;
    this.#stage = 'before';
    this.#wasWriteBack = this.#terms.writeBack;
  }

  /** Prepares the next chain of this Io. False: there is none, and `error` is the Io's outcome. */
  next(): boolean {
    const io = this.io as Io;
    if (this.error !== null) return false;
    const barrier = io.mutates && (io.flags & FLAG.BARRIER) !== 0;
    if (this.#stage === 'before') {
      this.#stage = 'body';
      if (barrier && this.#terms.flush) return this.#makeFlush();
    }
    if (this.#stage === 'body') {
      if (this.#body(io)) return true;
      this.#stage = 'after';
      if (this.error === null && this.#needsFlushAfter(io, barrier)) return this.#makeFlush();
    }
    this.#stage = 'end';
    return false;
  }

  /** Whether a failure says that something could not be made stable. */
  get failedSync(): boolean {
    const io = this.io as Io;
    if (this.#flushing) return this.error !== null;
    const stable = io.mutates && (io.flags & (FLAG.FUA | FLAG.BARRIER)) !== 0;
    return stable && this.error === 'EIO';
  }

  /** The device has given the chain back and says that it wrote `written` bytes. */
  finish(written: number): void {
    const { memory } = this.#terms;
    const status = memory.bytes[this.#place.status] as number;
    if (status === VIRTIO_BLK_S.OK) {
      // What lies beyond the used length may not have been written [virtio 2.7.8.2].
      if (written < this.#expected) this.error = 'EIO';
      else if (this.#copyBack > 0) this.#copyIn(this.io as Io);
    } else {
      this.error = status === VIRTIO_BLK_S.UNSUPP ? 'EOPNOTSUPP' : 'EIO';
    }
  }

  /** A FUA that the device cannot keep itself. The stricter of the settings at submission and now counts. */
  #needsFlushAfter(io: Io, barrier: boolean): boolean {
    if (!io.mutates || !this.#terms.flush) return false;
    if (barrier) return true;
    if ((io.flags & FLAG.FUA) === 0) return false;
    const volatile = this.#wasWriteBack || this.#terms.writeBack;
    return volatile && !(this.#terms.fua && io.op === OP.WRITE);
  }

  #body(io: Io): boolean {
    switch (io.op) {
      case OP.READ:
      case OP.WRITE:
        return this.#transfer(io);
      case OP.FLUSH:
        this.#stage = 'after';
        return this.#terms.flush && this.#makeFlush();
      case OP.DISCARD:
        // A hint: where the device has none every block reads as it was, which is one of the two outcomes.
        return this.#effect(io, VIRTIO_BLK_T.DISCARD, this.#terms.discardBytes, 0);
      case OP.WRITE_ZEROES:
        return this.#zeroes(io);
      case OP.CACHE:
        return false;
      case OP.EXTENTS:
        if (io.length > 0) io.extents.push(io.length, 0);
        return false;
      default:
        return unreachable(io.op);
    }
  }

  #transfer(io: Io): boolean {
    if (this.#asked === io.length) return false;
    this.#asked = io.length;
    const reads = io.op === OP.READ;
    const type = reads ? VIRTIO_BLK_T.IN : VIRTIO_BLK_T.OUT;
    const fua = !reads && this.#terms.fua && (io.flags & (FLAG.FUA | FLAG.BARRIER)) !== 0;
    this.#header(type, fua ? VIRTIO_BLK_REQ_FLAG.OUT_FUA : 0, io.offset);
    const buffers = reads ? this.#in : this.#out;
    const first = reads ? 0 : 1;
    const direct = this.#fits(io);
    let count: number;
    if (direct) {
      count = this.#placeSegments(io, buffers, first);
    } else {
      if (!reads) this.#copyOut(io);
      count = this.#placeData(buffers, first, io.length);
    }
    this.#copyBack = reads && !direct ? io.length : 0;
    this.#chain(reads ? 1 : 1 + count, reads ? count : 0, reads ? io.length : 0);
    return true;
  }

  #zeroes(io: Io): boolean {
    if ((io.flags & FLAG.FAST) !== 0) {
      this.error = 'EOPNOTSUPP';
      return false;
    }
    const { zeroesBytes, zeroesMayUnmap } = this.#terms;
    if (zeroesBytes > 0) {
      const unmap = zeroesMayUnmap && (io.flags & FLAG.NO_HOLE) === 0;
      return this.#effect(
        io,
        VIRTIO_BLK_T.WRITE_ZEROES,
        zeroesBytes,
        unmap ? VIRTIO_BLK_WRITE_ZEROES_FLAG.UNMAP : 0,
      );
    }
    const length = Math.min(io.length - this.#asked, this.#terms.maxTransferBytes);
    if (length === 0) return false;
    const { data } = this.#place;
    this.#terms.memory.bytes.fill(0, data, data + length);
    this.#header(VIRTIO_BLK_T.OUT, 0, io.offset + this.#asked);
    this.#asked += length;
    this.#chain(1 + this.#placeData(this.#out, 1, length), 0, 0);
    return true;
  }

  /** A request on a range without data, of at most `limit` bytes; with limit 0 there is none. */
  #effect(io: Io, type: number, limit: number, flags: number): boolean {
    const length = Math.min(io.length - this.#asked, limit);
    if (length === 0) return false;
    const { range } = this.#place;
    const { view } = this.#terms.memory;
    this.#header(type, 0, 0);
    writeSector(view, range, io.offset + this.#asked);
    view.setUint32(range + 8, length / SECTOR_BYTES, true);
    view.setUint32(range + 12, flags, true);
    this.#asked += length;
    this.#set(this.#out, 1, range, BLK_RANGE_BYTES);
    this.#chain(2, 0, 0);
    return true;
  }

  #makeFlush(): boolean {
    // "A driver MUST set sector to 0 for a VIRTIO_BLK_T_FLUSH request" [virtio 5.2.6.1].
    this.#header(VIRTIO_BLK_T.FLUSH, 0, 0);
    this.#chain(1, 0, 0);
    this.#flushing = true;
    return true;
  }

  #header(type: number, flags: number, offset: number): void {
    const { header } = this.#place;
    const { view } = this.#terms.memory;
    view.setUint32(header, type, true);
    view.setUint32(header + 4, flags, true);
    writeSector(view, header + 8, offset);
    this.#copyBack = 0;
    this.#flushing = false;
  }

  /** Completes the chain: the header first, the status last; `readable` and `data` count what is set already. */
  #chain(readable: number, data: number, dataBytes: number): void {
    const { header, status } = this.#place;
    this.#set(this.#out, 0, header, BLK_HEADER_BYTES);
    this.#set(this.#in, data, status, 1);
    this.#terms.memory.bytes[status] = NO_STATUS;
    this.#expected = dataBytes + 1;
    this.readable = listOf(this.#out, this.#outLists, readable);
    this.writable = listOf(this.#in, this.#inLists, data + 1);
  }

  #set(buffers: ChainBuffer[], index: number, start: number, length: number): void {
    let buffer = buffers[index];
    if (buffer === undefined) {
      buffer = new ChainBuffer();
      buffers[index] = buffer;
    }
    buffer.address = this.#terms.guestAddress + start;
    buffer.length = length;
  }

  /** Whether the Io's own memory can be given to the device. */
  #fits({ segments }: Io): boolean {
    const { memory, sizeMax, dataBuffers } = this.#terms;
    let count = 0;
    for (let i = 0; i < segments.count; i += 1) {
      const length = segments.lengths[i] as number;
      const region = segments.regions[i] as Region;
      if (!isShared(memory, region, segments.starts[i] as number, length)) return false;
      count += sizeMax === Infinity ? 1 : Math.ceil(length / sizeMax);
    }
    return count <= dataBuffers;
  }

  #placeSegments({ segments }: Io, buffers: ChainBuffer[], first: number): number {
    const { memory } = this.#terms;
    let count = 0;
    for (let i = 0; i < segments.count; i += 1) {
      const at = (segments.regions[i] as Region).address - memory.address;
      const start = at + (segments.starts[i] as number);
      count += this.#placeRange(buffers, first + count, start, segments.lengths[i] as number);
    }
    return count;
  }

  /** The request's own data. */
  #placeData(buffers: ChainBuffer[], first: number, length: number): number {
    return this.#placeRange(buffers, first, this.#place.data, length);
  }

  /** One stretch of shared memory, in as many buffers as the device wants. */
  #placeRange(buffers: ChainBuffer[], first: number, start: number, length: number): number {
    const { sizeMax } = this.#terms;
    let count = 0;
    for (let done = 0; done < length; count += 1) {
      const piece = Math.min(length - done, sizeMax);
      this.#set(buffers, first + count, start + done, piece);
      done += piece;
    }
    return count;
  }

  #copyOut({ segments }: Io): void {
    const target = this.#terms.memory.bytes;
    let to = this.#place.data;
    for (let i = 0; i < segments.count; i += 1) {
      const length = segments.lengths[i] as number;
      const source = (segments.regions[i] as Region).bytes;
      copyBytes(source, segments.starts[i] as number, target, to, length);
      to += length;
    }
  }

  #copyIn({ segments }: Io): void {
    const source = this.#terms.memory.bytes;
    let from = this.#place.data;
    for (let i = 0; i < segments.count; i += 1) {
      const length = segments.lengths[i] as number;
      const target = (segments.regions[i] as Region).bytes;
      copyBytes(source, from, target, segments.starts[i] as number, length);
      from += length;
    }
  }
}

/** `offset` in bytes, a multiple of a sector, as a le64 of sectors. */
function writeSector(view: DataView, at: number, offset: number): void {
  const sector = offset / SECTOR_BYTES;
  const high = Math.floor(sector / 2 ** 32);
  view.setUint32(at, sector - high * 2 ** 32, true);
  view.setUint32(at + 4, high, true);
}

function listOf(all: readonly ChainBuffer[], lists: ChainBuffer[][], count: number): ChainBuffer[] {
  let list = lists[count];
  if (list === undefined) {
    list = all.slice(0, count);
    lists[count] = list;
  }
  return list;
}
