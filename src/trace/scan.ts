import { crc32 } from 'node:zlib';
import { MiB } from '../base/units.ts';
import { OP } from '../block/io.ts';
import type { ByteSource } from './byte-source.ts';
import { diskOfJson } from './disk-json.ts';
import {
  checkFileHeader,
  HEADER_BYTES,
  KNOWN_FLAGS,
  MARK_KIND,
  MAX_ERROR_NUMBER,
  paddedBytes,
  RECORD,
  RECORDED_OPS,
  RecordHeader,
  TraceError,
} from './format.ts';
import { MAX_DISKS, MAX_MARKS, MAX_REQUESTS, MAX_TEXT_BYTES } from './limits.ts';
import { IndexBuilder, type TraceIndex } from './trace-index.ts';

const WINDOW_BYTES = 1 * MiB;

/**
 * Reads a trace once from beginning to end and makes its index. Memory: about 80 bytes for each request, and no data.
 *
 * A recorder that is killed leaves a file that ends inside a record; a host that crashes may leave zeroes at its end, for
 * a file system can make a file longer before the data are there. Both end the trace with its last complete record.
 * Anything else that does not fit is damage: TraceError.
 */
export function scanTrace(source: ByteSource, name: string): TraceIndex {
  return new Scan(source, name).run();
}

class Scan {
  readonly #source: ByteSource;
  readonly #name: string;
  readonly #index = new IndexBuilder();
  readonly #header = new RecordHeader();
  readonly #window: Uint8Array;
  #windowAt = 0;
  #windowLength = 0;
  /** Where the record being read begins, and its number. */
  #at = HEADER_BYTES;
  #record = 0;
  #lastTimeNs = 0;
  #fingerprint = 0;
  #ended = false;

  constructor(source: ByteSource, name: string) {
    this.#source = source;
    this.#name = name;
    this.#window = new Uint8Array(Math.min(WINDOW_BYTES, source.sizeBytes));
  }

  run(): TraceIndex {
    const first = new Uint8Array(HEADER_BYTES);
    const why = checkFileHeader(first.subarray(0, this.#source.read(0, first)));
    if (why !== null) throw new TraceError(`${this.#name}: ${why}`, 0);
    while (this.#at < this.#source.sizeBytes && this.#next()) this.#record += 1;
    return this.#index.finish(finishHash(this.#fingerprint), this.#ended);
  }

  /** Reads one record. False: the trace ends before it. */
  #next(): boolean {
    const header = this.#header;
    const bodyAt = this.#at + HEADER_BYTES;
    if (this.#ended) return this.#broken('bytes follow the end of the trace', this.#at + 1);
    if (!this.#fetch(this.#at, header.bytes)) return false;
    const why = header.decode();
    if (why !== null) return this.#broken(why, bodyAt);
    const end = bodyAt + paddedBytes(header.payloadBytes);
    if (end > this.#source.sizeBytes) return false;
    if (this.#crcOf(bodyAt, header.payloadBytes) !== header.payloadCrc) {
      return this.#broken('the data do not match their checksum', end);
    }
    this.#fingerprint = mix(this.#fingerprint, header.headerCrc);
    this.#take(bodyAt);
    this.#at = end;
    return true;
  }

  #take(bodyAt: number): void {
    const header = this.#header;
    const { timeNs, request, offset, length } = header;
    for (const value of [timeNs, request, offset, length]) {
      this.#must(Number.isSafeInteger(value), 'a number is larger than any that is written');
    }
    this.#must(header.reserved === 0, 'unused bytes are in use');
    switch (header.type) {
      case RECORD.DISK:
        this.#disk(bodyAt);
        return;
      case RECORD.ISSUE:
        this.#timeGoesOn();
        this.#issue(bodyAt);
        return;
      case RECORD.COMPLETE:
        this.#timeGoesOn();
        this.#complete();
        return;
      case RECORD.MARK:
        this.#mark(bodyAt);
        return;
      case RECORD.END:
        this.#must(request === this.#index.requestCount, 'it ends with another count of requests');
        this.#ended = true;
        return;
      default:
        this.#must(false, `records of type ${header.type} are unknown`);
    }
  }

  #disk(bodyAt: number): void {
    const { disks } = this.#index;
    const disk = diskOfJson(this.#text(bodyAt));
    if (typeof disk === 'string') {
      this.#must(false, `a disk cannot be: ${disk}`);
      return;
    }
    this.#must(disk.number === disks.length, 'disks are not numbered in order');
    this.#must(disks.length < MAX_DISKS, `there are more than ${MAX_DISKS} disks`);
    disks.push(disk);
  }

  #issue(bodyAt: number): void {
    const header = this.#header;
    const { op, flags, offset, length, payloadBytes } = header;
    const disk = this.#index.disks[header.disk];
    if (disk === undefined) {
      this.#must(false, `there is no disk ${header.disk}`);
      return;
    }
    this.#must(
      header.request === this.#index.requestCount,
      `request ${header.request} is out of order`,
    );
    this.#must(this.#index.requestCount < MAX_REQUESTS, 'there are too many requests');
    this.#must(RECORDED_OPS.includes(op), `operation ${op} is unknown`);
    this.#must(flags <= KNOWN_FLAGS && header.error === 0, 'it has flags that are unknown');
    this.#must(offset + length <= disk.sizeBytes, 'it reaches beyond the end of its disk');
    this.#must(
      offset % disk.blockBytes === 0 && length % disk.blockBytes === 0,
      'it is not made of whole blocks',
    );
    this.#must(payloadBytes === (op === OP.WRITE ? length : 0), 'it has data of another length');
    this.#index.issue(header, header.timeNs, op === OP.WRITE ? bodyAt : -1);
  }

  #complete(): void {
    const { request, error, payloadBytes } = this.#header;
    this.#must(
      request < this.#index.requestCount,
      `request ${request} completes and was never issued`,
    );
    this.#must(!this.#index.isDone(request), `request ${request} completes twice`);
    this.#must(this.#header.disk === this.#index.diskOf(request), 'it is of another disk');
    this.#must(error <= MAX_ERROR_NUMBER && payloadBytes === 0, `error ${error} is unknown`);
    this.#index.complete(request, error !== 0, this.#header.timeNs);
  }

  #mark(bodyAt: number): void {
    const { op, timeNs } = this.#header;
    this.#must(op === MARK_KIND.ack || op === MARK_KIND.note, `marks of kind ${op} are unknown`);
    this.#must(this.#index.markCount < MAX_MARKS, `there are more than ${MAX_MARKS} marks`);
    this.#index.mark(op === MARK_KIND.ack ? 'ack' : 'note', this.#text(bodyAt), timeNs);
  }

  #timeGoesOn(): void {
    this.#must(this.#header.timeNs >= this.#lastTimeNs, 'time goes backwards');
    this.#lastTimeNs = this.#header.timeNs;
  }

  #text(bodyAt: number): string {
    const { payloadBytes } = this.#header;
    this.#must(payloadBytes <= MAX_TEXT_BYTES, `a text has more than ${MAX_TEXT_BYTES} bytes`);
    const bytes = new Uint8Array(payloadBytes);
    this.#source.read(bodyAt, bytes);
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
      this.#must(false, 'a text is not UTF-8');
      return '';
    }
  }

  #must(fits: boolean, why: string): void {
    if (!fits) throw this.#error(why);
  }

  /** A record that is not as it was written. False when zeroes at the end of the file reach into it: no damage. */
  #broken(why: string, end: number): boolean {
    if (end > this.#zeroesFrom()) return false;
    throw this.#error(why);
  }

  #error(why: string): TraceError {
    return new TraceError(
      `${this.#name}: damaged at byte ${this.#at}, record ${this.#record}: ${why}`,
      this.#at,
      this.#record,
    );
  }

  /** From here to the end of the file all bytes are zero. */
  #zeroesFrom(): number {
    let end = this.#source.sizeBytes;
    while (end > this.#at) {
      const start = Math.max(this.#at, end - this.#window.length);
      this.#load(start);
      const last = lastNonZero(this.#window.subarray(0, end - start));
      if (last >= 0) return start + last + 1;
      end = start;
    }
    return end;
  }

  /** Fills `into`; false: the file ends before. */
  #fetch(at: number, into: Uint8Array): boolean {
    if (at + into.length > this.#source.sizeBytes) return false;
    const end = this.#windowAt + this.#windowLength;
    if (at < this.#windowAt || at + into.length > end) this.#load(at);
    if (into.length > this.#windowLength) return false;
    const start = at - this.#windowAt;
    into.set(this.#window.subarray(start, start + into.length));
    return true;
  }

  #crcOf(at: number, length: number): number {
    let crc = 0;
    let done = 0;
    while (done < length) {
      const here = at + done;
      if (here < this.#windowAt || here >= this.#windowAt + this.#windowLength) this.#load(here);
      const start = here - this.#windowAt;
      const take = Math.min(length - done, this.#windowLength - start);
      if (take <= 0) return -1;
      crc = crc32(this.#window.subarray(start, start + take), crc);
      done += take;
    }
    return crc;
  }

  #load(at: number): void {
    this.#windowAt = at;
    this.#windowLength = this.#source.read(at, this.#window);
  }
}

function lastNonZero(bytes: Uint8Array): number {
  let last = bytes.length - 1;
  while (last >= 0 && bytes[last] === 0) last -= 1;
  return last;
}

/** One step of a hash of 32 bits: not against malice, only to tell traces apart. */
function mix(hash: number, value: number): number {
  return Math.imul(((hash << 5) | (hash >>> 27)) ^ value, 0x9e37_79b1) >>> 0;
}

function finishHash(hash: number): string {
  return ((hash ^ (hash >>> 15)) >>> 0).toString(16).padStart(8, '0');
}
