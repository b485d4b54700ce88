import { crc32 } from 'node:zlib';
import { assert } from '../../base/assert.ts';
import { ConfigError } from '../../base/errors.ts';
import { Fifo } from '../../base/fifo.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { OP, type Io } from '../../block/io.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import { monotonicClock } from '../../trace/clock.ts';
import { diskToJson } from '../../trace/disk-json.ts';
import {
  errorNumber,
  fileHeader,
  HEADER_BYTES,
  MARK_KIND,
  paddedBytes,
  RECORD,
  RecordHeader,
} from '../../trace/format.ts';
import type { Mark, TraceDisk } from '../../trace/trace.ts';
import { markBytes } from '../../trace/writer.ts';
import { AppendFile, type AppendFileOwner } from './append-file.ts';
import { MAX_WAITING_MARKS, SMALL_RESERVE_BYTES } from './limits.ts';
import type { RecordBuffer } from './record-buffer.ts';

export interface RecorderOptions {
  /** The trace file, which must not be there yet. */
  readonly path: string;
  /** Also records that READs were asked for, not what they gave. Default: no. */
  readonly reads?: boolean;
  /** When the trace cannot be written any more: guests go on unrecorded, or their requests fail. Default: go on. */
  readonly onError?: 'go-on' | 'fail';
  /** One line for the operator. */
  readonly warn: (line: string) => void;
  /** CLOCK_MONOTONIC in nanoseconds. */
  readonly clock?: () => number;
  /** Memory for records that wait for the file, in MiB. */
  readonly bufferPages?: number;
}

/** One disk that is recorded. */
export interface RecorderClient {
  /** Its number in the trace. */
  readonly disk: number;
  /** The request is recorded with this number, or the recording has stopped (UNRECORDED). It can go on. */
  issued(io: Io, request: number): void;
}

/** The number of a request that is not recorded. */
export const UNRECORDED = -1;

interface WaitingMark {
  readonly kind: Mark['kind'];
  readonly bytes: Uint8Array;
  readonly timeNs: number;
}

const PADDING = new Uint8Array(8);

/**
 * Writes one trace of all disks of a server: one file, one clock, records in the order in which things happen on the data
 * plane's thread. A record is copied into a buffer when it is made; the file is written behind it. When a request is
 * issued, room for its COMPLETE is set aside, so completions never wait; where there is no room for a request, it waits
 * before it is issued, and the guest with it.
 *
 * Nothing is allocated for a request but views of its data, for the checksum (node:zlib) and the copy.
 */
export class TraceRecorder implements AppendFileOwner {
  readonly path: string;
  readonly recordsReads: boolean;
  readonly #options: RecorderOptions;
  readonly #clock: () => number;
  readonly #file: AppendFile;
  readonly #buffer: RecordBuffer;
  readonly #header = new RecordHeader();
  readonly #waitingIos = new Fifo<Io>();
  readonly #waitingClients = new Fifo<RecorderClient>();
  readonly #waitingMarks = new Fifo<WaitingMark>();
  /** Room set aside: for COMPLETEs, and for the END. */
  #reserved = HEADER_BYTES;
  #requests = 0;
  #disks = 0;
  #lastNs = 0;
  #stopped: BlockErrorCode | null = null;
  #lettingGo = false;
  #closing: Promise<void> | null = null;

  /** Makes the file. Throws ConfigError when it is there already or cannot be made. */
  constructor(reactor: Reactor, options: RecorderOptions) {
    this.path = options.path;
    this.recordsReads = options.reads ?? false;
    this.#options = options;
    this.#clock = options.clock ?? monotonicClock();
    this.#file = new AppendFile(reactor, options.path, options.bufferPages, this);
    this.#buffer = this.#file.buffer;
    this.#buffer.put(fileHeader());
    this.#file.touched();
  }

  /** Why nothing is recorded any more, or null. */
  get stopped(): BlockErrorCode | null {
    return this.#stopped;
  }

  /** Whether requests are to fail because they are not recorded. */
  get refuses(): boolean {
    return this.#stopped !== null && this.#options.onError === 'fail';
  }

  get requestCount(): number {
    return this.#requests;
  }

  /** Requests that wait for room. */
  get waiting(): number {
    return this.#waitingIos.length;
  }

  /** Adds a disk, before its first request. Disks are numbered in the order in which they are added. */
  addDisk(disk: Omit<TraceDisk, 'number'>): TraceDisk {
    const whole: TraceDisk = { number: this.#disks, ...disk };
    this.#disks += 1;
    this.#begin(RECORD.DISK);
    this.#header.disk = whole.number;
    this.#putText(Buffer.from(diskToJson(whole)));
    return whole;
  }

  /**
   * Records that a request is issued, and tells the client: now, or later when there is no room. Only then may the device
   * get it.
   */
  issue(io: Io, client: RecorderClient): void {
    if (this.#stopped !== null) {
      client.issued(io, UNRECORDED);
    } else if (this.#mustWait(io)) {
      this.#waitingIos.push(io);
      this.#waitingClients.push(client);
    } else {
      client.issued(io, this.#issueNow(io, client.disk));
    }
  }

  /** Records that a request is done, before whoever made it hears. */
  complete(request: number, disk: number, error: BlockErrorCode | null): void {
    if (this.#stopped !== null || request === UNRECORDED) return;
    this.#reserved -= HEADER_BYTES;
    const header = this.#begin(RECORD.COMPLETE);
    header.request = request;
    header.disk = disk;
    header.error = errorNumber(error);
    this.#put();
    this.#file.touched();
  }

  /** Records a mark that was made at `timeNs` (CLOCK_MONOTONIC). Throws ConfigError when nothing is recorded any more. */
  mark(kind: Mark['kind'], text: string, timeNs: number): void {
    const mark = { kind, bytes: markBytes(text), timeNs };
    if (this.#stopped !== null || this.#closing !== null) {
      throw new ConfigError(
        `${this.path}: the recording has stopped; the mark is not in it`,
        'start the server again with a new trace',
      );
    }
    if (this.#waitingMarks.length === 0 && this.#roomForMark(mark)) {
      this.#putMark(mark);
    } else if (this.#waitingMarks.length < MAX_WAITING_MARKS) {
      this.#waitingMarks.push(mark);
    } else {
      throw new ConfigError(
        `${this.path}: ${MAX_WAITING_MARKS} marks wait already for the trace to be written`,
        'make fewer marks, or record to a faster drive',
      );
    }
  }

  /** Ends the trace and makes it stable, after all its disks are closed. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** For AppendFile: there is more room. */
  written(): void {
    if (this.#lettingGo) return;
    this.#lettingGo = true;
    for (let mark = this.#waitingMarks.peek(); mark !== undefined;) {
      if (!this.#roomForMark(mark)) break;
      this.#waitingMarks.shift();
      this.#putMark(mark);
      mark = this.#waitingMarks.peek();
    }
    for (let io = this.#waitingIos.peek(); io !== undefined; io = this.#waitingIos.peek()) {
      const unrecorded = this.#stopped !== null;
      if (!unrecorded && !this.#roomFor(io)) break;
      this.#waitingIos.shift();
      const client = this.#waitingClients.shift() as RecorderClient;
      client.issued(io, unrecorded ? UNRECORDED : this.#issueNow(io, client.disk));
    }
    this.#lettingGo = false;
  }

  /** For AppendFile: the trace ends with its last complete record. Who waits goes on. */
  failed(error: BlockErrorCode): void {
    this.#stopped = error;
    const why = error === 'ENOSPC' ? 'no space is left' : `its file cannot be written (${error})`;
    const then = this.refuses ? 'writes and flushes fail' : 'the disks are served on, unrecorded';
    this.#options.warn(
      `${this.path}: the recording has stopped: ${why}; ${then}. What is recorded so far can be used; ` +
        'for more, make room and start the server again with a new trace',
    );
    while (this.#waitingMarks.length > 0) this.#waitingMarks.shift();
    this.written();
  }

  async #close(): Promise<void> {
    assert(this.#waitingIos.length === 0, 'a recorder is closed before its disks');
    while (this.#stopped === null && this.#waitingMarks.length > 0) await this.#file.drain();
    if (this.#stopped === null) {
      const header = this.#begin(RECORD.END);
      this.#reserved -= HEADER_BYTES;
      header.request = this.#requests;
      this.#put();
    }
    const error = await this.#file.close();
    if (error !== null && this.#stopped === null) {
      this.#options.warn(`${this.path}: the recording could not be made stable (${error})`);
    }
  }

  #mustWait(io: Io): boolean {
    // A FLUSH covers what is done when it is issued; it does not stand in line behind writes, which it is no part of.
    const inLine = this.#waitingIos.length > 0 && io.op !== OP.FLUSH;
    return inLine || !this.#roomFor(io);
  }

  #roomFor(io: Io): boolean {
    const room = this.#buffer.free - this.#reserved - 2 * HEADER_BYTES;
    if (io.op === OP.FLUSH) return room >= 0;
    return room >= SMALL_RESERVE_BYTES + (io.op === OP.WRITE ? paddedBytes(io.length) : 0);
  }

  #roomForMark({ bytes }: WaitingMark): boolean {
    const needed = HEADER_BYTES + paddedBytes(bytes.length) + SMALL_RESERVE_BYTES;
    return this.#buffer.free - this.#reserved >= needed;
  }

  #issueNow(io: Io, disk: number): number {
    const request = this.#requests;
    this.#requests += 1;
    this.#reserved += HEADER_BYTES;
    const header = this.#begin(RECORD.ISSUE);
    header.op = io.op;
    header.flags = io.flags;
    header.disk = disk;
    header.source = io.source;
    header.offset = io.offset;
    header.length = io.length;
    header.request = request;
    if (io.op === OP.WRITE) this.#putData(io);
    else this.#put();
    this.#file.touched();
    return request;
  }

  /** A header with the time as it is now: never backwards, whatever the clock does. */
  #begin(type: number): RecordHeader {
    this.#lastNs = Math.max(this.#lastNs, this.#clock());
    this.#header.reset(type, this.#lastNs);
    return this.#header;
  }

  #put(): void {
    this.#header.encode();
    this.#buffer.put(this.#header.bytes);
  }

  /** The checksum is of the copy: a guest may change its memory at any time. */
  #putData({ segments, length }: Io): void {
    const at = this.#buffer.skip(HEADER_BYTES);
    for (let i = 0; i < segments.count; i += 1) this.#buffer.put(segments.bytesAt(i));
    this.#pad(length);
    this.#header.payloadBytes = length;
    this.#header.payloadCrc = this.#buffer.crc32(at + HEADER_BYTES, length);
    this.#header.encode();
    this.#buffer.fill(at, this.#header.bytes);
  }

  #putText(bytes: Uint8Array): void {
    this.#header.payloadBytes = bytes.length;
    this.#header.payloadCrc = crc32(bytes);
    this.#put();
    this.#buffer.put(bytes);
    this.#pad(bytes.length);
    this.#file.touched();
  }

  #putMark({ kind, bytes, timeNs }: WaitingMark): void {
    this.#header.reset(RECORD.MARK, timeNs);
    this.#header.op = MARK_KIND[kind];
    this.#putText(bytes);
  }

  #pad(length: number): void {
    const missing = paddedBytes(length) - length;
    if (missing > 0) this.#buffer.put(PADDING.subarray(0, missing));
  }
}
