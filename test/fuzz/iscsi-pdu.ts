import { Buffer } from 'node:buffer';
import { crc32c, readDigest, writeDigest } from '../../src/protocols/iscsi/crc32c.ts';
import { BHS_BYTES, DIGEST_BYTES, padded } from '../../src/protocols/iscsi/wire.ts';
import { fail } from './target.ts';

// PDUs as bytes, both ways: what goes out may be wrong in any way, what comes in must not.

export interface Digests {
  header: boolean;
  data: boolean;
}

/** What is to be wrong with a PDU. */
export interface Damage {
  readonly headerDigest?: boolean;
  readonly dataDigest?: boolean;
}

/** The bytes of a PDU; its lengths are put into the header. */
export function sealed(
  header: Buffer,
  ahs: Buffer,
  data: Buffer,
  digests: Digests,
  damage: Damage,
): Buffer {
  header[4] = ahs.length / 4;
  header.writeUIntBE(data.length, 5, 3);
  const bare = BHS_BYTES + ahs.length;
  const headBytes = bare + (digests.header ? DIGEST_BYTES : 0);
  const withDigest = digests.data && data.length > 0;
  const length = headBytes + padded(data.length) + (withDigest ? DIGEST_BYTES : 0);
  const bytes = Buffer.alloc(length);
  header.copy(bytes);
  ahs.copy(bytes, BHS_BYTES);
  data.copy(bytes, headBytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  if (digests.header) {
    writeDigest(view, bare, crc32c(view, 0, bare) ^ (damage.headerDigest === true ? 1 : 0));
  }
  if (withDigest) {
    const crc = crc32c(view, headBytes, padded(data.length));
    writeDigest(view, length - DIGEST_BYTES, crc ^ (damage.dataDigest === true ? 1 : 0));
  }
  return bytes;
}

export interface HeardPdu {
  readonly header: Buffer;
  readonly data: Buffer;
}

const POISON = Buffer.alloc(4, 0xa5);

/** Takes the target's bytes apart. */
export class PduParser {
  readonly #digests: Digests;
  readonly #heard: (pdu: HeardPdu) => void;
  #rest: Buffer = Buffer.alloc(0);

  constructor(digests: Digests, heard: (pdu: HeardPdu) => void) {
    this.#digests = digests;
    this.#heard = heard;
  }

  push(bytes: Uint8Array): void {
    const part = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    if (part.includes(POISON)) fail('memory that is nobody’s is sent');
    this.#rest = this.#rest.length === 0 ? part : Buffer.concat([this.#rest, part]);
    while (this.#one());
  }

  #one(): boolean {
    const rest = this.#rest;
    if (rest.length < BHS_BYTES) return false;
    const opcode = (rest[0] as number) & 0x3f;
    if (((rest[0] as number) & 0xe0) !== 0x20) fail(`a PDU with opcode 0x${opcode.toString(16)}`);
    if (rest[4] !== 0) fail('additional header segments from the target');
    const dataBytes = rest.readUIntBE(5, 3);
    const headBytes = BHS_BYTES + (this.#digests.header ? DIGEST_BYTES : 0);
    const end = headBytes + padded(dataBytes);
    const whole = end + (this.#digests.data && dataBytes > 0 ? DIGEST_BYTES : 0);
    if (rest.length < whole) return false;
    const view = new DataView(rest.buffer, rest.byteOffset, rest.length);
    if (this.#digests.header && crc32c(view, 0, BHS_BYTES) !== readDigest(view, BHS_BYTES)) {
      fail('a header digest of the target is wrong');
    }
    if (whole > end && crc32c(view, headBytes, end - headBytes) !== readDigest(view, end)) {
      fail('a data digest of the target is wrong');
    }
    for (let at = headBytes + dataBytes; at < end; at += 1) {
      if (rest[at] !== 0) fail('padding that is not zero');
    }
    this.#rest = rest.subarray(whole);
    this.#heard({
      header: rest.subarray(0, BHS_BYTES),
      data: rest.subarray(headBytes, headBytes + dataBytes),
    });
    return true;
  }
}
