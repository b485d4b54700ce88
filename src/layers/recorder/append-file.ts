import { closeSync, openSync } from 'node:fs';
import type { Timer } from '../../base/clock.ts';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { codeOfErrno, type BlockErrorCode } from '../../block/errors.ts';
import { Segments } from '../../block/memory.ts';
import { Completion, type FileTraits, type Reactor } from '../../reactor/reactor.ts';
import { BUFFER_PAGES, COLLECT_BYTES, COLLECT_MS, PAGE_BYTES, WRITE_BYTES } from './limits.ts';
import { RecordBuffer } from './record-buffer.ts';

/** Who fills an AppendFile. */
export interface AppendFileOwner {
  /** There is more room. Perhaps called inside `put`'s `touched`. */
  written(): void;
  /** Nothing is written any more: what was put and is not in the file is dropped, what is put from now on too. */
  failed(error: BlockErrorCode): void;
}

/**
 * A file that is only added to, through a buffer: what is put goes to it in large writes, one at a time, so that whenever
 * the process is killed the file holds everything up to some byte and nothing after it.
 */
export class AppendFile {
  readonly #reactor: Reactor;
  readonly #owner: AppendFileOwner;
  readonly #buffer: RecordBuffer;
  readonly #segments = new Segments();
  readonly #fd: number;
  readonly #traits: FileTraits;
  readonly #whenWritten = new Done((result) => this.#wrote(result));
  readonly #collected = (): void => {
    this.#collecting = null;
    this.#write();
  };
  #collecting: Timer | null = null;
  #writing = false;
  #failed = false;
  #drained: (() => void) | null = null;

  /** Makes the file. Throws ConfigError when it is there already or cannot be made. */
  constructor(reactor: Reactor, path: string, pages: number | undefined, owner: AppendFileOwner) {
    this.#reactor = reactor;
    this.#owner = owner;
    this.#fd = create(path);
    // Never by a plain call, even where the file is in memory: the writes are large, and guests need this thread.
    this.#traits = { ...reactor.files.probeFile(this.#fd), inlineWrite: false };
    this.#buffer = new RecordBuffer(reactor.pool.apart(PAGE_BYTES, pages ?? BUFFER_PAGES));
  }

  /** Where records are put; what is put there is `touched` afterwards. */
  get buffer(): RecordBuffer {
    return this.#buffer;
  }

  /** After what belongs together was put: it is written at once if there is much, and soon if there is little. */
  touched(): void {
    if (this.#failed) {
      this.#buffer.drop();
    } else if (this.#buffer.used >= COLLECT_BYTES) {
      this.#write();
    } else if (!this.#writing) {
      this.#collecting ??= this.#reactor.after(COLLECT_MS, this.#collected);
    }
  }

  /** Resolves when all that was put is written, or nothing is any more. */
  async drain(): Promise<void> {
    const drained = new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
    this.#write();
    this.#settle();
    await drained;
  }

  /** Writes what is left and makes it stable. Resolves with why that could not be, or null. */
  async close(): Promise<BlockErrorCode | null> {
    await this.drain();
    const result = this.#failed ? 0 : await this.#sync();
    closeSync(this.#fd);
    return result < 0 ? codeOfErrno(-result) : null;
  }

  #write(): void {
    if (this.#writing || this.#failed || this.#buffer.used === 0) return;
    this.#collecting?.cancel();
    this.#collecting = null;
    this.#writing = true;
    this.#segments.clear();
    this.#buffer.next(this.#segments, WRITE_BYTES);
    const { files } = this.#reactor;
    const at = this.#buffer.tail;
    files.write(this.#whenWritten, this.#fd, this.#traits, this.#segments, 0, at, false);
  }

  /** Inside `#write` where the file is in memory. */
  #wrote(result: number): void {
    this.#writing = false;
    if (result > 0) {
      this.#buffer.written(result);
      // While it is drained nothing is collected.
      if (this.#drained !== null) this.#write();
      else if (this.#buffer.used > 0) this.touched();
      this.#owner.written();
    } else {
      this.#failed = true;
      this.#buffer.drop();
      this.#owner.failed(result === 0 ? 'EIO' : codeOfErrno(-result));
    }
    this.#settle();
  }

  #settle(): void {
    if (this.#drained === null || this.#writing || this.#buffer.used > 0) return;
    const drained = this.#drained;
    this.#drained = null;
    drained();
    letEventLoopRun();
  }

  #sync(): Promise<number> {
    return new Promise((resolve) => {
      const done = new Done((result) => {
        resolve(result);
        letEventLoopRun();
      });
      this.#reactor.files.datasync(done, this.#fd);
    });
  }
}

class Done extends Completion {
  readonly #done: (result: number) => void;

  constructor(done: (result: number) => void) {
    super();
    this.#done = done;
  }

  override complete(result: number): void {
    this.#done(result);
  }
}

function create(path: string): number {
  try {
    return openSync(path, 'wx');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') {
      throw new ConfigError(
        `${path}: a file of this name is there already`,
        'give the recording a name of its own, or remove the old one',
        { cause: error },
      );
    }
    throw new ConfigError(
      `${path}: the recording cannot be written: ${messageOf(error)}`,
      'name a file in a directory that can be written',
      { cause: error },
    );
  }
}
