import { closeSync, openSync, writeSync } from 'node:fs';
import { assert } from '../base/assert.ts';
import { MiB } from '../base/units.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { FLAG, OP, type Op } from '../block/io.ts';
import { openTrace, openTraceBytes } from './reader.ts';
import type { Mark, Trace, TraceBase, TraceDisk } from './trace.ts';
import { TraceWriter } from './writer.ts';

/** A disk; what is not said is as in most tests. */
export interface BuiltDisk {
  /** Bytes. Default 1 MiB. */
  readonly sizeBytes?: number;
  /** Default 512. */
  readonly blockBytes?: number;
  /** Default 'disk' and its number. */
  readonly name?: string;
  /** Default zeroes. */
  readonly base?: TraceBase;
  /** Default 'zeroes'. */
  readonly discard?: TraceDisk['discard'];
  /** Default 'everyone'. */
  readonly flushCovers?: TraceDisk['flushCovers'];
  readonly ignoresFlush?: boolean;
}

/** Where a request goes, and from whom. */
export interface BuiltRequest {
  /** Default 0. */
  readonly disk?: number;
  /** Default 0. */
  readonly source?: number;
  /** FLAG, beside what `fua` says. */
  readonly flags?: number;
}

export interface BuiltRange extends BuiltRequest {
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  readonly fua?: boolean;
}

export interface BuiltWrite extends BuiltRequest {
  /** Bytes. */
  readonly offset: number;
  /** The data, or a byte that fills `length`. */
  readonly data: Uint8Array | number;
  /** With a byte as data. Default: one block. */
  readonly length?: number;
  readonly fua?: boolean;
}

const STEP_NS = 1000;

/**
 * Makes traces by hand, event by event in the order of time, in memory or in a file. Requests are numbered from 0 as in
 * `Trace.requests`; `write` and its like issue one and return its number, `done` and `failed` complete it.
 */
export class TraceBuilder {
  readonly #writer = new TraceWriter();
  readonly #parts: Uint8Array[] = [];
  readonly #disks: TraceDisk[] = [];
  readonly #diskOf: number[] = [];
  #timeNs = 0;

  constructor({ disks = [{}] }: { disks?: readonly BuiltDisk[] } = {}) {
    this.#keep(this.#writer.begin());
    for (const disk of disks) this.#addDisk(disk);
  }

  /** Issues a WRITE. */
  write(request: BuiltWrite): number {
    const block = (this.#disks[request.disk ?? 0] as TraceDisk).blockBytes;
    const data =
      typeof request.data === 'number'
        ? new Uint8Array(request.length ?? block).fill(request.data)
        : request.data;
    return this.#issue(OP.WRITE, { ...request, length: data.length }, data);
  }

  /** Issues a DISCARD. */
  trim(request: BuiltRange): number {
    return this.#issue(OP.DISCARD, request);
  }

  /** Issues a WRITE_ZEROES. */
  zeroes(request: BuiltRange): number {
    return this.#issue(OP.WRITE_ZEROES, request);
  }

  /** Issues a FLUSH: of everything, or of a range. */
  flush(request: Partial<BuiltRange> = {}): number {
    return this.#issue(OP.FLUSH, { offset: 0, length: 0, ...request });
  }

  /** Issues a READ. */
  read(request: BuiltRange): number {
    return this.#issue(OP.READ, request);
  }

  /** Completes a request. Returns its number. */
  done(request: number): number {
    return this.#complete(request, null);
  }

  failed(request: number, error: BlockErrorCode = 'EIO'): number {
    return this.#complete(request, error);
  }

  /** A WRITE that is done before anything else happens. */
  wrote(request: BuiltWrite): number {
    return this.done(this.write(request));
  }

  flushed(request: Partial<BuiltRange> = {}): number {
    return this.done(this.flush(request));
  }

  /** A mark; with `timeNs` one that stands late in the file. */
  mark(kind: Mark['kind'], text: string, timeNs: number = this.#tick()): void {
    this.#keep(this.#writer.mark(kind, text, timeNs));
  }

  /** Nanoseconds: events are one microsecond apart. */
  get nowNs(): number {
    return this.#timeNs;
  }

  /** The file as it is by now. `end: false`: as after a kill. The builder can go on. */
  bytes({ end = true }: { end?: boolean } = {}): Uint8Array {
    const last = end ? this.#writer.end(this.#timeNs) : [];
    return new Uint8Array(Buffer.concat([...this.#parts, ...last]));
  }

  /** The trace, in memory. */
  trace(options: { end?: boolean } = {}): Trace {
    return openTraceBytes(this.bytes(options), '(memory)');
  }

  /** Writes the trace to a new file and opens it. */
  save(path: string, options: { end?: boolean } = {}): Trace {
    const fd = openSync(path, 'wx');
    try {
      writeSync(fd, this.bytes(options));
    } finally {
      closeSync(fd);
    }
    return openTrace(path);
  }

  #addDisk(disk: BuiltDisk): void {
    const number = this.#disks.length;
    const whole: TraceDisk = {
      number,
      name: disk.name ?? `disk${number}`,
      sizeBytes: disk.sizeBytes ?? MiB,
      blockBytes: disk.blockBytes ?? 512,
      base: disk.base ?? { kind: 'zeroes' },
      discard: disk.discard ?? 'zeroes',
      flushCovers: disk.flushCovers ?? 'everyone',
      ...(disk.ignoresFlush === undefined ? {} : { ignoresFlush: disk.ignoresFlush }),
    };
    this.#disks.push(whole);
    this.#keep(this.#writer.disk(whole, 0));
  }

  #issue(op: Op, request: BuiltRange, data?: Uint8Array): number {
    const { disk = 0, source = 0, offset, length, fua = false } = request;
    assert(this.#disks[disk] !== undefined, 'a disk that the trace does not have');
    const flags = (request.flags ?? 0) | (fua ? FLAG.FUA : 0);
    this.#diskOf.push(disk);
    const what = { op, flags, disk, source, offset, length };
    this.#keep(this.#writer.issue(what, this.#tick(), data));
    return this.#diskOf.length - 1;
  }

  #complete(request: number, error: BlockErrorCode | null): number {
    const disk = this.#diskOf[request];
    assert(disk !== undefined, 'a request that was not issued');
    this.#keep(this.#writer.complete(request, disk, error, this.#tick()));
    return request;
  }

  #tick(): number {
    this.#timeNs += STEP_NS;
    return this.#timeNs;
  }

  #keep(parts: readonly Uint8Array[]): void {
    for (const part of parts) this.#parts.push(new Uint8Array(part));
  }
}
