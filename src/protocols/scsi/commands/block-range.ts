import { MAX_COMMAND_BYTES } from '../limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { ASC, SENSE_KEY } from '../scsi.ts';
import type { ScsiTask } from '../task.ts';

/** Where the LBA and the number of blocks are in a CDB, by its length [SBC-4 5]. */
export type RangeForm = 6 | 10 | 12 | 16;

/** An LBA or a count beyond what a double holds exactly is beyond every disk; it becomes this. */
const BEYOND = 2 ** 60;

export function u16(cdb: Uint8Array, at: number): number {
  return (cdb[at] as number) * 256 + (cdb[at + 1] as number);
}

export function u32(cdb: Uint8Array, at: number): number {
  return u16(cdb, at) * 65_536 + u16(cdb, at + 2);
}

export function u64(cdb: Uint8Array, at: number): number {
  const high = u32(cdb, at);
  return high >= 2 ** 21 ? BEYOND : high * 2 ** 32 + u32(cdb, at + 4);
}

export function lbaOf(cdb: Uint8Array, form: RangeForm): number {
  // [SBC-4 5.8] READ (6): 21 bits.
  if (form === 6) return ((cdb[1] as number) & 0x1f) * 65_536 + u16(cdb, 2);
  return form === 16 ? u64(cdb, 2) : u32(cdb, 2);
}

export function blocksOf(cdb: Uint8Array, form: RangeForm): number {
  // [SBC-4 5.8] READ (6): 0 means 256.
  if (form === 6) return (cdb[4] as number) || 256;
  if (form === 10) return u16(cdb, 7);
  return form === 12 ? u32(cdb, 6) : u32(cdb, 10);
}

/** The byte of the CDB with the number of blocks, for the field pointer. */
export function blocksField(form: RangeForm): number {
  return { 6: 4, 10: 7, 12: 6, 16: 10 }[form];
}

/** The byte of the CDB with the GROUP NUMBER. */
export function groupField(form: Exclude<RangeForm, 6>): number {
  return { 10: 6, 12: 10, 16: 14 }[form];
}

/** False: blocks beyond the last one, and the task has ended so. Zero blocks behind the last one are beyond it too. */
export function inRange(unit: LogicalUnit, task: ScsiTask, lba: number, blocks: number): boolean {
  if (lba + blocks <= unit.blocks && (blocks > 0 || lba < unit.blocks)) return true;
  return unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
}

/**
 * CDB usage data (CommandSpec.usage) of a command with an LBA, a number of blocks and, but for 6 bytes, a group number.
 * `byte1`: the bits of byte 1 that are looked at; with 6 bytes they belong to the LBA.
 */
export function rangeUsage(opcode: number, byte1: number, form: RangeForm): readonly number[] {
  if (form === 6) return [opcode, 0x1f, 0xff, 0xff, 0xff, 0x04];
  const four = [0xff, 0xff, 0xff, 0xff];
  if (form === 10) return [opcode, byte1, ...four, 0x3f, 0xff, 0xff, 0x04];
  if (form === 12) return [opcode, byte1, ...four, ...four, 0x3f, 0x04];
  return [opcode, byte1, ...four, ...four, ...four, 0x3f, 0x04];
}

/** Checks the range of a transfer and fills `offset` and `transferBytes`. False: it has been refused. */
export function planRange(unit: LogicalUnit, task: ScsiTask, form: RangeForm): boolean {
  const lba = lbaOf(task.cdb, form);
  const blocks = blocksOf(task.cdb, form);
  const { blockBytes } = unit;
  if (blocks * blockBytes > MAX_COMMAND_BYTES) return unit.refuseField(task, blocksField(form));
  if (!inRange(unit, task, lba, blocks)) return false;
  task.offset = lba * blockBytes;
  task.transferBytes = blocks * blockBytes;
  return true;
}
