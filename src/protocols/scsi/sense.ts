/** What goes into sense data besides the key and the code [SPC-4 4.5]. */
export interface SenseDetails {
  /** INFORMATION field: the first LBA in error, the offset of a miscompare. */
  readonly information?: number;
  /** Sense key specific, ILLEGAL REQUEST: the byte in the CDB (`inCdb`) or the parameter list that is wrong. */
  readonly field?: { readonly inCdb: boolean; readonly byte: number; readonly bit?: number };
  /** Sense key specific, NOT READY: how far an operation is, 0 to 1. */
  readonly progress?: number;
  /** About a command that has ended long ago [SPC-4 4.5.5]. */
  readonly deferred?: boolean;
}

const FIXED_BYTES = 18;

/**
 * Sense data [SPC-4 4.5.3 fixed, 4.5.2 descriptor]. `code`: additional sense code and qualifier as one number.
 */
export function senseData(
  descriptorFormat: boolean,
  key: number,
  code: number,
  details: SenseDetails = {},
): Uint8Array {
  return descriptorFormat ? descriptor(key, code, details) : fixed(key, code, details);
}

function fixed(key: number, code: number, details: SenseDetails): Uint8Array {
  const bytes = new Uint8Array(FIXED_BYTES);
  const view = new DataView(bytes.buffer);
  bytes[0] = details.deferred === true ? 0x71 : 0x70;
  bytes[2] = key;
  // [SPC-4 4.5.3] VALID only where the information fits 32 bits.
  if (details.information !== undefined && details.information < 2 ** 32) {
    bytes[0] |= 0x80;
    view.setUint32(3, details.information);
  }
  bytes[7] = FIXED_BYTES - 8;
  view.setUint16(12, code);
  bytes.set(keySpecific(details), 15);
  return bytes;
}

function descriptor(key: number, code: number, details: SenseDetails): Uint8Array {
  const parts: number[] = [];
  if (details.information !== undefined) {
    // [SPC-4 4.5.2.2] information descriptor: type 00h, 10 bytes follow, VALID.
    const high = Math.floor(details.information / 2 ** 32);
    parts.push(0, 0x0a, 0x80, 0, ...u32(high), ...u32(details.information % 2 ** 32));
  }
  const specific = keySpecific(details);
  // [SPC-4 4.5.2.4] sense key specific descriptor: type 02h, 6 bytes follow.
  if (specific[0] !== 0) parts.push(2, 6, 0, 0, ...specific, 0);
  const bytes = new Uint8Array(8 + parts.length);
  bytes[0] = details.deferred === true ? 0x73 : 0x72;
  bytes[1] = key;
  bytes[2] = code >> 8;
  bytes[3] = code & 0xff;
  bytes[7] = parts.length;
  bytes.set(parts, 8);
  return bytes;
}

/** Three bytes, the first with SKSV set when they mean something [SPC-4 4.5.2.4]. */
function keySpecific({ field, progress }: SenseDetails): Uint8Array {
  const bytes = new Uint8Array(3);
  const view = new DataView(bytes.buffer);
  if (field !== undefined) {
    bytes[0] = 0x80 | (field.inCdb ? 0x40 : 0) | (field.bit === undefined ? 0 : 0x08 | field.bit);
    view.setUint16(1, field.byte);
  } else if (progress !== undefined) {
    bytes[0] = 0x80;
    view.setUint16(1, Math.min(0xffff, Math.floor(progress * 0x10000)));
  }
  return bytes;
}

function u32(value: number): [number, number, number, number] {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}
