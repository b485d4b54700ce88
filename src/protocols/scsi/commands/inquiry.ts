import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { PERIPHERAL_DEVICE_TYPE_BLOCK } from '../scsi.ts';
import type { ScsiTask } from '../task.ts';
import { u16 } from './block-range.ts';
import { vpdPage } from './vpd-pages.ts';

const EVPD = 0x01;

/**
 * [SPC-4 table 152] Version descriptors: SAM-5, iSCSI, SPC-4, SBC-4, each without a revision claimed; and SBC-3, which is what
 * older initiators, and libiscsi's suite, know of SBC-4.
 */
const VERSION_DESCRIPTORS = [0x00a0, 0x0960, 0x0460, 0x0600, 0x04c0];

const STANDARD_BYTES = 96;

/** [SPC-4 6.6.2] */
function standardData(unit: LogicalUnit): Uint8Array {
  const { removable, vendor, product, revision } = unit.options;
  const data = new Uint8Array(STANDARD_BYTES);
  data[0] = PERIPHERAL_DEVICE_TYPE_BLOCK;
  data[1] = removable ? 0x80 : 0;
  data[2] = 0x06; // VERSION: SPC-4
  data[3] = 0x12; // HISUP, RESPONSE DATA FORMAT 2
  data[4] = STANDARD_BYTES - 5;
  data[5] = 0x08; // 3PC: EXTENDED COPY
  data[7] = 0x02; // CMDQUE
  data.set(ascii(vendor, 8), 8);
  data.set(ascii(product, 16), 16);
  data.set(ascii(revision, 4), 32);
  const view = new DataView(data.buffer);
  VERSION_DESCRIPTORS.forEach((version, i) => view.setUint16(58 + 2 * i, version));
  return data;
}

/** Left-aligned ASCII, filled with spaces [SPC-4 4.3.1]. */
export function ascii(text: string, length: number): Uint8Array {
  return new TextEncoder().encode(text.slice(0, length).padEnd(length, ' '));
}

function inquiry(unit: LogicalUnit, task: ScsiTask): void {
  const page = task.cdb[2] as number;
  const evpd = ((task.cdb[1] as number) & EVPD) !== 0;
  // [SPC-4 6.6.1] A page code without EVPD means nothing.
  const data = evpd ? vpdPage(unit, task.nexus, page) : page === 0 ? standardData(unit) : null;
  if (data === null) {
    unit.refuseField(task, 2);
    return;
  }
  task.dataIn = data.subarray(0, u16(task.cdb, 3));
  unit.finish(task);
}

export const INQUIRY_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'INQUIRY',
    section: 'SPC-4 6.6',
    opcode: 0x12,
    cdbBytes: 6,
    usage: [0x12, EVPD, 0xff, 0xff, 0xff, 0x04],
    reservation: 'allowed',
    despiteUnitAttention: true,
    plan: () => true,
    execute: inquiry,
  },
];
