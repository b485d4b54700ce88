import type { LogicalUnit } from '../logical-unit.ts';
import { MAX_COMMAND_BYTES } from '../limits.ts';
import type { Nexus } from '../nexus.ts';
import { findCommand } from '../registry.ts';
import { PERIPHERAL_DEVICE_TYPE_BLOCK } from '../scsi.ts';
import { MAX_COMPARE_AND_WRITE_BLOCKS } from './compare-and-write.ts';
import { ascii } from './inquiry.ts';
import { THIRD_PARTY_COPY, thirdPartyCopyPage } from './third-party-copy-page.ts';
import { MAX_UNMAP_DESCRIPTORS } from './unmap.ts';
import { atomicBlocks } from './write-atomic.ts';

// Vital product data [SPC-4 7.8, SBC-4 6.6].

const SUPPORTED_PAGES = 0x00;
const UNIT_SERIAL_NUMBER = 0x80;
const DEVICE_IDENTIFICATION = 0x83;
const EXTENDED_INQUIRY = 0x86;
const BLOCK_LIMITS = 0xb0;
const BLOCK_DEVICE_CHARACTERISTICS = 0xb1;
const LOGICAL_BLOCK_PROVISIONING = 0xb2;

/** The one of every target, as iSCSI has it in a port's name. */
const PORTAL_GROUP_TAG = '0001';

/** A CDB to ask the registry with. */
const SANITIZE_BLOCK_ERASE: Uint8Array = Uint8Array.of(0x48, 0x02);

type Maker = (unit: LogicalUnit, nexus: Nexus) => Uint8Array;

const PAGES: ReadonlyMap<number, Maker> = new Map<number, Maker>([
  [SUPPORTED_PAGES, () => Uint8Array.from(PAGES.keys())],
  [UNIT_SERIAL_NUMBER, (unit) => new TextEncoder().encode(unit.options.serial)],
  [DEVICE_IDENTIFICATION, identification],
  [EXTENDED_INQUIRY, extendedInquiry],
  [THIRD_PARTY_COPY, thirdPartyCopyPage],
  [BLOCK_LIMITS, blockLimits],
  [BLOCK_DEVICE_CHARACTERISTICS, characteristics],
  [LOGICAL_BLOCK_PROVISIONING, provisioning],
]);

/** One page with its header, or null for a page that is not there. */
export function vpdPage(unit: LogicalUnit, nexus: Nexus, page: number): Uint8Array | null {
  const body = PAGES.get(page)?.(unit, nexus);
  if (body === undefined) return null;
  const data = new Uint8Array(4 + body.length);
  data[0] = PERIPHERAL_DEVICE_TYPE_BLOCK;
  data[1] = page;
  new DataView(data.buffer).setUint16(2, body.length);
  data.set(body, 4);
  return data;
}

/** [SPC-4 7.8.6.1] Designation descriptor: code set, association (0 unit, 1 port, 2 device), type. */
function designator(
  codeSet: number,
  association: number,
  type: number,
  value: Uint8Array,
): number[] {
  // PROTOCOL IDENTIFIER 5 (iSCSI) with PIV, where the association is not the unit [SPC-4 7.6.1].
  const protocol = association === 0 ? 0 : 0x50;
  const piv = association === 0 ? 0 : 0x80;
  return [protocol | codeSet, piv | (association << 4) | type, 0, value.length, ...value];
}

/** [SPC-4 7.8.6.11] SCSI name string: UTF-8, closed by a zero, filled to a multiple of four. */
function nameString(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(`${text}\0`);
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  return padded;
}

function identification(unit: LogicalUnit, nexus: Nexus): Uint8Array {
  const { vendor, serial, naa } = unit.options;
  const { name } = unit.target;
  const port = nexus.relativePort;
  const t10 = [...ascii(vendor, 8), ...new TextEncoder().encode(serial)];
  return Uint8Array.from([
    ...designator(1, 0, 3, naa),
    ...designator(2, 0, 1, Uint8Array.from(t10)),
    ...designator(1, 1, 4, Uint8Array.from([0, 0, port >> 8, port & 0xff])),
    // [RFC 7143 4.4.1 "SCSI port name"] iSCSI name, ",t,0x", portal group tag.
    ...designator(3, 1, 8, nameString(`${name},t,0x${PORTAL_GROUP_TAG}`)),
    ...designator(3, 2, 8, nameString(name)),
  ]);
}

/** [SPC-4 7.8.7] */
function extendedInquiry(unit: LogicalUnit): Uint8Array {
  const body = new Uint8Array(0x3c);
  // GROUP_SUP, HEADSUP, ORDSUP, SIMPSUP
  body[1] = 0x10 | 0x04 | 0x02 | 0x01;
  // V_SUP: there is a volatile cache, whether it is on now or not.
  if (!unit.disk.info.readOnly) body[2] = 0x01;
  // LUICLR: unit attentions of a lost nexus are cleared with it.
  body[3] = 0x01;
  return body;
}

/** [SBC-4 6.6.4] */
function blockLimits(unit: LogicalUnit): Uint8Array {
  const { blockBytes } = unit;
  const { info } = unit.disk;
  const body = new Uint8Array(0x3c);
  const view = new DataView(body.buffer);
  const most = MAX_COMMAND_BYTES / blockBytes;
  // WSNZ 0: WRITE SAME of 0 blocks is one to the end of the medium.
  body[1] = MAX_COMPARE_AND_WRITE_BLOCKS;
  view.setUint16(2, Math.max(1, info.preferredBytes / blockBytes));
  view.setUint32(4, most);
  view.setUint32(8, info.maxTransferBytes / blockBytes);
  if (unit.options.thin) {
    view.setUint32(16, 0xffff_ffff);
    view.setUint32(20, MAX_UNMAP_DESCRIPTORS);
    view.setUint32(24, Math.max(1, info.preferredBytes / blockBytes));
    // UGAVALID, alignment 0
    view.setUint32(28, 0x8000_0000);
  }
  view.setUint32(36, most);
  // MAXIMUM ATOMIC TRANSFER LENGTH; no alignment, no granularity, no boundaries.
  view.setUint32(40, atomicBlocks(unit));
  return body;
}

/** [SBC-4 6.6.2] */
function characteristics(unit: LogicalUnit): Uint8Array {
  const body = new Uint8Array(0x3c);
  // MEDIUM ROTATION RATE: 0001h non-rotating, 0000h not reported.
  if (!unit.disk.info.rotational) body[1] = 1;
  // WABEREQ 01b: what BLOCK ERASE has erased can be read. WACEREQ 0: no CRYPTOGRAPHIC ERASE.
  if (findCommand(unit, SANITIZE_BLOCK_ERASE) !== null) body[3] = 0x40;
  return body;
}

/** [SBC-4 6.6.6] */
function provisioning(unit: LogicalUnit): Uint8Array {
  const body = new Uint8Array(4);
  if (!unit.options.thin) return body;
  // LBPU, LBPWS, LBPRZ 001b: unmapped blocks read as zeroes. Not LBPWS10: see write-same.ts.
  body[1] = 0x80 | 0x40 | 0x04;
  // PROVISIONING TYPE: thin
  body[2] = 2;
  return body;
}
