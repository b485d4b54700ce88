import { assert, unreachable } from '../../base/assert.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { FLAG, OP, type Io, type IoOwner } from '../../block/io.ts';
import { MAX_TRANSFER_BYTES } from '../../block/limits.ts';
import type { DiskState } from '../../durability/disk-state.ts';
import type { AdmitOwner, FlushDomain } from '../../durability/flush-domain.ts';
import type { DiskFile } from './disk-file.ts';
import { fileOpPoolOf, type FileOp, type FileOpOwner, type FileOpPool } from './file-op.ts';
import { fillExtents } from './map.ts';

/**
 * A raw image file or a block device as a disk. Writes go to the host's page cache, or with O_DIRECT past it; FLUSH and
 * FUA make them stable through the inode's flush domain. Made by `openFileStore`.
 */
export class FileStore implements BlockDevice, IoOwner, AdmitOwner, FileOpOwner {
  readonly #file: DiskFile;
  readonly #readOnly: boolean;
  readonly #release: () => void;
  readonly #tellLessAble: () => void;
  readonly #ops: FileOpPool;
  #info: DeviceInfo;
  #inFlight = 0;
  #closing: Promise<void> | null = null;
  #drained: (() => void) | null = null;

  /** `release` gives the file back; called once, when nothing is in flight any more. */
  constructor(file: DiskFile, readOnly: boolean, release: () => void) {
    this.#file = file;
    this.#readOnly = readOnly;
    this.#release = release;
    this.#ops = fileOpPoolOf(file.reactor);
    this.#info = this.#describe();
    this.#tellLessAble = () => {
      this.#info = this.#describe();
    };
    file.onLessAble.push(this.#tellLessAble);
  }

  get info(): DeviceInfo {
    return this.#info;
  }

  /** Shared by all stores of one inode. */
  get domain(): FlushDomain {
    return this.#file.domain;
  }

  /** What is remembered across restarts, for the sessions (P10). Null on a read-only store. */
  get state(): DiskState | null {
    return this.#readOnly ? null : this.#file.state;
  }

  submit(io: Io): void {
    if (this.#closing !== null) {
      io.complete('ESHUTDOWN');
      return;
    }
    this.#inFlight += 1;
    io.push(this);
    switch (io.op) {
      case OP.FLUSH:
        this.domain.flush(io);
        break;
      case OP.READ:
      case OP.CACHE:
        this.#read(io);
        break;
      case OP.WRITE:
      case OP.WRITE_ZEROES:
      case OP.DISCARD:
        if (this.#refuses(io)) return;
        if (this.domain.admit(io, this)) this.admitted(io);
        break;
      case OP.EXTENTS:
        io.complete(this.#isGone(io) ? 'EIO' : fillExtents(io, this.#file));
        break;
      default:
        unreachable(io.op);
    }
  }

  ioDone(io: Io): void {
    this.#inFlight -= 1;
    if (this.#inFlight === 0 && this.#drained !== null) this.#drained();
    io.complete(io.error);
  }

  /** The flush domain lets a mutation pass. */
  admitted(io: Io): void {
    const fua = (io.flags & FLAG.FUA) !== 0;
    const native = fua && io.op === OP.WRITE && this.#file.prefersNative(io.length);
    const op = this.#ops.take();
    if (native) op.startedMs = this.#file.reactor.nowMs();
    op.start(this.#file, this, io, native);
  }

  opDone(op: FileOp, io: Io, error: BlockErrorCode | null): void {
    const { native } = op;
    this.#ops.give(op);
    if (!io.mutates) {
      io.complete(error);
      return;
    }
    if (native) {
      if (error === null)
        this.#file.wroteNative(this.#file.reactor.nowMs() - op.startedMs, io.length);
      this.domain.mutatedNative(io.offset, io.length, error);
      io.complete(error);
      return;
    }
    // Counted before anything is answered, and failed ones too: part of one may have been done.
    const number = this.domain.mutated(io.offset, io.length);
    if (error === null && (io.flags & FLAG.FUA) !== 0) this.domain.flushTo(io, number);
    else io.complete(error);
  }

  /** Refuses new requests, waits for those in flight, and gives the file back. What is unstable stays so. */
  close(): Promise<void> {
    this.#closing ??= this.#drain();
    return this.#closing;
  }

  async #drain(): Promise<void> {
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = () => {
          resolve();
          letEventLoopRun();
        };
      });
    }
    assert(this.#inFlight === 0, 'a file store is closed with requests in flight');
    this.#file.onLessAble.splice(this.#file.onLessAble.indexOf(this.#tellLessAble), 1);
    this.#release();
  }

  #read(io: Io): void {
    if (this.#isGone(io)) {
      io.complete('EIO');
    } else if (io.length === 0 || (io.op === OP.CACHE && this.#file.facts.direct)) {
      // O_DIRECT reads past the page cache: reading ahead into it would only cost.
      io.complete(null);
    } else {
      this.#ops.take().start(this.#file, this, io, false);
    }
  }

  /** Completes what needs no look at the disk, or may not have one. */
  #refuses(io: Io): boolean {
    if (this.#readOnly) io.complete('EROFS');
    else if (io.op === OP.DISCARD && !this.#file.punches) io.complete('EOPNOTSUPP');
    else if (io.length === 0) io.complete(null);
    else if (this.#isGone(io)) io.complete('EIO');
    else return false;
    return true;
  }

  /** Whether it reaches beyond what somebody left of the file. */
  #isGone(io: Io): boolean {
    return io.offset + io.length > this.#file.endBytes;
  }

  #describe(): DeviceInfo {
    const file = this.#file;
    const { facts } = file;
    const writable = !this.#readOnly;
    const mayBeFast = file.punches || (file.zeroesRanges && !facts.isBlockDevice);
    return Object.freeze({
      name: facts.name,
      sizeBytes: facts.sizeBytes,
      blockBytes: facts.blockBytes,
      preferredBytes: facts.preferredBytes,
      maxTransferBytes: MAX_TRANSFER_BYTES,
      readOnly: this.#readOnly,
      writeCache: writable,
      ignoresFlush: false,
      fua: file.traits.dsync ? 'native' : 'emulated',
      discard: writable && file.punches,
      fastZero: writable && mayBeFast,
      extents: facts.seeks,
      rotational: facts.rotational,
      memoryAlignment: facts.memoryAlignment,
    });
  }
}
