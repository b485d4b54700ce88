import { assert } from '../../base/assert.ts';
import type { DeviceInfo } from '../../block/device.ts';
import { type Io, type IoOwner, OP } from '../../block/io.ts';
import type { Outbox } from '../../reactor/outbox.ts';
import type { Page, PagePool } from '../../reactor/page-pool.ts';
import { type CommandRecord, type Piece, Pieces } from './command-record.ts';
import type { SessionParameters } from './parameters.ts';
import { type PduSender, STAT_SN } from './pdu-sender.ts';
import { MAX_PDUS_IN_PIECE, PIECE_BYTES, PIECES_IN_FLIGHT } from './session-limits.ts';
import { DATA_IN_FLAG, FLAG_FINAL, writeDataIn } from './wire.ts';

/** Who is told of the commands whose data has been read. */
export interface DataInHost {
  /** Nothing of it is with the disk any more: all is read, or it has failed or been stopped. */
  moved(record: CommandRecord): void;
  progress(): void;
}

/**
 * The least a pool's page must hold besides a piece: headers and digests of its PDUs, and a block that is read too
 * far.
 */
const OVERHEAD_BYTES = 64;

/**
 * The data of READ commands: pieces are read from the disk into the outbox, where they will be sent from, several
 * at a time, and said in order [RFC 7143 13.18 DataPDUInOrder, 13.19 DataSequenceInOrder]. Each piece is one Data-
 * In PDU, or several where the initiator takes only short ones; the gaps for their headers are left free by the
 * read.
 */
export class DataIn implements IoOwner {
  readonly #host: DataInHost;
  readonly #sender: PduSender;
  readonly #outbox: Outbox;
  readonly #pool: PagePool;
  readonly #limits: Pick<SessionParameters, 'sendSegmentBytes'>;
  readonly #burstBytes: number;
  readonly #pieces = new Pieces();
  /** Commands whose next piece found no room, in order. */
  readonly #starved: CommandRecord[] = [];
  /** Room taken for data that is being read. */
  #readingBytes = 0;
  #gone = false;

  /** `limits`: its value may change between two reads [RFC 7143 13.12]; `burstBytes`: MaxBurstLength. */
  constructor(
    host: DataInHost,
    sender: PduSender,
    outbox: Outbox,
    pool: PagePool,
    limits: Pick<SessionParameters, 'sendSegmentBytes'>,
    burstBytes: number,
  ) {
    this.#host = host;
    this.#sender = sender;
    this.#outbox = outbox;
    this.#pool = pool;
    this.#limits = limits;
    this.#burstBytes = burstBytes;
  }

  /** The SCSI target says that the command may run. */
  begin(record: CommandRecord): void {
    const { task } = record;
    record.inPresented = task.transferBytes;
    record.toSend = Math.min(task.transferBytes, record.inExpected);
    this.#go(record);
  }

  /** Goes on with those that lacked room. False: there still is none. */
  advance(): boolean {
    for (;;) {
      const record = this.#starved[0];
      if (record === undefined) return true;
      if (!this.#mayRead(this.#nextBytes(record))) return false;
      this.#starved.shift();
      record.starved = false;
      const before = record.issued;
      this.#go(record);
      if (record.starved && record.issued === before) return false;
    }
  }

  /** The command is being aborted, or there is nobody to answer: what is with the disk ends, nothing more is begun. */
  stop(record: CommandRecord): void {
    if (record.starved) {
      record.starved = false;
      this.#starved.splice(this.#starved.indexOf(record), 1);
    }
    if (!record.busy && record.pending === 0) this.#host.moved(record);
  }

  /** The connection is gone: nothing more is said. */
  dispose(): void {
    this.#gone = true;
  }

  /**
   * Says what is left of a command, its last piece. `flags`, `residual`: with DATA_IN_FLAG.STATUS the status GOOD goes
   * with it.
   */
  sayLast(record: CommandRecord, flags: number, residual: number): void {
    const piece = record.pieces.shift();
    assert(
      piece !== undefined && record.pieces.length === 0,
      'the last piece is the only one left',
    );
    this.#say(piece, flags, residual);
    this.#pieces.give(piece);
  }

  /** Gives back the memory of what will not be said. */
  drop(record: CommandRecord): void {
    for (;;) {
      const piece = record.pieces.shift();
      if (piece === undefined) return;
      this.#pieces.give(piece);
    }
  }

  ioDone(io: Io): void {
    const piece = io.context as Piece;
    const { record } = piece;
    this.#readingBytes -= piece.pduBytes;
    piece.done = true;
    record.pending -= 1;
    if (io.error !== null && (record.failed === null || io.offset < record.failedAt)) {
      record.failed = io.error;
      record.failedAt = io.offset;
    }
    this.#go(record);
    this.#host.progress();
  }

  /** Says and begins as many pieces as it can. A loop with a guard: a device may complete inside `submit`. */
  #go(record: CommandRecord): void {
    if (record.busy) return;
    record.busy = true;
    for (;;) {
      this.#sayDone(record);
      if (record.issued === record.toSend || this.#stopped(record) || record.starved) break;
      if (record.pieces.length >= PIECES_IN_FLIGHT) break;
      if (!this.#issue(record)) {
        record.starved = true;
        this.#starved.push(record);
        break;
      }
    }
    record.busy = false;
    if (record.pending > 0 || record.starved) return;
    if (record.issued === record.toSend || this.#stopped(record)) this.#host.moved(record);
  }

  #stopped(record: CommandRecord): boolean {
    return record.failed !== null || record.task.aborted || this.#gone;
  }

  #mayRead(bytes: number): boolean {
    const busy = this.#readingBytes + this.#outbox.heldBytes;
    return busy === 0 || busy + bytes <= this.#pool.shareBytes;
  }

  #nextBytes(record: CommandRecord): number {
    const info = record.task.session.info;
    return Math.min(record.toSend - record.issued, this.#pieceBytes(info));
  }

  /** A piece with all its headers fits into a page, also where its data has to be aligned (O_DIRECT). */
  #pieceBytes(info: DeviceInfo): number {
    const { blockBytes, memoryAlignment, maxTransferBytes } = info;
    const { sendSegmentBytes } = this.#limits;
    const unit = Math.max(blockBytes, memoryAlignment);
    const shortest = Math.min(sendSegmentBytes, this.#burstBytes);
    const most = Math.min(PIECE_BYTES, maxTransferBytes, shortest * MAX_PDUS_IN_PIECE);
    const pdus = Math.ceil(most / sendSegmentBytes) + Math.ceil(most / this.#burstBytes) + 1;
    const room = this.#pool.pageBytes - pdus * OVERHEAD_BYTES - unit - memoryAlignment;
    return Math.max(blockBytes, Math.floor(Math.min(most, room) / unit) * unit);
  }

  /** Begins to read the next piece. False: there is no room. */
  #issue(record: CommandRecord): boolean {
    const { task } = record;
    const { info } = task.session;
    const dataBytes = this.#nextBytes(record);
    if (!this.#mayRead(dataBytes)) return false;
    // What is sent may end inside a block; what is read cannot.
    const readBytes = Math.ceil(dataBytes / info.blockBytes) * info.blockBytes;
    const { sendSegmentBytes } = this.#limits;
    const pduBytes = this.#layout(null, record.issued, dataBytes, sendSegmentBytes);
    const { headBytes } = this.#sender;
    const beyond = readBytes - dataBytes;
    const start = this.#outbox.reserve(pduBytes + beyond, headBytes, info.memoryAlignment);
    if (start < 0) return false;
    const { page } = this.#outbox;
    const piece = this.#pieces.take();
    piece.record = record;
    piece.start = start;
    piece.pduBytes = pduBytes;
    piece.segmentBytes = sendSegmentBytes;
    piece.dataOffset = record.issued;
    piece.dataBytes = dataBytes;
    piece.done = false;
    piece.hold(page);
    piece.io.reset(OP.READ, task.offset + record.issued, readBytes, 0);
    this.#layout(piece, record.issued, dataBytes, sendSegmentBytes);
    const { segments } = piece.io;
    if (beyond > 0) segments.push(page.region, segments.end(segments.count - 1), beyond);
    record.issued += dataBytes;
    record.pieces.push(piece);
    record.pending += 1;
    this.#readingBytes += pduBytes;
    piece.io.push(this);
    task.session.submit(piece.io);
    return true;
  }

  /** The length on the wire of the PDUs for a stretch of data; the places of the data in them become the segments. */
  #layout(
    piece: Piece | null,
    dataOffset: number,
    dataBytes: number,
    segmentBytes: number,
  ): number {
    let bytes = 0;
    for (let done = 0; done < dataBytes;) {
      const length = this.#pduData(dataOffset + done, dataBytes - done, segmentBytes);
      if (piece !== null) {
        const { region } = piece.pages[0] as Page;
        piece.io.segments.push(region, piece.start + bytes + this.#sender.headBytes, length);
      }
      bytes += this.#sender.wireBytes(length);
      done += length;
    }
    return bytes;
  }

  /** How much data the PDU at this offset carries: no sequence is longer than MaxBurstLength [RFC 7143 13.13]. */
  #pduData(offset: number, left: number, segmentBytes: number): number {
    return Math.min(segmentBytes, this.#burstBytes - (offset % this.#burstBytes), left);
  }

  /** Says in order what has been read, but the end of the command: its status may go with it. */
  #sayDone(record: CommandRecord): void {
    for (;;) {
      const piece = record.pieces[0];
      if (piece === undefined || !piece.done || piece.io.error !== null) return;
      if (this.#gone || record.task.aborted) return;
      if (piece.dataOffset + piece.dataBytes === record.toSend) return;
      record.pieces.shift();
      this.#say(piece, 0, 0);
      this.#pieces.give(piece);
    }
  }

  #say(piece: Piece, lastFlags: number, residual: number): void {
    const { record, start, dataOffset, dataBytes, segmentBytes } = piece;
    const page = piece.pages[0] as Page;
    const { view } = page.region;
    const status = (lastFlags & DATA_IN_FLAG.STATUS) !== 0;
    let at = start;
    for (let done = 0; done < dataBytes;) {
      const offset = dataOffset + done;
      const length = this.#pduData(offset, dataBytes - done, segmentBytes);
      done += length;
      const end = dataOffset + done;
      const last = end === record.toSend;
      // [RFC 7143 11.7.1] F: the last PDU of a sequence.
      const final = last || end % this.#burstBytes === 0 ? FLAG_FINAL : 0;
      const flags = last ? final | lastFlags : final;
      const { itt, dataSn } = record;
      writeDataIn(view, at, itt, flags, 0, dataSn, offset, last ? residual : 0, length);
      record.dataSn += 1;
      at += this.#sender.seal(view, at, length, last && status ? STAT_SN.OWN : STAT_SN.NONE);
    }
    record.said += dataBytes;
    this.#outbox.say(page, start, at - start);
  }
}
