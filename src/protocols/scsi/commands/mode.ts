import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { MAX_PARAMETER_BYTES } from '../limits.ts';
import { ASC, SENSE_KEY } from '../scsi.ts';
import type { ScsiTask } from '../task.ts';
import { u16, u32 } from './block-range.ts';
import {
  applyModes,
  isWriteCacheOn,
  modePages,
  PAGE_CONTROL,
  readModes,
  type WantedModes,
  writeCacheByte,
} from './mode-pages.ts';

// MODE SENSE and MODE SELECT (6), (10). WCE can be changed, and D_SENSE and SWP; nothing is saved (PS 0), as Linux wants
// it: it sets SP where a page says it can be saved, and is refused then.

const DBD = 0x08;
const LLBAA = 0x10;
const PF = 0x10;
const SP = 0x01;

/** Device-specific parameter [SBC-4 6.5.1]: WP, DPOFUA. */
function deviceSpecific(unit: LogicalUnit): number {
  return (unit.writeProtected ? 0x80 : 0) | 0x10;
}

/** [SBC-4 6.5.2] Short or long LBA mode parameter block descriptor. */
function blockDescriptor(unit: LogicalUnit, long: boolean): Uint8Array {
  const data = new Uint8Array(long ? 16 : 8);
  const view = new DataView(data.buffer);
  if (long) {
    view.setUint32(0, Math.floor(unit.blocks / 2 ** 32));
    view.setUint32(4, unit.blocks % 2 ** 32);
    view.setUint32(12, unit.blockBytes);
  } else {
    view.setUint32(0, Math.min(unit.blocks, 0xffff_ffff));
    // Bytes 5 to 7; byte 4 stays 0 for all block lengths there are.
    view.setUint32(4, unit.blockBytes);
  }
  return data;
}

/** [SBC-4 4.11.2] Caching, Control, Informational Exceptions Control. */
function isDoneDuringSanitize(cdb: Uint8Array): boolean {
  const page = (cdb[2] as number) & 0x3f;
  return cdb[3] === 0 && (page === 0x08 || page === 0x0a || page === 0x1c);
}

/** How much of `dataIn` the initiator takes. */
function shown({ dataIn, expectedInBytes }: ScsiTask): number {
  return Math.min(dataIn?.length ?? 0, expectedInBytes);
}

function modeSense(unit: LogicalUnit, task: ScsiTask, ten: boolean): void {
  const { cdb } = task;
  const control = (cdb[2] as number) >> 6;
  if (control === PAGE_CONTROL.SAVED) {
    unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.SAVING_PARAMETERS_NOT_SUPPORTED);
    return;
  }
  const pages = modePages(unit, control, (cdb[2] as number) & 0x3f, cdb[3] as number);
  if (pages === null) {
    unit.refuseField(task, 2, 5);
    return;
  }
  const long = ten && ((cdb[1] as number) & LLBAA) !== 0;
  const hasDescriptor = ((cdb[1] as number) & DBD) === 0;
  const descriptor = hasDescriptor ? blockDescriptor(unit, long) : new Uint8Array(0);
  const headerBytes = ten ? 8 : 4;
  const data = new Uint8Array(headerBytes + descriptor.length + pages.length);
  const view = new DataView(data.buffer);
  if (ten) {
    view.setUint16(0, data.length - 2);
    data[3] = deviceSpecific(unit);
    data[4] = long ? 1 : 0;
    view.setUint16(6, descriptor.length);
  } else {
    data[0] = data.length - 1;
    data[2] = deviceSpecific(unit);
    data[3] = descriptor.length;
  }
  data.set(descriptor, headerBytes);
  data.set(pages, headerBytes + descriptor.length);
  task.dataIn = data.subarray(0, ten ? u16(cdb, 7) : cdb[4]);
  if (control === PAGE_CONTROL.CURRENT) {
    const at = writeCacheByte(pages);
    // Whoever asks for the header alone, to see WP, has not seen it.
    const seen = at >= 0 && data.length - pages.length + at < shown(task);
    if (seen) unit.toldWriteCache(task.nexus, isWriteCacheOn(pages[at] as number));
  }
  unit.finish(task);
}

function planSelect(unit: LogicalUnit, task: ScsiTask, ten: boolean): boolean {
  const byte1 = task.cdb[1] as number;
  // [SPC-4 6.11] PF 0 is a vendor's own format; SP asks for what PS says there is none of.
  if ((byte1 & PF) === 0) return unit.refuseField(task, 1, 4);
  if ((byte1 & SP) !== 0) return unit.refuseField(task, 1, 0);
  task.outBytes = ten ? u16(task.cdb, 7) : (task.cdb[4] as number);
  return task.outBytes <= MAX_PARAMETER_BYTES || unit.refuseField(task, ten ? 7 : 4);
}

function tooShort(unit: LogicalUnit, task: ScsiTask): void {
  unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.PARAMETER_LIST_LENGTH_ERROR);
}

/** Everything is checked before anything is changed [SPC-4 6.11]. */
function modeSelect(unit: LogicalUnit, task: ScsiTask, ten: boolean): void {
  const list = task.dataOut;
  if (task.outBytes === 0 || list === null) {
    unit.finish(task);
    return;
  }
  const headerBytes = ten ? 8 : 4;
  if (list.length < headerBytes) {
    tooShort(unit, task);
    return;
  }
  const descriptorBytes = ten ? u16(list, 6) : (list[3] as number);
  const long = ten && ((list[4] as number) & 1) !== 0;
  const start = headerBytes + descriptorBytes;
  if (list.length < start) {
    tooShort(unit, task);
    return;
  }
  const descriptor = list.subarray(headerBytes, start);
  if (!acceptsDescriptor(unit, descriptor, long)) {
    unit.refuseParameter(task, headerBytes);
    return;
  }
  const wanted = readModes(unit, list, start);
  if (wanted === 'short') tooShort(unit, task);
  else if (typeof wanted === 'number') unit.refuseParameter(task, wanted);
  else change(unit, task, wanted);
}

/** The size of the medium and of its blocks cannot be changed: 0 and what they are mean "leave it" [SBC-4 6.5.2]. */
function acceptsDescriptor(unit: LogicalUnit, descriptor: Uint8Array, long: boolean): boolean {
  if (descriptor.length === 0) return true;
  if (descriptor.length !== (long ? 16 : 8)) return false;
  const same = blockDescriptor(unit, long);
  const blocksBytes = long ? 8 : 4;
  const blocks = descriptor.subarray(0, blocksBytes);
  const sameBlocks =
    blocks.every((byte) => byte === 0) || blocks.every((byte, i) => byte === same[i]);
  const lengthAt = long ? 12 : 4;
  const length = u32(descriptor, lengthAt) % (long ? 2 ** 32 : 2 ** 24);
  return sameBlocks && (length === unit.blockBytes || length === 0);
}

function change(unit: LogicalUnit, task: ScsiTask, wanted: WantedModes): void {
  applyModes(unit, task.nexus, wanted, (error) => {
    if (error === null) unit.finish(task);
    else if (error === 'EOPNOTSUPP') unit.refuseParameter(task, 0);
    else unit.fail(task, error);
  });
}

function sense(ten: boolean): CommandSpec {
  return {
    name: `MODE SENSE (${ten ? 10 : 6})`,
    section: ten ? 'SPC-4 6.14' : 'SPC-4 6.13',
    opcode: ten ? 0x5a : 0x1a,
    cdbBytes: ten ? 10 : 6,
    usage: ten
      ? [0x5a, LLBAA | DBD, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0x04]
      : [0x1a, DBD, 0xff, 0xff, 0xff, 0x04],
    reservation: 'reads',
    needsMedium: true,
    duringSanitize: isDoneDuringSanitize,
    plan: () => true,
    execute: (unit, task) => modeSense(unit, task, ten),
  };
}

function select(ten: boolean): CommandSpec {
  return {
    name: `MODE SELECT (${ten ? 10 : 6})`,
    section: ten ? 'SPC-4 6.12' : 'SPC-4 6.11',
    opcode: ten ? 0x55 : 0x15,
    cdbBytes: ten ? 10 : 6,
    usage: ten
      ? [0x55, PF | SP, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04]
      : [0x15, PF | SP, 0, 0, 0xff, 0x04],
    reservation: 'writes',
    needsMedium: true,
    plan: (unit, task) => planSelect(unit, task, ten),
    execute: (unit, task) => modeSelect(unit, task, ten),
  };
}

export const MODE_COMMANDS: readonly CommandSpec[] = [
  sense(false),
  sense(true),
  select(false),
  select(true),
];
