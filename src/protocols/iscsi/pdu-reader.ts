import { Segments, type Region } from '../../block/memory.ts';
import type { Inbox } from '../../reactor/inbox.ts';
import type { Page } from '../../reactor/page-pool.ts';
import { crc32c, crc32cOfSegments, readDigest } from './crc32c.ts';
import { MAX_HEADER_BYTES } from './limits.ts';
import type { SessionParameters } from './parameters.ts';
import { ahsBytes, BHS_BYTES, dataSegmentLength, DIGEST_BYTES, padded } from './wire.ts';

/** Who understands PDUs: begin, its data in pieces, end. */
export interface PduHost {
  /** A header with its additional segments. False: not now; it is asked again. After true, the data must be taken. */
  pduBegins(view: DataView, at: number, ahsBytes: number): boolean;
  /** A part of the data, where it arrived; `left`: bytes of the segment that are still to come, with these. */
  pduData(region: Region, page: Page | null, start: number, length: number, left: number): void;
  pduEnds(): void;
  /** Its data is not what was sent [RFC 7143 7.8]: it has been dropped. */
  pduDamaged(view: DataView, at: number, ahsBytes: number): void;
  /** The connection cannot go on. */
  over(reason: string | null): void;
}

/** What `advance` lacks: bytes from the initiator, room (memory, or something must end first), or nothing ever. */
export type Lack = 'bytes' | 'room' | 'nothing';

/**
 * Finds the PDUs in what has arrived. Data is given on where it lies, as it comes; with data digests only when all
 * of a PDU is there and is what was sent, so that nothing else can get further.
 */
export class PduReader {
  readonly #inbox: Inbox;
  readonly #host: PduHost;
  readonly #headerDigest: boolean;
  readonly #dataDigest: boolean;
  readonly #most: number;
  #over = false;
  #inData = false;
  /** Bytes of the segment, of the padding and of the digest that are to come. */
  #left = 0;
  #trailer = 0;
  // With data digests: header and data of the PDU that is arriving.
  readonly #header: DataView = new DataView(new ArrayBuffer(MAX_HEADER_BYTES));
  #ahsBytes = 0;
  readonly #gathered: Segments = new Segments();
  readonly #pages: Page[] = [];
  #gathering = false;

  constructor(inbox: Inbox, host: PduHost, parameters: SessionParameters) {
    this.#inbox = inbox;
    this.#host = host;
    this.#headerDigest = parameters.headerDigest;
    this.#dataDigest = parameters.dataDigest;
    this.#most = parameters.receiveSegmentBytes;
  }

  /** Understands all it can of what has arrived. */
  advance(): Lack {
    for (;;) {
      if (this.#over) return 'nothing';
      if (this.#inData) {
        const lack = this.#gathering ? this.#gather() : this.#pass();
        if (lack !== null) return lack;
      } else {
        const lack = this.#begin();
        if (lack !== null) return lack;
      }
    }
  }

  /** Understands nothing more. */
  stop(): void {
    this.#over = true;
  }

  /** The connection is gone: gives back the memory of data that will not arrive. */
  dispose(): void {
    this.#over = true;
    this.#dropGathered();
  }

  #fail(reason: string): Lack {
    this.#over = true;
    this.#host.over(reason);
    return 'nothing';
  }

  #begin(): Lack | null {
    const inbox = this.#inbox;
    const there = inbox.end - inbox.start;
    if (there < BHS_BYTES) return 'bytes';
    const { view } = (inbox.page as Page).region;
    const at = inbox.start;
    const ahs = ahsBytes(view, at);
    const bare = BHS_BYTES + ahs;
    const whole = bare + (this.#headerDigest ? DIGEST_BYTES : 0);
    if (there < whole) return 'bytes';
    // [RFC 7143 7.8] A header that cannot be trusted says nothing about where the next one is.
    if (this.#headerDigest && crc32c(view, at, bare) !== readDigest(view, at + bare)) {
      return this.#fail('a header digest is wrong');
    }
    const length = dataSegmentLength(view, at);
    if (length > this.#most) {
      return this.#fail(`a PDU with ${length} bytes of data, over MaxRecvDataSegmentLength`);
    }
    this.#left = length;
    this.#trailer = padded(length) - length;
    if (this.#dataDigest && length > 0) {
      this.#trailer += DIGEST_BYTES;
      for (let i = 0; i < bare; i += 4) this.#header.setUint32(i, view.getUint32(at + i));
      this.#ahsBytes = ahs;
      this.#gathering = true;
    } else if (!this.#host.pduBegins(view, at, ahs)) {
      return 'room';
    }
    inbox.start += whole;
    this.#inData = true;
    return null;
  }

  /** Gives data on as it comes. */
  #pass(): Lack | null {
    const inbox = this.#inbox;
    while (this.#left > 0) {
      const length = Math.min(inbox.end - inbox.start, this.#left);
      if (length === 0) return 'bytes';
      const page = inbox.page as Page;
      this.#host.pduData(page.region, page, inbox.start, length, this.#left);
      inbox.start += length;
      this.#left -= length;
    }
    if (inbox.end - inbox.start < this.#trailer) return 'bytes';
    inbox.start += this.#trailer;
    this.#inData = false;
    this.#host.pduEnds();
    return null;
  }

  /** Keeps data until all of a PDU is there. */
  #gather(): Lack | null {
    const inbox = this.#inbox;
    while (this.#left > 0) {
      const length = Math.min(inbox.end - inbox.start, this.#left);
      if (length === 0) return 'bytes';
      const page = inbox.page as Page;
      page.hold();
      this.#pages.push(page);
      this.#gathered.push(page.region, inbox.start, length);
      inbox.start += length;
      this.#left -= length;
    }
    if (inbox.end - inbox.start < this.#trailer) return 'bytes';
    if (!this.#sound()) {
      inbox.start += this.#trailer;
      this.#endGathering();
      this.#host.pduDamaged(this.#header, 0, this.#ahsBytes);
      return null;
    }
    if (!this.#host.pduBegins(this.#header, 0, this.#ahsBytes)) return 'room';
    inbox.start += this.#trailer;
    this.#giveGathered();
    this.#endGathering();
    this.#host.pduEnds();
    return null;
  }

  /** [RFC 7143 11.2.3] The digest covers data and padding. */
  #sound(): boolean {
    const { view } = (this.#inbox.page as Page).region;
    const at = this.#inbox.start;
    const padding = this.#trailer - DIGEST_BYTES;
    const data = crc32cOfSegments(this.#gathered, 0, this.#gathered.totalBytes);
    return crc32c(view, at, padding, data) === readDigest(view, at + padding);
  }

  #giveGathered(): void {
    const { count, regions, starts, lengths, totalBytes } = this.#gathered;
    let left = totalBytes;
    for (let i = 0; i < count; i += 1) {
      const region = regions[i] as Region;
      const length = lengths[i] as number;
      const page = this.#pages.find((held) => held.region === region) as Page;
      this.#host.pduData(region, page, starts[i] as number, length, left);
      left -= length;
    }
  }

  #endGathering(): void {
    this.#inData = false;
    this.#gathering = false;
    this.#dropGathered();
  }

  #dropGathered(): void {
    for (const page of this.#pages) page.release();
    this.#pages.length = 0;
    this.#gathered.clear();
  }
}
