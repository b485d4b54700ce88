import { crc32 } from 'node:zlib';
import { ConfigError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import { FLAG, OP } from '../block/io.ts';
import { MAX_DISK_BYTES } from '../block/limits.ts';
import { FileSource } from './byte-source.ts';
import { FileSink } from './file-sink.ts';
import { TraceError } from './format.ts';
import { MAX_BLOCK_BYTES } from './limits.ts';
import type { TraceBase } from './trace.ts';
import { TraceWriter } from './writer.ts';

// Logs of the kernel's dm-log-writes target, which QEMU's blklogwrites driver and xfstests' replay-log use too
// [Documentation/admin-guide/device-mapper/log-writes.rst, drivers/md/dm-log-writes.c]. All is little-endian and counted in
// sectors of the size that the super names. Each entry is one sector, and its data unless it is a DISCARD.

export const LOG_MAGIC = 0x6a736677736872n;
export const LOG_VERSION = 1n;
/** u64 magic, version and entries; u32 bytes of a sector. */
export const SUPER_BYTES = 28;
/** u64 sector, sectors of data, flags, bytes of the mark's text. */
export const ENTRY_BYTES = 32;

export const LOG_FLAG = {
  /** PREFLUSH: before the data of the same entry. */
  FLUSH: 1,
  FUA: 2,
  DISCARD: 4,
  MARK: 8,
  /** For people: REQ_META. */
  METADATA: 16,
} as const;
const KNOWN_FLAGS = 31;

/** The last mark of a log whose target was removed in order. */
export const END_MARK = 'dm-log-writes-end';

const PIECE_BYTES = 1 * MiB;
const STEP_NS = 1000;

export interface ImportOptions {
  /** Bytes of the disk. Default: up to the end of what the log has written; it does not say. */
  readonly sizeBytes?: number;
  /** What the disk held. Default: zeroes. */
  readonly base?: TraceBase;
  /** Default: the log's path. */
  readonly name?: string;
}

interface Entry {
  /** Bytes, as all here. */
  readonly at: number;
  readonly number: number;
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
  readonly dataAt: number;
  readonly text: string | null;
}

/**
 * Makes a new trace of a log. Entries become requests that are issued and done one after another in the order of the log:
 * it knows no other times. A mark becomes an acknowledgement, for that is what marks are made for. Throws TraceError for a
 * log that is damaged, ConfigError for a disk that it does not fit; no trace is left then.
 */
export function importDmLogWrites(
  logPath: string,
  tracePath: string,
  options: ImportOptions = {},
): void {
  const log = new Log(logPath);
  try {
    const sizeBytes = checkedSize(log, options.sizeBytes);
    const sink = new FileSink(tracePath);
    try {
      new Import(log, sink).run({
        number: 0,
        name: options.name ?? logPath,
        sizeBytes,
        blockBytes: log.sectorBytes,
        base: options.base ?? { kind: 'zeroes' },
        discard: 'undefined',
        flushCovers: 'everyone',
      });
      sink.end();
    } catch (error) {
      sink.abandon();
      throw error;
    }
  } finally {
    log.close();
  }
}

/** Looks at all entries once, before anything is written. */
function checkedSize(log: Log, asked: number | undefined): number {
  let end = 0;
  for (const entry of log.entries()) end = Math.max(end, entry.offset + entry.length);
  const sizeBytes = asked ?? Math.max(end, log.sectorBytes);
  if (sizeBytes >= end && sizeBytes % log.sectorBytes === 0) return sizeBytes;
  throw new ConfigError(
    `${log.path}: the log writes up to byte ${end}, in sectors of ${log.sectorBytes}; its disk cannot have ${sizeBytes}`,
    'give the size of the disk that was logged',
  );
}

class Import {
  readonly #log: Log;
  readonly #sink: FileSink;
  readonly #writer = new TraceWriter();
  readonly #piece = new Uint8Array(PIECE_BYTES);
  #timeNs = 0;

  constructor(log: Log, sink: FileSink) {
    this.#log = log;
    this.#sink = sink;
  }

  run(disk: Parameters<TraceWriter['disk']>[0]): void {
    this.#sink.putAll(this.#writer.begin());
    this.#sink.putAll(this.#writer.disk(disk, 0));
    for (const entry of this.#log.entries()) this.#entry(entry);
    this.#sink.putAll(this.#writer.end(this.#timeNs));
  }

  #entry({ flags, offset, length, dataAt, text }: Entry): void {
    if (text !== null) {
      if (text !== END_MARK) this.#sink.putAll(this.#writer.mark('ack', text, this.#tick()));
      return;
    }
    if ((flags & LOG_FLAG.FLUSH) !== 0) this.#request(OP.FLUSH, 0, 0, 0, -1);
    if (length === 0) return;
    const fua = (flags & LOG_FLAG.FUA) === 0 ? 0 : FLAG.FUA;
    const discards = (flags & LOG_FLAG.DISCARD) !== 0;
    this.#request(discards ? OP.DISCARD : OP.WRITE, fua, offset, length, discards ? -1 : dataAt);
  }

  #request(op: number, flags: number, offset: number, length: number, dataAt: number): void {
    const number = this.#writer.requestCount;
    const request = { op, flags, disk: 0, source: 0, offset, length };
    const dataBytes = dataAt < 0 ? 0 : length;
    let crc = 0;
    this.#eachPiece(dataAt, dataBytes, (piece) => (crc = crc32(piece, crc)));
    const [header, padding] = this.#writer.issueOf(request, this.#tick(), dataBytes, crc);
    this.#sink.put(header);
    this.#eachPiece(dataAt, dataBytes, (piece) => this.#sink.put(piece));
    this.#sink.put(padding);
    this.#sink.putAll(this.#writer.complete(number, 0, null, this.#tick()));
  }

  #eachPiece(at: number, length: number, use: (piece: Uint8Array) => void): void {
    for (let done = 0; done < length;) {
      const piece = this.#piece.subarray(0, Math.min(PIECE_BYTES, length - done));
      this.#log.read(at + done, piece);
      use(piece);
      done += piece.length;
    }
  }

  #tick(): number {
    this.#timeNs += STEP_NS;
    return this.#timeNs;
  }
}

/** A log file, entry by entry. What its super does not count is not there: it may have been half written. */
class Log {
  readonly path: string;
  readonly sectorBytes: number;
  readonly #source: FileSource;
  readonly #entries: number;
  readonly #head: DataView;

  constructor(path: string) {
    this.path = path;
    this.#source = new FileSource(path);
    try {
      const first = new DataView(new ArrayBuffer(SUPER_BYTES));
      const got = this.#source.read(0, new Uint8Array(first.buffer));
      if (got < SUPER_BYTES || first.getBigUint64(0, true) !== LOG_MAGIC) {
        throw new TraceError(`${path}: it is no dm-log-writes log`, 0);
      }
      const version = first.getBigUint64(8, true);
      if (version !== LOG_VERSION) {
        throw new TraceError(`${path}: it has version ${version}; this program reads 1`, 8);
      }
      this.#entries = Number(first.getBigUint64(16, true));
      this.sectorBytes = first.getUint32(24, true);
      const isPower = (this.sectorBytes & (this.sectorBytes - 1)) === 0;
      if (!isPower || this.sectorBytes < 512 || this.sectorBytes > MAX_BLOCK_BYTES) {
        throw new TraceError(`${path}: sectors of ${this.sectorBytes} bytes cannot be`, 24);
      }
    } catch (error) {
      this.#source.close();
      throw error;
    }
    this.#head = new DataView(new ArrayBuffer(this.sectorBytes));
  }

  *entries(): Generator<Entry> {
    let at = this.sectorBytes;
    for (let number = 0; number < this.#entries; number += 1) {
      const entry = this.#entry(at, number);
      yield entry;
      const hasData = (entry.flags & LOG_FLAG.DISCARD) === 0;
      at = entry.dataAt + (hasData ? entry.length : 0);
    }
  }

  /** Fills `into`; `entries` has seen that it is there. */
  read(at: number, into: Uint8Array): void {
    if (this.#source.read(at, into) === into.length) return;
    throw new TraceError(`${this.path}: it has become shorter while it is read`, at);
  }

  close(): void {
    this.#source.close();
  }

  #entry(at: number, number: number): Entry {
    const fail = (why: string): never => {
      throw new TraceError(
        `${this.path}: damaged at byte ${at}, entry ${number}: ${why}`,
        at,
        number,
      );
    };
    const bytes = new Uint8Array(this.#head.buffer);
    if (this.#source.read(at, bytes) < bytes.length) fail('the log ends before it');
    const offset = Number(this.#head.getBigUint64(0, true)) * this.sectorBytes;
    const length = Number(this.#head.getBigUint64(8, true)) * this.sectorBytes;
    const flags = Number(this.#head.getBigUint64(16, true));
    const textBytes = Number(this.#head.getBigUint64(24, true));
    if (flags > KNOWN_FLAGS) fail(`flags ${flags} are unknown`);
    if (offset + length > MAX_DISK_BYTES) fail('it is beyond the end of any disk');
    const dataAt = at + this.sectorBytes;
    const hasData = (flags & LOG_FLAG.DISCARD) === 0;
    if (hasData && length > 0xffff_ffff) fail('it has more than 4 GiB of data');
    if (hasData && dataAt + length > this.#source.sizeBytes) fail('the log ends inside its data');
    if ((flags & LOG_FLAG.MARK) === 0)
      return { at, number, offset, length, flags, dataAt, text: null };
    if (length !== 0 || textBytes > this.sectorBytes - ENTRY_BYTES)
      fail('a mark cannot be so long');
    const text = new TextDecoder().decode(bytes.subarray(ENTRY_BYTES, ENTRY_BYTES + textBytes));
    return { at, number, offset, length, flags, dataAt, text };
  }
}
