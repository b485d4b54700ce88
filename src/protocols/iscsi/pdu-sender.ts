import type { Outbox } from '../../reactor/outbox.ts';
import type { Page } from '../../reactor/page-pool.ts';
import { crc32c, writeDigest } from './crc32c.ts';
import type { SessionParameters } from './parameters.ts';
import { BHS_BYTES, DIGEST_BYTES, padded, serialAdd, writeSequence } from './wire.ts';

/** What a target PDU says of a session's numbering [RFC 7143 4.2.2]. */
export interface Counters {
  statSn: number;
  readonly expCmdSn: number;
  readonly maxCmdSn: number;
}

/** What goes into a PDU's StatSN field. */
export const STAT_SN = {
  /** It has none: Data-In without status. */
  NONE: 0,
  /** The next one, which is not used up: R2T, a ping. */
  NEXT: 1,
  /** One of its own. */
  OWN: 2,
} as const;
export type StatSn = (typeof STAT_SN)[keyof typeof STAT_SN];

interface Late {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly dataBytes: number;
  readonly statSn: StatSn;
}

/**
 * Lays the target's PDUs into the outbox: numbering, padding, digests. A PDU for which there is no memory waits in
 * memory of its own, and what is laid with `open` after it waits too; there are no more of them than requests are
 * taken, and while one waits none is (`late`).
 */
export class PduSender {
  readonly #outbox: Outbox;
  readonly #counters: Counters;
  readonly #headerDigest: boolean;
  readonly #dataDigest: boolean;
  /** Bytes of a PDU before its data. */
  readonly headBytes: number;
  readonly #late: Late[] = [];
  /** Where the PDU between `open` and `close` lies. */
  view!: DataView;
  bytes!: Uint8Array;
  at = 0;
  #page: Page | null = null;
  #dataBytes = 0;
  /** MaxCmdSN as the initiator knows it. */
  toldMaxCmdSn = 0;

  constructor(
    outbox: Outbox,
    counters: Counters,
    digests: Pick<SessionParameters, 'headerDigest' | 'dataDigest'>,
  ) {
    this.#outbox = outbox;
    this.#counters = counters;
    this.#headerDigest = digests.headerDigest;
    this.#dataDigest = digests.dataDigest;
    this.headBytes = BHS_BYTES + (digests.headerDigest ? DIGEST_BYTES : 0);
    this.toldMaxCmdSn = counters.maxCmdSn;
  }

  /** PDUs wait for memory: see `flush`. */
  get late(): boolean {
    return this.#late.length > 0;
  }

  /** The length on the wire of a PDU with so much data. */
  wireBytes(dataBytes: number): number {
    const digest = this.#dataDigest && dataBytes > 0 ? DIGEST_BYTES : 0;
    return this.headBytes + padded(dataBytes) + digest;
  }

  /** Where the data of the PDU lies. */
  get dataAt(): number {
    return this.at + this.headBytes;
  }

  /** Begins a PDU: header and data are written at `at` and `dataAt` of `view`, then comes `close`. */
  open(dataBytes: number): void {
    const length = this.wireBytes(dataBytes);
    const start = this.#late.length === 0 ? this.#outbox.reserve(length) : -1;
    this.#dataBytes = dataBytes;
    if (start >= 0) {
      this.#page = this.#outbox.page;
      this.view = this.#page.region.view;
      this.bytes = this.#page.region.bytes;
      this.at = start;
    } else {
      this.#page = null;
      this.bytes = new Uint8Array(length);
      this.view = new DataView(this.bytes.buffer);
      this.at = 0;
    }
  }

  close(statSn: StatSn): void {
    const { view, bytes, at } = this;
    const dataBytes = this.#dataBytes;
    if (this.#page === null) {
      this.#late.push({ bytes, view, dataBytes, statSn });
      return;
    }
    this.seal(view, at, dataBytes, statSn);
    this.#outbox.say(this.#page, at, this.wireBytes(dataBytes));
  }

  /** Finishes a PDU that lies where it is said from: counters, padding, digests. Returns its length on the wire. */
  seal(view: DataView, at: number, dataBytes: number, statSn: StatSn): number {
    const counters = this.#counters;
    const { expCmdSn, maxCmdSn } = counters;
    writeSequence(view, at, statSn === STAT_SN.NONE ? 0 : counters.statSn, expCmdSn, maxCmdSn);
    if (statSn === STAT_SN.OWN) counters.statSn = serialAdd(counters.statSn, 1);
    this.toldMaxCmdSn = maxCmdSn;
    if (this.#headerDigest) writeDigest(view, at + BHS_BYTES, crc32c(view, at, BHS_BYTES));
    if (dataBytes === 0) return this.headBytes;
    const data = at + this.headBytes;
    const length = padded(dataBytes);
    // Never what happened to lie there.
    for (let i = dataBytes; i < length; i += 1) view.setUint8(data + i, 0);
    if (this.#dataDigest) writeDigest(view, data + length, crc32c(view, data, length));
    return this.wireBytes(dataBytes);
  }

  /** Says what waits for memory. False: there still is none. */
  flush(): boolean {
    for (;;) {
      const late = this.#late[0];
      if (late === undefined) return true;
      const start = this.#outbox.reserve(late.bytes.length);
      if (start < 0) return false;
      this.#late.shift();
      const { page } = this.#outbox;
      this.seal(late.view, 0, late.dataBytes, late.statSn);
      page.region.bytes.set(late.bytes, start);
      this.#outbox.say(page, start, late.bytes.length);
    }
  }

  /** The connection is gone. */
  drop(): void {
    this.#late.length = 0;
  }
}
