import type { BlockDevice, DeviceInfo } from '../../src/block/device.ts';
import type { BlockErrorCode } from '../../src/block/errors.ts';
import { FLAG, Io, OP, type Op } from '../../src/block/io.ts';
import { Region } from '../../src/block/memory.ts';
import type { AdmitOwner, SyncTarget } from '../../src/durability/flush-domain.ts';

// A disk on a host with a volatile cache, for tests: nothing happens until the test says so. Each mutation of a block
// gets a version; a sync makes stable exactly what was completed when it started, the least that a sync may do; a
// failed sync loses that for good, as Linux does (the pages are clean afterwards).

/** What the store asks of a flush domain, so that a faulty one can take the place of ours. */
export interface Flusher {
  admit?(io: Io, owner: AdmitOwner): boolean;
  mutated(offset: number, bytes: number): number;
  mutatedNative?(offset: number, bytes: number, error: BlockErrorCode | null): void;
  flush(io: Io): void;
  flushTo(io: Io, need: number): void;
  synced(error: BlockErrorCode | null): void;
}

export const BLOCK_BYTES = 512;

/** A request a test made, and what became of it. */
export class Asked {
  readonly io = new Io();
  /** The block it concerns. */
  readonly block: number;
  /** Of a mutation that was done: which version of the block it made. */
  version = 0;
  done = false;
  error: BlockErrorCode | null = null;
  /** Mutations acknowledged when this was submitted. */
  covers: Asked[] = [];
  onDone: (() => void) | null = null;

  constructor(op: Op, block: number, flags: number) {
    this.block = block;
    this.io.context = this;
    const length = op === OP.FLUSH ? 0 : BLOCK_BYTES;
    this.io.reset(op, block * BLOCK_BYTES, length, flags);
    if (op === OP.WRITE || op === OP.READ) {
      this.io.segments.push(Region.plain(BLOCK_BYTES), 0, BLOCK_BYTES);
    }
    this.io.push(this);
  }

  ioDone(io: Io): void {
    this.done = true;
    this.error = io.error;
    this.onDone?.();
  }

  get succeeded(): boolean {
    return this.done && this.error === null;
  }
}

export interface VolatileStoreOptions {
  /** Everything completes at once: requests and syncs. */
  readonly auto?: boolean;
  readonly fua?: 'native' | 'emulated';
  readonly readOnly?: boolean;
}

export class VolatileStore implements BlockDevice, SyncTarget, AdmitOwner {
  readonly info: DeviceInfo;
  readonly flusher: Flusher;
  /** Requests the host has been given and has not done. */
  readonly pending: Io[] = [];
  /** Syncs started; the running one is the last. */
  syncs = 0;
  syncing = false;
  closed = false;
  auto: boolean;
  /** With `auto`: what the next sync ends with. */
  nextSync: BlockErrorCode | null = null;
  /** The ops in the order they reached the host, for tests of order. */
  readonly log: string[] = [];
  readonly #native: boolean;
  readonly #cached = new Map<number, number>();
  readonly #stable = new Map<number, number>();
  readonly #lost = new Set<number>();
  #versions = 0;
  #covered: [number, number][] = [];

  constructor(makeFlusher: (target: SyncTarget) => Flusher, options: VolatileStoreOptions = {}) {
    this.auto = options.auto ?? false;
    this.#native = options.fua === 'native';
    this.info = Object.freeze({
      name: 'volatile',
      sizeBytes: 1024 * BLOCK_BYTES,
      blockBytes: BLOCK_BYTES,
      preferredBytes: BLOCK_BYTES,
      maxTransferBytes: 64 * BLOCK_BYTES,
      readOnly: options.readOnly ?? false,
      writeCache: true,
      ignoresFlush: false,
      fua: this.#native ? 'native' : 'emulated',
      discard: true,
      fastZero: true,
      extents: false,
      rotational: false,
      memoryAlignment: 1,
    });
    this.flusher = makeFlusher(this);
  }

  submit(io: Io): void {
    this.log.push(nameOf(io));
    if (io.op === OP.FLUSH) {
      this.flusher.flush(io);
    } else if (!io.mutates || (this.flusher.admit?.(io, this) ?? true)) {
      this.admitted(io);
    }
  }

  admitted(io: Io): void {
    this.pending.push(io);
    if (this.auto) this.finish(io);
  }

  /** The host is done with a request: the oldest, or the one given. */
  finish(io: Io | undefined = this.pending[0], error: BlockErrorCode | null = null): void {
    const at = io === undefined ? -1 : this.pending.indexOf(io);
    if (io === undefined || at < 0) throw new Error('nothing to finish');
    this.pending.splice(at, 1);
    if (!io.mutates) {
      io.complete(error);
      return;
    }
    const version = this.#change(io, error);
    const fua = (io.flags & FLAG.FUA) !== 0;
    if (fua && this.#native) {
      if (error === null) this.#stable.set(io.offset / BLOCK_BYTES, version);
      this.flusher.mutatedNative?.(io.offset, io.length, error);
      io.complete(error);
      return;
    }
    const number = this.flusher.mutated(io.offset, io.length);
    if (error === null && fua) this.flusher.flushTo(io, number);
    else io.complete(error);
  }

  finishAll(): void {
    while (this.pending.length > 0) this.finish();
  }

  startSync(): void {
    if (this.syncing) throw new Error('two syncs at once');
    this.syncs += 1;
    this.syncing = true;
    this.#covered = [...this.#cached].filter(([, version]) => !this.#lost.has(version));
    if (!this.auto) return;
    const error = this.nextSync;
    this.nextSync = null;
    this.finishSync(error);
  }

  finishSync(error: BlockErrorCode | null = null): void {
    if (!this.syncing) throw new Error('no sync to finish');
    this.syncing = false;
    for (const [block, version] of this.#covered) {
      const stable = this.#stable.get(block) ?? 0;
      if (stable >= version) continue;
      if (error === null) this.#stable.set(block, version);
      else this.#lost.add(version);
    }
    this.flusher.synced(error);
  }

  /** Whether what `asked` wrote, or something later, would be there after a power cut now. */
  isStable(asked: Asked): boolean {
    return (this.#stable.get(asked.block) ?? 0) >= asked.version;
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  /** A failed mutation counts as done: it may have changed something, and the domain must be told. */
  #change(io: Io, error: BlockErrorCode | null): number {
    this.#versions += 1;
    if (error !== null) return 0;
    this.#cached.set(io.offset / BLOCK_BYTES, this.#versions);
    if (io.context instanceof Asked) io.context.version = this.#versions;
    return this.#versions;
  }
}

function nameOf(io: Io): string {
  const names = ['read', 'write', 'flush', 'discard', 'zeroes', 'cache', 'extents'];
  return `${names[io.op] ?? ''}${(io.flags & FLAG.FUA) === 0 ? '' : '+fua'}`;
}

/** Makes requests, submits them, and remembers what was acknowledged when: the facts P1 and P2 are judged by. */
export class Client {
  readonly #device: BlockDevice;
  readonly acknowledged: Asked[] = [];
  readonly all: Asked[] = [];

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  write(block: number, flags = 0): Asked {
    return this.submit(new Asked(OP.WRITE, block, flags));
  }

  flush(): Asked {
    return this.submit(new Asked(OP.FLUSH, 0, 0));
  }

  read(block: number): Asked {
    return this.submit(new Asked(OP.READ, block, 0));
  }

  submit(asked: Asked): Asked {
    this.all.push(asked);
    asked.covers = [...this.acknowledged];
    const { onDone } = asked;
    asked.onDone = () => {
      if (asked.io.mutates && asked.error === null) this.acknowledged.push(asked);
      onDone?.();
    };
    this.#device.submit(asked.io);
    return asked;
  }
}
