// Command descriptor blocks that initiators send [SPC-4, SBC-4].

function cdb(bytes: number, opcode: number): DataView {
  const view = new DataView(new ArrayBuffer(bytes));
  view.setUint8(0, opcode);
  return view;
}

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer);
}

export function testUnitReady(): Uint8Array {
  return new Uint8Array(6);
}

/** READ (16). */
export function read16(lba: number, blocks: number): Uint8Array {
  const view = cdb(16, 0x88);
  view.setUint32(2, Math.floor(lba / 2 ** 32));
  view.setUint32(6, lba % 2 ** 32);
  view.setUint32(10, blocks);
  return bytesOf(view);
}

/** WRITE (16). */
export function write16(lba: number, blocks: number, fua = false): Uint8Array {
  const bytes = read16(lba, blocks);
  bytes[0] = 0x8a;
  bytes[1] = fua ? 0x08 : 0;
  return bytes;
}

/** VERIFY (16), BYTCHK 01b: compare with Data-Out. */
export function compare16(lba: number, blocks: number): Uint8Array {
  const bytes = read16(lba, blocks);
  bytes[0] = 0x8f;
  bytes[1] = 0x02;
  return bytes;
}

/** SYNCHRONIZE CACHE (10) of everything. */
export function synchronizeCache(): Uint8Array {
  return bytesOf(cdb(10, 0x35));
}

/** INQUIRY, standard data. */
export function inquiry(allocated: number): Uint8Array {
  const view = cdb(6, 0x12);
  view.setUint16(3, allocated);
  return bytesOf(view);
}

/** READ CAPACITY (16). */
export function readCapacity16(allocated: number): Uint8Array {
  const view = cdb(16, 0x9e);
  view.setUint8(1, 0x10);
  view.setUint32(10, allocated);
  return bytesOf(view);
}
