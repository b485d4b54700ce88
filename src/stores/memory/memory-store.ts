import { copyBytes } from '../../base/copy-bytes.ts';
import { unreachable } from '../../base/assert.ts';
import { ConfigError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { EXTENT } from '../../block/extents.ts';
import { FLAG, OP, type Io } from '../../block/io.ts';
import { MAX_DISK_BYTES, MAX_TRANSFER_BYTES } from '../../block/limits.ts';
import type { Region } from '../../block/memory.ts';
import { EXTENT_SCAN_PAGES, PAGE_BYTES } from './limits.ts';

export interface MemoryStoreOptions {
  /** For messages. */
  readonly name: string;
  /** A multiple of blockBytes, at most MAX_DISK_BYTES. Memory is taken only for what is written. */
  readonly sizeBytes: number;
  /** Default 512. */
  readonly blockBytes?: 512 | 4096;
  /** A read-only disk is all zeroes: useful as a lower end of overlays and in tests. */
  readonly readOnly?: boolean;
}

/** Opens an empty disk in memory. Throws ConfigError for a size that no disk can have. */
export function openMemoryStore(options: MemoryStoreOptions): MemoryStore {
  const { name, sizeBytes, blockBytes = 512 } = options;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < blockBytes || sizeBytes % blockBytes !== 0) {
    throw new ConfigError(
      `${name}: a disk in memory cannot have ${sizeBytes} bytes`,
      `give a size that is a multiple of ${blockBytes} bytes, for example 1G`,
    );
  }
  if (sizeBytes > MAX_DISK_BYTES) {
    throw new ConfigError(
      `${name}: ${sizeBytes} bytes are more than a disk can have`,
      `give a size of at most ${formatSize(MAX_DISK_BYTES)}`,
    );
  }
  return new MemoryStore(options);
}

/**
 * A disk in memory, in pages made when first written and given back by DISCARD and WRITE_ZEROES. It keeps nothing
 * when the process ends; until then a completed write is as stable as it will ever be, so it has no write cache,
 * FLUSH has nothing to do and FUA is what every write does. Every request completes inside `submit`.
 */
export class MemoryStore implements BlockDevice {
  readonly info: DeviceInfo;
  readonly #pages = new Map<number, Uint8Array>();
  #closed = false;

  /** Use `openMemoryStore`, which checks the options. */
  constructor(options: MemoryStoreOptions) {
    const blockBytes = options.blockBytes ?? 512;
    this.info = Object.freeze({
      name: options.name,
      sizeBytes: options.sizeBytes,
      blockBytes,
      preferredBytes: 4096,
      maxTransferBytes: MAX_TRANSFER_BYTES,
      readOnly: options.readOnly ?? false,
      writeCache: false,
      ignoresFlush: false,
      fua: 'native',
      discard: true,
      fastZero: true,
      extents: true,
      rotational: false,
      memoryAlignment: 1,
    } satisfies DeviceInfo);
  }

  /** Memory taken for data now. */
  get allocatedBytes(): number {
    return this.#pages.size * PAGE_BYTES;
  }

  submit(io: Io): void {
    io.complete(this.#closed ? 'ESHUTDOWN' : this.#perform(io));
  }

  /** Gives all memory back. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#pages.clear();
  }

  #perform(io: Io): BlockErrorCode | null {
    switch (io.op) {
      case OP.READ:
        return this.#read(io);
      case OP.WRITE:
        return this.#write(io);
      case OP.FLUSH:
      case OP.CACHE:
        return null;
      case OP.DISCARD:
        this.#free(io.offset, io.offset + io.length);
        return null;
      case OP.WRITE_ZEROES:
        return this.#zero(io);
      case OP.EXTENTS:
        return this.#extents(io);
      default:
        return unreachable(io.op);
    }
  }

  #read(io: Io): null {
    const { segments } = io;
    let offset = io.offset;
    for (let i = 0; i < segments.count; i += 1) {
      const target = (segments.regions[i] as Region).bytes;
      const end = segments.end(i);
      let at = segments.starts[i] as number;
      while (at < end) {
        const index = Math.floor(offset / PAGE_BYTES);
        const inside = offset - index * PAGE_BYTES;
        const length = Math.min(end - at, PAGE_BYTES - inside);
        const page = this.#pages.get(index);
        if (page === undefined) target.fill(0, at, at + length);
        else copyBytes(page, inside, target, at, length);
        at += length;
        offset += length;
      }
    }
    return null;
  }

  #write(io: Io): BlockErrorCode | null {
    const { segments } = io;
    let offset = io.offset;
    for (let i = 0; i < segments.count; i += 1) {
      const source = (segments.regions[i] as Region).bytes;
      const end = segments.end(i);
      let at = segments.starts[i] as number;
      while (at < end) {
        const index = Math.floor(offset / PAGE_BYTES);
        const inside = offset - index * PAGE_BYTES;
        const length = Math.min(end - at, PAGE_BYTES - inside);
        const page = this.#pages.get(index) ?? this.#makePage(index);
        if (page === null) return 'ENOMEM';
        copyBytes(source, at, page, inside, length);
        at += length;
        offset += length;
      }
    }
    return null;
  }

  #zero(io: Io): BlockErrorCode | null {
    const end = io.offset + io.length;
    if ((io.flags & FLAG.NO_HOLE) === 0) {
      this.#free(io.offset, end);
      return null;
    }
    // Filling whole pages costs what writing them costs.
    if ((io.flags & FLAG.FAST) !== 0) return 'EOPNOTSUPP';
    for (let offset = io.offset; offset < end;) {
      const index = Math.floor(offset / PAGE_BYTES);
      const inside = offset - index * PAGE_BYTES;
      const length = Math.min(end - offset, PAGE_BYTES - inside);
      const page = this.#pages.get(index);
      if (page !== undefined) page.fill(0, inside, inside + length);
      else if (this.#makePage(index) === null) return 'ENOMEM';
      offset += length;
    }
    return null;
  }

  /** Makes [start, end) read as zeroes: whole pages are given back, the parts of pages at both ends are filled. */
  #free(start: number, end: number): void {
    const first = Math.floor(start / PAGE_BYTES);
    const last = Math.floor((end - 1) / PAGE_BYTES);
    if (last - first >= this.#pages.size) {
      // The range has more pages than there are: look at those that are.
      for (const index of this.#pages.keys()) {
        if (index >= first && index <= last) this.#freePart(index, start, end);
      }
    } else {
      for (let index = first; index <= last; index += 1) this.#freePart(index, start, end);
    }
  }

  #freePart(index: number, start: number, end: number): void {
    const pageStart = index * PAGE_BYTES;
    if (start <= pageStart && end >= Math.min(pageStart + PAGE_BYTES, this.info.sizeBytes)) {
      this.#pages.delete(index);
    } else {
      const from = Math.max(0, start - pageStart);
      this.#pages.get(index)?.fill(0, from, Math.min(PAGE_BYTES, end - pageStart));
    }
  }

  #extents(io: Io): null {
    const end = io.offset + io.length;
    const one = (io.flags & FLAG.ONE) !== 0;
    let offset = io.offset;
    for (let scanned = 0; offset < end && scanned < EXTENT_SCAN_PAGES; scanned += 1) {
      const index = Math.floor(offset / PAGE_BYTES);
      const next = Math.min(end, (index + 1) * PAGE_BYTES);
      const flags = this.#pages.has(index) ? 0 : EXTENT.HOLE | EXTENT.ZERO;
      if (one && io.extents.count === 1 && io.extents.flags[0] !== flags) break;
      io.extents.push(next - offset, flags);
      offset = next;
    }
    return null;
  }

  #makePage(index: number): Uint8Array | null {
    let page: Uint8Array;
    try {
      page = new Uint8Array(PAGE_BYTES);
    } catch {
      // V8 throws a RangeError when the host has no memory left for an ArrayBuffer.
      return null;
    }
    this.#pages.set(index, page);
    return page;
  }
}
