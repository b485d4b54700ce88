import { ProtocolError } from '../../base/errors.ts';
import { checkRange } from '../../block/check.ts';
import type { DeviceInfo } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { FLAG, type Io, OP, type Op } from '../../block/io.ts';
import { MAX_TRANSFER_BYTES } from '../../block/limits.ts';
import type { Region, Segments } from '../../block/memory.ts';
import {
  BLK_HEADER_BYTES,
  BLK_RANGE_BYTES,
  type BlkStatus,
  MAX_RANGE_SECTORS,
  MAX_RANGES,
  SECTOR_BYTES,
  VIRTIO_BLK_F,
  VIRTIO_BLK_REQ_FLAG,
  VIRTIO_BLK_S,
  VIRTIO_BLK_T,
  VIRTIO_BLK_WRITE_ZEROES_FLAG,
} from './blk.ts';
import { hasFeature } from './virtio.ts';
import type { Chain } from './virtqueue.ts';

// From a chain to what is to be done, without doing it. The driver may rewrite its memory at any time: every field is
// read once.

/** What the negotiated features allow in a request. */
export interface BlkRules {
  /** Bit 31 of the type is the barrier [virtio 5.2.6.3]. */
  readonly barrier: boolean;
  /** The word behind the type is flags; without it the word is ignored. */
  readonly requestFlags: boolean;
  readonly outFua: boolean;
  readonly discard: boolean;
  readonly writeZeroes: boolean;
}

export function blkRules(features: bigint): BlkRules {
  const requestFlags = hasFeature(features, VIRTIO_BLK_F.REQ_FLAGS);
  return {
    barrier: hasFeature(features, VIRTIO_BLK_F.BARRIER),
    requestFlags,
    outFua: requestFlags && hasFeature(features, VIRTIO_BLK_F.REQ_FLAGS_OUT_FUA),
    discard: hasFeature(features, VIRTIO_BLK_F.DISCARD),
    writeZeroes: hasFeature(features, VIRTIO_BLK_F.WRITE_ZEROES),
  };
}

/** The status that tells a driver of a device's error [virtio 5.2.6]: it has no finer ones. */
const blkStatus: Readonly<Record<BlockErrorCode, BlkStatus>> = {
  EIO: VIRTIO_BLK_S.IOERR,
  ENOSPC: VIRTIO_BLK_S.IOERR,
  EROFS: VIRTIO_BLK_S.IOERR,
  EINVAL: VIRTIO_BLK_S.IOERR,
  ERANGE: VIRTIO_BLK_S.IOERR,
  EOPNOTSUPP: VIRTIO_BLK_S.UNSUPP,
  ETIMEDOUT: VIRTIO_BLK_S.IOERR,
  ECANCELED: VIRTIO_BLK_S.IOERR,
  ESHUTDOWN: VIRTIO_BLK_S.IOERR,
  EBUSY: VIRTIO_BLK_S.IOERR,
  ENOMEM: VIRTIO_BLK_S.IOERR,
  EPERM: VIRTIO_BLK_S.IOERR,
  EMISCOMPARE: VIRTIO_BLK_S.IOERR,
  ECORRUPT: VIRTIO_BLK_S.IOERR,
};

/** What a parsed request asks for: an answer at once, the device's name, data or a flush, ranges. */
export type BlkKind = 'answer' | 'id' | 'data' | 'ranges';

/** The ranges of a discard or write-zeroes request. Made when a request object first meets one. */
class Ranges {
  readonly scratch: Uint8Array = new Uint8Array(MAX_RANGES * BLK_RANGE_BYTES);
  readonly view: DataView = new DataView(this.scratch.buffer);
  /** Bytes. */
  readonly offsets: Float64Array = new Float64Array(MAX_RANGES);
  readonly lengths: Float64Array = new Float64Array(MAX_RANGES);
  readonly flags: Uint8Array = new Uint8Array(MAX_RANGES);
  count = 0;
}

/** One request, from its chain to its status byte. Pooled: `parse` sets everything up anew. */
export class BlkRequest {
  kind: BlkKind = 'answer';
  /** The outcome so far. */
  status: BlkStatus = VIRTIO_BLK_S.OK;
  /** A barrier: nothing may come between its parts. */
  barrier = false;
  /** Parts with the device. */
  pending = 0;
  /** For whoever issues it: parts are being issued, completions just count. */
  issuing = false;
  #chain: Chain | null = null;
  #op: Op = OP.READ;
  #flags = 0;
  /** Bytes of the disk. */
  #offset = 0;
  #length = 0;
  #issued = 0;
  /** Bytes filled from the start of the writable part on, should it succeed. */
  #filled = 0;
  /** Where in the chain's data the next part begins. */
  #segment = 0;
  #inside = 0;
  #ranges: Ranges | null = null;
  #nextRange = 0;

  /**
   * Understands a chain: header, data, status byte, wherever the driver has cut it into buffers [virtio 2.7.4.1]. What a
   * device can answer becomes `answer` with that status. Throws a ProtocolError when there is no whole header or no place
   * for the status: then there is nothing to answer, and nowhere.
   */
  parse(chain: Chain, info: DeviceInfo, rules: BlkRules): void {
    const { readable } = chain;
    if (readable.totalBytes < BLK_HEADER_BYTES) {
      throw new ProtocolError('a request without a whole header', 'virtio 5.2.6');
    }
    if (chain.writable.totalBytes === 0) {
      throw new ProtocolError('a request without room for its status', 'virtio 5.2.6');
    }
    this.#chain = chain;
    this.status = VIRTIO_BLK_S.OK;
    this.pending = 0;
    this.#length = 0;
    this.#issued = 0;
    this.#filled = 0;
    this.#flags = 0;
    this.#nextRange = 0;
    if (this.#ranges !== null) this.#ranges.count = 0;
    const whole = (readable.lengths[0] as number) >= BLK_HEADER_BYTES;
    const view = whole ? (readable.regions[0] as Region).view : gather(readable);
    const at = whole ? (readable.starts[0] as number) : 0;
    let type = view.getUint32(at, true);
    const flags = rules.requestFlags ? view.getUint32(at + 4, true) : 0;
    const sector = view.getUint32(at + 12, true) * 2 ** 32 + view.getUint32(at + 8, true);
    this.barrier = rules.barrier && type >= VIRTIO_BLK_T.BARRIER;
    if (this.barrier) {
      type -= VIRTIO_BLK_T.BARRIER;
      this.#flags = FLAG.BARRIER;
    }
    const known = rules.outFua && type === VIRTIO_BLK_T.OUT ? VIRTIO_BLK_REQ_FLAG.OUT_FUA : 0;
    // A bit that changes what a request means must not be passed over.
    if ((flags & ~known) !== 0) this.#answer(VIRTIO_BLK_S.UNSUPP);
    else this.#understand(type, flags, sector, info, rules);
  }

  #understand(
    type: number,
    flags: number,
    sector: number,
    info: DeviceInfo,
    rules: BlkRules,
  ): void {
    switch (type) {
      case VIRTIO_BLK_T.IN:
        this.#data(OP.READ, sector, this.#room, info);
        return;
      case VIRTIO_BLK_T.OUT:
        if ((flags & VIRTIO_BLK_REQ_FLAG.OUT_FUA) !== 0) this.#flags |= FLAG.FUA;
        this.#data(OP.WRITE, sector, this.#payload, info);
        return;
      case VIRTIO_BLK_T.FLUSH:
      case VIRTIO_BLK_T.FLUSH_OUT:
        // Data and a sector have no meaning here; drivers must not send them, and flushing is never wrong.
        this.kind = 'data';
        this.#op = OP.FLUSH;
        return;
      case VIRTIO_BLK_T.GET_ID:
        this.kind = 'id';
        return;
      case VIRTIO_BLK_T.DISCARD:
        this.#parseRanges(OP.DISCARD, info, rules.discard);
        return;
      case VIRTIO_BLK_T.WRITE_ZEROES:
        this.#parseRanges(OP.WRITE_ZEROES, info, rules.writeZeroes);
        return;
      default:
        // [virtio 5.2.6.2] zone commands without ZONED; and whatever else is not offered.
        this.#answer(VIRTIO_BLK_S.UNSUPP);
    }
  }

  /** Device-writable data, in bytes: all but the status. */
  get #room(): number {
    return (this.#chain as Chain).writable.totalBytes - 1;
  }

  /** Device-readable data, in bytes. */
  get #payload(): number {
    return (this.#chain as Chain).readable.totalBytes - BLK_HEADER_BYTES;
  }

  #answer(status: BlkStatus): void {
    this.kind = 'answer';
    this.status = status;
  }

  #data(op: Op, sector: number, length: number, info: DeviceInfo): void {
    const offset = sector * SECTOR_BYTES;
    if (length % SECTOR_BYTES !== 0 || checkRange(op, offset, length, info) !== null) {
      this.#answer(VIRTIO_BLK_S.IOERR);
      return;
    }
    this.kind = 'data';
    this.#op = op;
    this.#offset = offset;
    this.#length = length;
    this.#segment = 0;
    this.#inside = 0;
    if (op === OP.READ) this.#filled = length;
    else this.#skip(BLK_HEADER_BYTES);
  }

  /** Moves the place in the readable data on. */
  #skip(length: number): void {
    const { lengths, count } = (this.#chain as Chain).readable;
    let left = length;
    while (this.#segment < count && left >= (lengths[this.#segment] as number)) {
      left -= lengths[this.#segment] as number;
      this.#segment += 1;
    }
    this.#inside = left;
  }

  /** All ranges are checked before the first is carried out. [virtio 5.2.6.2] flags first. */
  #parseRanges(op: Op, info: DeviceInfo, negotiated: boolean): void {
    const bytes = this.#payload;
    const count = bytes / BLK_RANGE_BYTES;
    if (count === 0 || !Number.isInteger(count) || count > MAX_RANGES) {
      this.#answer(negotiated ? VIRTIO_BLK_S.IOERR : VIRTIO_BLK_S.UNSUPP);
      return;
    }
    const ranges = (this.#ranges ??= new Ranges());
    (this.#chain as Chain).readable.copyTo(ranges.scratch.subarray(0, bytes), BLK_HEADER_BYTES);
    const status = parseInto(ranges, count, op, info);
    if (status === VIRTIO_BLK_S.UNSUPP) this.#answer(VIRTIO_BLK_S.UNSUPP);
    else if (info.readOnly) this.#answer(VIRTIO_BLK_S.IOERR);
    else if (!negotiated) this.#answer(VIRTIO_BLK_S.UNSUPP);
    else if (status !== VIRTIO_BLK_S.OK) this.#answer(status);
    else {
      this.kind = 'ranges';
      this.#op = op;
    }
  }

  /** Whether there is more of it to be handed to the device. After a failure there is not. */
  get hasMore(): boolean {
    if (this.status !== VIRTIO_BLK_S.OK) return false;
    if (this.kind === 'ranges') return this.#nextRange < (this.#ranges as Ranges).count;
    return this.#op === OP.FLUSH ? this.#issued === 0 : this.#issued < this.#length;
  }

  /** Sets `io` up as the next part. A FLUSH has one. */
  nextPart(io: Io, maxTransferBytes: number): void {
    if (this.kind === 'ranges') {
      const ranges = this.#ranges as Ranges;
      const i = this.#nextRange;
      this.#nextRange += 1;
      const flags = this.#flags | (ranges.flags[i] as number);
      io.reset(this.#op, ranges.offsets[i] as number, ranges.lengths[i] as number, flags);
    } else if (this.#op === OP.FLUSH) {
      this.#issued = 1;
      io.reset(OP.FLUSH, 0, 0, this.#flags);
    } else {
      const length = Math.min(this.#length - this.#issued, maxTransferBytes);
      io.reset(this.#op, this.#offset + this.#issued, length, this.#flags);
      this.#issued += length;
      this.#cut(io.segments, length);
    }
  }

  /** Appends the next `length` bytes of the chain's data. */
  #cut(into: Segments, length: number): void {
    const chain = this.#chain as Chain;
    const from = this.#op === OP.READ ? chain.writable : chain.readable;
    let left = length;
    while (left > 0) {
      const i = this.#segment;
      const there = (from.lengths[i] as number) - this.#inside;
      const taken = Math.min(there, left);
      into.push(from.regions[i] as Region, (from.starts[i] as number) + this.#inside, taken);
      left -= taken;
      this.#inside += taken;
      if (taken === there) {
        this.#segment += 1;
        this.#inside = 0;
      }
    }
  }

  /** One part has failed. The first failure counts. */
  failed(error: BlockErrorCode): void {
    if (this.status === VIRTIO_BLK_S.OK) this.status = blkStatus[error];
  }

  /** Answers GET_ID: 20 bytes, or as many as there is room for [virtio 5.2.6]. */
  fillId(id: Uint8Array): void {
    const length = Math.min(id.length, this.#room);
    (this.#chain as Chain).writable.copyFrom(id.subarray(0, length));
    this.#filled = length;
  }

  /**
   * Ends it: writes the status into the last writable byte. Returns the bytes written from the start of the writable part
   * on, for the used length [virtio 2.7.8.2: at least so many were written]. Data that did not arrive are zeroed, so that
   * the length can cover the status; but not for requests so large that it would hold up others.
   */
  finish(): number {
    const { writable } = this.#chain as Chain;
    const room = this.#room;
    if (this.status !== VIRTIO_BLK_S.OK) {
      this.#filled = room <= MAX_TRANSFER_BYTES ? room : 0;
      if (this.#filled > 0) writable.fill(0);
    }
    const last = writable.count - 1;
    (writable.regions[last] as Region).bytes[writable.end(last) - 1] = this.status;
    return this.#filled === room ? room + 1 : this.#filled;
  }

  /** Lets go of the chain, which is given back by whoever took it. */
  release(): Chain {
    const chain = this.#chain as Chain;
    this.#chain = null;
    return chain;
  }
}

/** A header in several pieces. */
function gather(readable: Segments): DataView {
  const header = new Uint8Array(BLK_HEADER_BYTES);
  readable.copyTo(header);
  return new DataView(header.buffer);
}

/** Empty ranges ask for nothing and are left out. */
function parseInto(ranges: Ranges, count: number, op: Op, info: DeviceInfo): BlkStatus {
  const { view, offsets, lengths } = ranges;
  let status: BlkStatus = VIRTIO_BLK_S.OK;
  ranges.count = 0;
  for (let at = 0; at < count * BLK_RANGE_BYTES; at += BLK_RANGE_BYTES) {
    const sector = view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
    const sectors = view.getUint32(at + 8, true);
    const flags = view.getUint32(at + 12, true);
    const known = op === OP.WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG.UNMAP : 0;
    if ((flags & ~known) !== 0) return VIRTIO_BLK_S.UNSUPP;
    const offset = sector * SECTOR_BYTES;
    const length = sectors * SECTOR_BYTES;
    if (sectors > MAX_RANGE_SECTORS || checkRange(op, offset, length, info) !== null) {
      status = VIRTIO_BLK_S.IOERR;
    }
    if (length === 0) continue;
    offsets[ranges.count] = offset;
    lengths[ranges.count] = length;
    ranges.flags[ranges.count] = op === OP.WRITE_ZEROES && flags === 0 ? FLAG.NO_HOLE : 0;
    ranges.count += 1;
  }
  return status;
}
