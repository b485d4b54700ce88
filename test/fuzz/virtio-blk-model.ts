import type { DeviceInfo } from '../../src/block/device.ts';
import {
  BLK_HEADER_BYTES,
  MAX_RANGE_SECTORS,
  MAX_RANGES,
  SECTOR_BYTES,
  VIRTIO_BLK_F,
  VIRTIO_BLK_S,
  VIRTIO_BLK_T,
} from '../../src/protocols/virtio/blk.ts';
import { hasFeature } from '../../src/protocols/virtio/virtio.ts';

/** A stretch of the disk, in bytes. */
export interface Extent {
  readonly at: number;
  readonly length: number;
}

/** What a request must come to. */
export interface Outcome {
  readonly status: number;
  /** Device-writable bytes that are filled, from the first one on; the status follows after all the room. */
  readonly data: Uint8Array | null;
  /** For the used ring. */
  readonly written: number;
  readonly wrote: readonly Extent[];
  readonly read: readonly Extent[];
}

const { OK, IOERR, UNSUPP } = VIRTIO_BLK_S;
/** Failed requests with more room than this leave it as it is. */
const MOST_ZEROED = 2 ** 20;

/**
 * The block device of [virtio 5.2] over a disk that is an array, one request after the other. From the specification, and
 * from what Holdfast says it does where that leaves a choice.
 */
export class BlkModel {
  readonly disk: Uint8Array;
  readonly #info: DeviceInfo;
  readonly #id: Uint8Array;
  readonly #bad: Extent;
  features = 0n;

  /** Reads of `bad` fail. */
  constructor(info: DeviceInfo, serial: string, bad: Extent) {
    this.disk = new Uint8Array(info.sizeBytes);
    this.#info = info;
    this.#id = new Uint8Array(20);
    new TextEncoder().encodeInto(serial, this.#id);
    this.#bad = bad;
  }

  /** Null: nobody can answer it, and the ring is broken. `room`: device-writable bytes. */
  request(readable: Uint8Array, room: number): Outcome | null {
    if (readable.length < BLK_HEADER_BYTES || room === 0) return null;
    const view = new DataView(readable.buffer, readable.byteOffset, readable.length);
    const word = view.getUint32(0, true);
    const flags = this.#has(VIRTIO_BLK_F.REQ_FLAGS) ? view.getUint32(4, true) : 0;
    const sector = view.getBigUint64(8, true);
    const barrier = this.#has(VIRTIO_BLK_F.BARRIER) && word >= VIRTIO_BLK_T.BARRIER;
    const type = barrier ? word - VIRTIO_BLK_T.BARRIER : word;
    const fua = this.#has(VIRTIO_BLK_F.REQ_FLAGS_OUT_FUA) && type === VIRTIO_BLK_T.OUT ? 1 : 0;
    const payload = readable.subarray(BLK_HEADER_BYTES);
    if ((flags & ~fua) !== 0) return fails(UNSUPP, room);
    switch (type) {
      case VIRTIO_BLK_T.IN:
        return this.#read(sector, room);
      case VIRTIO_BLK_T.OUT:
        return this.#write(sector, payload, room);
      case VIRTIO_BLK_T.FLUSH:
      case VIRTIO_BLK_T.FLUSH_OUT:
        return succeeds(null, room);
      case VIRTIO_BLK_T.GET_ID:
        return succeeds(this.#id.subarray(0, room - 1), room);
      case VIRTIO_BLK_T.DISCARD:
        return this.#ranges(payload, room, this.#has(VIRTIO_BLK_F.DISCARD), 0);
      case VIRTIO_BLK_T.WRITE_ZEROES:
        return this.#ranges(payload, room, this.#has(VIRTIO_BLK_F.WRITE_ZEROES), 1);
      default:
        return fails(UNSUPP, room);
    }
  }

  #has(bit: number): boolean {
    return hasFeature(this.features, bit);
  }

  #extent(sector: bigint, length: number): Extent | null {
    const at = sector * BigInt(SECTOR_BYTES);
    const { blockBytes, sizeBytes } = this.#info;
    if (at % BigInt(blockBytes) !== 0n || length % Math.max(blockBytes, SECTOR_BYTES) !== 0) {
      return null;
    }
    return at + BigInt(length) <= BigInt(sizeBytes) ? { at: Number(at), length } : null;
  }

  #read(sector: bigint, room: number): Outcome {
    const extent = this.#extent(sector, room - 1);
    const { at: badAt, length: badLength } = this.#bad;
    if (extent === null) return fails(IOERR, room);
    const { at, length } = extent;
    if (at < badAt + badLength && badAt < at + length) return fails(IOERR, room, [extent]);
    return succeeds(this.disk.slice(at, at + length), room, [], [extent]);
  }

  #write(sector: bigint, payload: Uint8Array, room: number): Outcome {
    const extent = this.#extent(sector, payload.length);
    if (extent === null || this.#info.readOnly) return fails(IOERR, room);
    this.disk.set(payload, extent.at);
    return succeeds(null, room, [extent]);
  }

  /** [virtio 5.2.6.2] "the device MUST set the status byte to VIRTIO_BLK_S_UNSUPP ... if any unknown flag is set" */
  #ranges(payload: Uint8Array, room: number, negotiated: boolean, knownFlags: number): Outcome {
    const count = payload.length / 16;
    if (count === 0 || payload.length % 16 !== 0 || count > MAX_RANGES) {
      return fails(negotiated ? IOERR : UNSUPP, room);
    }
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    const extents: Extent[] = [];
    let wrong = false;
    for (let i = 0; i < count; i += 1) {
      const sectors = view.getUint32(16 * i + 8, true);
      if ((view.getUint32(16 * i + 12, true) & ~knownFlags) !== 0) return fails(UNSUPP, room);
      const extent = this.#extent(view.getBigUint64(16 * i, true), sectors * SECTOR_BYTES);
      if (extent === null || sectors > MAX_RANGE_SECTORS) wrong = true;
      else extents.push(extent);
    }
    if (this.#info.readOnly) return fails(IOERR, room);
    if (!negotiated) return fails(UNSUPP, room);
    if (wrong) return fails(IOERR, room);
    for (const { at, length } of extents) this.disk.fill(0, at, at + length);
    return succeeds(null, room, extents);
  }
}

function succeeds(
  data: Uint8Array | null,
  room: number,
  wrote: readonly Extent[] = [],
  read: readonly Extent[] = [],
): Outcome {
  const filled = data?.length ?? 0;
  return { status: OK, data, written: told(filled, room), wrote, read };
}

/** A request that fails hands out zeroes, not what was in the way. */
function fails(status: number, room: number, read: readonly Extent[] = []): Outcome {
  const data = room - 1 <= MOST_ZEROED ? new Uint8Array(room - 1) : null;
  return { status, data, written: told(data?.length ?? 0, room), wrote: [], read };
}

/** The used length: all bytes from the first one on that were written, so the status only if there is no gap before. */
function told(filled: number, room: number): number {
  return filled === room - 1 ? room : filled;
}
