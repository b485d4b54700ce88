import { MAX_PARKED_BYTES } from './session-limits.ts';
import { serialLess } from './wire.ts';

/** One PDU, kept whole. */
export interface KeptPdu {
  /** Its header with its additional segments. */
  readonly header: DataView;
  readonly data: Uint8Array;
  have: number;
}

/**
 * A request that came before an earlier one, with the Data-Out that followed it; or a number that is to be passed
 * over.
 */
export interface ParkedRequest {
  readonly cmdSn: number;
  readonly itt: number;
  /** -1: it is for none. */
  readonly lun: number;
  readonly pdus: KeptPdu[];
  /** It counts as received and is not done. */
  skipped: boolean;
}

/**
 * Requests inside the CmdSN window whose turn has not come [RFC 7143 4.2.2.1]. On one connection they come in
 * order; there is a gap only after a reject, until the initiator fills it, and where a command is aborted that was
 * never sent.
 */
export class ParkedRequests {
  #requests: ParkedRequest[] = [];
  #bytes = 0;

  get any(): boolean {
    return this.#requests.length > 0;
  }

  has(cmdSn: number): boolean {
    return this.#requests.some((request) => request.cmdSn === cmdSn);
  }

  find(itt: number): ParkedRequest | null {
    return this.#requests.find((request) => request.itt === itt && !request.skipped) ?? null;
  }

  /** Null: there are too many already. */
  add(cmdSn: number, itt: number, lun: number): ParkedRequest {
    const request = { cmdSn, itt, lun, pdus: [], skipped: false };
    this.#requests.push(request);
    return request;
  }

  /** Memory for one more PDU of a request, its header copied; null where that is too much. */
  keep(request: ParkedRequest, header: DataView, dataBytes: number): KeptPdu | null {
    const bytes = header.byteLength + dataBytes;
    if (this.#bytes + bytes > MAX_PARKED_BYTES) return null;
    this.#bytes += bytes;
    const pdu = { header, data: new Uint8Array(dataBytes), have: 0 };
    request.pdus.push(pdu);
    return pdu;
  }

  skip(request: ParkedRequest): void {
    request.skipped = true;
    this.#forget(request);
  }

  /** Those before `before`, for a LUN (null: for all). */
  skipAll(before: number, lun: number | null): void {
    for (const request of this.#requests) {
      if (request.lun < 0 || !serialLess(request.cmdSn, before)) continue;
      if (lun === null || request.lun === lun) this.skip(request);
    }
  }

  /** The one whose turn it is now, taken out. */
  take(cmdSn: number): ParkedRequest | null {
    const at = this.#requests.findIndex((request) => request.cmdSn === cmdSn);
    if (at < 0) return null;
    const [request] = this.#requests.splice(at, 1) as [ParkedRequest];
    for (const pdu of request.pdus) this.#bytes -= pdu.header.byteLength + pdu.data.length;
    return request;
  }

  #forget(request: ParkedRequest): void {
    for (const pdu of request.pdus) this.#bytes -= pdu.header.byteLength + pdu.data.length;
    request.pdus.length = 0;
  }
}
