import { ProtocolError } from '../../base/errors.ts';
import type { GuestMemory, MemoryRegion } from './guest-memory.ts';
import { MAX_CHAIN_BYTES, MIN_TABLE_LIMIT } from './limits.ts';
import { DESCRIPTOR_BYTES, VIRTQ_DESC_F } from './virtio.ts';
import type { Chain } from './virtqueue.ts';

const WORD = 2 ** 32;

/**
 * Copies the buffers of one chain after the other out of guest memory and checks them: what both ring formats share.
 * `begin` a chain, then `buffer` and `splitTable` or `packedTable` for its descriptors in order. Everything throws a
 * ProtocolError for what a driver must not do; the chain is then half filled and the queue broken.
 *
 * Every word of a table is loaded once, so that the driver cannot change it between check and use. Nothing is allocated.
 * The caller bounds the number of descriptors in the ring itself.
 */
export class ChainReader {
  readonly #memory: GuestMemory;
  readonly #indirect: boolean;
  /** The most descriptors that one indirect table may add. */
  readonly #tableLimit: number;
  /** A writable buffer was seen: nothing readable may follow. */
  #writing = false;

  /** `queueSize` in entries; `indirect`: VIRTIO_F_INDIRECT_DESC was negotiated. */
  constructor(memory: GuestMemory, queueSize: number, indirect: boolean) {
    this.#memory = memory;
    this.#indirect = indirect;
    this.#tableLimit = Math.max(queueSize, MIN_TABLE_LIMIT);
  }

  begin(chain: Chain): void {
    chain.readable.clear();
    chain.writable.clear();
    this.#writing = false;
  }

  /**
   * Adds the buffer of one descriptor, its 64-bit address as two words of 32 bits, its length in bytes. Of the flags only
   * WRITE counts here. An empty buffer adds nothing, wherever it is said to lie.
   */
  buffer(chain: Chain, low: number, high: number, length: number, flags: number): void {
    let to = chain.readable;
    if ((flags & VIRTQ_DESC_F.WRITE) !== 0) {
      to = chain.writable;
      this.#writing = true;
    } else if (this.#writing) {
      // [virtio 2.7.4.2, 2.8.17]
      throw broken('a chain has a readable buffer after a writable one', 'virtio 2.7.4.2');
    }
    // Above 2^53 the sum is rounded, but not to below 2^53, where all regions end.
    if (!this.#memory.push(to, high * WORD + low, length)) {
      throw broken('a buffer lies outside guest memory', 'virtio 2.7.5');
    }
    if (chain.readable.totalBytes + chain.writable.totalBytes > MAX_CHAIN_BYTES) {
      throw broken('a chain has more than 2^32 bytes', 'virtio 2.7.5.2');
    }
  }

  /**
   * Adds the buffers of an indirect table whose entries are linked by `next` [virtio 2.7.5.3]. The WRITE flag of the
   * descriptor that names it is ignored [virtio 2.7.5.3.2]. `flags`: that descriptor's.
   */
  splitTable(chain: Chain, low: number, high: number, length: number, flags: number): void {
    if ((flags & VIRTQ_DESC_F.NEXT) !== 0) {
      throw broken('a descriptor has both INDIRECT and NEXT', 'virtio 2.7.5.3.1');
    }
    const table = this.#table(low, high, length);
    const { view } = table.region;
    const start = high * WORD + low - table.guestAddress;
    const entries = length / DESCRIPTOR_BYTES;
    // Each entry at most once: whoever visits more goes in circles.
    let left = Math.min(entries, this.#tableLimit);
    let index = 0;
    for (;;) {
      if (left === 0) {
        throw broken('an indirect table loops or is too long', 'virtio 2.7.5.3.1');
      }
      left -= 1;
      const at = start + index * DESCRIPTOR_BYTES;
      const entryFlags = view.getUint16(at + 12, true);
      if ((entryFlags & VIRTQ_DESC_F.INDIRECT) !== 0) {
        throw broken('an indirect table inside an indirect table', 'virtio 2.7.5.3.1');
      }
      this.buffer(
        chain,
        view.getUint32(at, true),
        view.getUint32(at + 4, true),
        view.getUint32(at + 8, true),
        entryFlags,
      );
      if ((entryFlags & VIRTQ_DESC_F.NEXT) === 0) return;
      index = view.getUint16(at + 14, true);
      if (index >= entries) {
        throw broken('a link leads out of its indirect table', 'virtio 2.7.5.3');
      }
    }
  }

  /**
   * Adds the buffers of an indirect table whose entries follow each other [virtio 2.8.7]. Flags other than WRITE and the
   * buffer ids in it are ignored, as is the WRITE flag of the descriptor that names it.
   */
  packedTable(chain: Chain, low: number, high: number, length: number): void {
    const table = this.#table(low, high, length);
    const { view } = table.region;
    if (length > this.#tableLimit * DESCRIPTOR_BYTES) {
      throw broken('an indirect table is too long', 'virtio 2.8.19');
    }
    const start = high * WORD + low - table.guestAddress;
    for (let at = start; at < start + length; at += DESCRIPTOR_BYTES) {
      this.buffer(
        chain,
        view.getUint32(at, true),
        view.getUint32(at + 4, true),
        view.getUint32(at + 8, true),
        view.getUint16(at + 14, true),
      );
    }
  }

  /**
   * The region that a table lies in. In one piece: no driver lets a table cross memory regions, whose borders are those of
   * memory modules.
   */
  #table(low: number, high: number, length: number): MemoryRegion {
    if (!this.#indirect) {
      throw broken('an indirect table without VIRTIO_F_INDIRECT_DESC', 'virtio 2.7.5.3.1');
    }
    if (length === 0 || length % DESCRIPTOR_BYTES !== 0) {
      throw broken('an indirect table has half a descriptor or none', 'virtio 2.7.5.3');
    }
    const address = high * WORD + low;
    const found = this.#memory.find(address);
    if (found === undefined || address - found.guestAddress + length > found.sizeBytes) {
      throw broken('an indirect table lies outside guest memory', 'virtio 2.7.5.3');
    }
    return found;
  }
}

function broken(message: string, spec: string): ProtocolError {
  return new ProtocolError(message, spec);
}
