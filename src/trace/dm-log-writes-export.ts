import { ConfigError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import { FLAG, OP } from '../block/io.ts';
import {
  END_MARK,
  ENTRY_BYTES,
  LOG_FLAG,
  LOG_MAGIC,
  LOG_VERSION,
  SUPER_BYTES,
} from './dm-log-writes.ts';
import { FileSink } from './file-sink.ts';
import { NEVER, type Mark, type Trace, type TraceDisk } from './trace.ts';

const PIECE_BYTES = 1 * MiB;

export interface ExportOptions {
  /** Which disk. Default 0. */
  readonly disk?: number;
  /** Bytes of a sector. Default: a block of the disk, at least 512. */
  readonly sectorBytes?: number;
}

/**
 * Writes one disk of a trace as a new log of dm-log-writes, in the order in which that target does: what has completed
 * is held back until a FLUSH that was issued afterwards is done, FUA is logged as it completes, marks (acknowledgements only)
 * as they are made; what no FLUSH covers comes at the end. A FLUSH of a range lets go what lies in it as a whole. Zeroes are
 * written as data. What a log cannot say is lost: times of issue, requests without an end, what else could have survived.
 * Throws ConfigError for requests that do not fit into sectors; no log is left then.
 */
export function exportDmLogWrites(
  trace: Trace,
  logPath: string,
  { disk = 0, sectorBytes }: ExportOptions = {},
): void {
  const described = trace.disks[disk];
  if (described === undefined) {
    throw new ConfigError(`${trace.path} has no disk ${disk}`, 'disks are numbered from 0');
  }
  const sink = new FileSink(logPath);
  try {
    const sector = sectorBytes ?? Math.max(512, described.blockBytes);
    new Export(trace, described, sink, sector).run();
  } catch (error) {
    sink.abandon();
    throw error;
  }
}

class Export {
  readonly #trace: Trace;
  readonly #disk: TraceDisk;
  readonly #sink: FileSink;
  readonly #sectorBytes: number;
  readonly #piece = new Uint8Array(PIECE_BYTES);
  /** Completed, and covered by no FLUSH that is done: in the order of completion. */
  #unflushed: number[] = [];
  #entries = 0;

  constructor(trace: Trace, disk: TraceDisk, sink: FileSink, sectorBytes: number) {
    this.#trace = trace;
    this.#disk = disk;
    this.#sink = sink;
    this.#sectorBytes = sectorBytes;
  }

  run(): void {
    this.#sink.put(this.#super());
    for (const happened of this.#events()) {
      if (typeof happened === 'number') this.#done(happened);
      else if (happened !== null) this.#mark(happened.text);
    }
    for (const request of this.#unflushed) this.#put(request);
    this.#mark(END_MARK);
    this.#sink.end(this.#super());
  }

  /** By event: an acknowledgement; the request that is done; null: neither of this disk. */
  #events(): (Mark | number | null)[] {
    const { requests, marks, events } = this.#trace;
    const happened: (Mark | number | null)[] = Array.from({ length: events }, () => null);
    for (const mark of marks) if (mark.kind === 'ack') happened[mark.event] = mark;
    for (let i = 0; i < requests.count; i += 1) {
      const done = requests.done[i] as number;
      if (requests.disk[i] === this.#disk.number && done !== NEVER) happened[done] = i;
    }
    return happened;
  }

  #done(request: number): void {
    const { op, flags, failed } = this.#trace.requests;
    if (failed[request] === 1 || op[request] === OP.READ) return;
    if (op[request] === OP.FLUSH) {
      this.#letGo((other) => this.#covers(request, other));
      this.#entry(0, 0, LOG_FLAG.FLUSH);
      return;
    }
    this.#unflushed.push(request);
    if (((flags[request] as number) & FLAG.FUA) !== 0) this.#letGo((other) => other === request);
  }

  /**
   * Puts these into the log, and before them whatever older change of the same place still waits: replayed later, it would
   * undo them. (The kernel's target does not look at places.)
   */
  #letGo(isChosen: (request: number) => boolean): void {
    const going: number[] = [];
    const staying: number[] = [];
    for (const request of this.#unflushed.toReversed()) {
      const goes = isChosen(request) || going.some((newer) => this.#overlap(request, newer));
      (goes ? going : staying).push(request);
    }
    this.#unflushed = staying.toReversed();
    for (const request of going.toReversed()) this.#put(request);
  }

  #overlap(a: number, b: number): boolean {
    const { offset, length } = this.#trace.requests;
    const start = Math.max(offset[a] as number, offset[b] as number);
    const endOfA = (offset[a] as number) + (length[a] as number);
    return start < Math.min(endOfA, (offset[b] as number) + (length[b] as number));
  }

  /** Whether a FLUSH makes all of an earlier change stable: it was issued afterwards, and nothing lies outside its range. */
  #covers(flush: number, other: number): boolean {
    const { issued, done, offset, length } = this.#trace.requests;
    if ((done[other] as number) > (issued[flush] as number)) return false;
    const start = offset[flush] as number;
    const bytes = length[flush] as number;
    const first = offset[other] as number;
    const isInside = first >= start && first + (length[other] as number) <= start + bytes;
    return bytes === 0 || isInside;
  }

  #put(request: number): void {
    const { requests } = this.#trace;
    const offset = requests.offset[request] as number;
    const length = requests.length[request] as number;
    const fua = ((requests.flags[request] as number) & FLAG.FUA) === 0 ? 0 : LOG_FLAG.FUA;
    if (offset % this.#sectorBytes !== 0 || length % this.#sectorBytes !== 0) {
      throw new ConfigError(
        `request ${request} of ${this.#trace.path} has ${length} bytes at ${offset}: no whole sectors of ` +
          `${this.#sectorBytes} bytes`,
        'a log of dm-log-writes cannot say that; choose smaller sectors if they are larger than 512',
      );
    }
    if (length === 0) return;
    if (requests.op[request] === OP.DISCARD) {
      this.#entry(offset, length, LOG_FLAG.DISCARD | fua);
      return;
    }
    this.#entry(offset, length, fua);
    const dataAt = requests.dataAt[request] as number;
    for (let done = 0; done < length;) {
      const piece = this.#piece.subarray(0, Math.min(PIECE_BYTES, length - done));
      if (dataAt < 0) piece.fill(0);
      else this.#trace.readData(dataAt + done, piece);
      this.#sink.put(piece);
      done += piece.length;
    }
  }

  #mark(text: string): void {
    const bytes = Buffer.from(text);
    const most = this.#sectorBytes - ENTRY_BYTES;
    if (bytes.length > most) {
      throw new ConfigError(
        `${this.#trace.path}: an acknowledgement of ${bytes.length} bytes does not fit into one sector`,
        `a log of dm-log-writes holds ${most} bytes of it; choose larger sectors`,
      );
    }
    this.#entry(0, 0, LOG_FLAG.MARK, bytes);
  }

  #entry(offset: number, length: number, flags: number, text?: Uint8Array): void {
    const sector = new Uint8Array(this.#sectorBytes);
    const view = new DataView(sector.buffer);
    view.setBigUint64(0, BigInt(offset / this.#sectorBytes), true);
    view.setBigUint64(8, BigInt(length / this.#sectorBytes), true);
    view.setBigUint64(16, BigInt(flags), true);
    view.setBigUint64(24, BigInt(text?.length ?? 0), true);
    if (text !== undefined) sector.set(text, ENTRY_BYTES);
    this.#sink.put(sector);
    this.#entries += 1;
  }

  #super(): Uint8Array {
    const sector = new Uint8Array(this.#sectorBytes);
    const view = new DataView(sector.buffer, 0, SUPER_BYTES);
    view.setBigUint64(0, LOG_MAGIC, true);
    view.setBigUint64(8, LOG_VERSION, true);
    view.setBigUint64(16, BigInt(this.#entries), true);
    view.setUint32(24, this.#sectorBytes, true);
    return sector;
  }
}
