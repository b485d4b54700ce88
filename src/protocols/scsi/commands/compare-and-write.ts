import { FLAG, OP } from '../../../block/io.ts';
import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { ASC, SENSE_KEY } from '../scsi.ts';
import type { ScsiTask } from '../task.ts';
import { transfer } from '../unit-io.ts';
import { inRange, planRange, u64 } from './block-range.ts';

// COMPARE AND WRITE and ORWRITE (16): read, look, write, and nobody changes the blocks in between.

/** FUA, or the obsolete FUA_NV: see read-write.ts. */
const FUA = 0x08 | 0x02;
const DPO = 0x10;

/** MAXIMUM COMPARE AND WRITE LENGTH of the Block Limits page: all that the CDB can ask for. */
export const MAX_COMPARE_AND_WRITE_BLOCKS = 255;

function planCompareAndWrite(unit: LogicalUnit, task: ScsiTask): boolean {
  const lba = u64(task.cdb, 2);
  const blocks = task.cdb[13] as number;
  if (!inRange(unit, task, lba, blocks)) return false;
  task.offset = lba * unit.blockBytes;
  task.transferBytes = blocks * unit.blockBytes;
  task.outBytes = task.transferBytes * 2;
  // What is sent besides might have been meant for blocks; libiscsi's suite wants it refused [SBC-4 5.3].
  if (task.expectedOutBytes !== task.outBytes) return unit.refuseField(task, 13);
  planFua(task);
  return unit.ranges.enter(task, true);
}

function planFua(task: ScsiTask): void {
  if (((task.cdb[1] as number) & FUA) !== 0) task.ioFlags = FLAG.FUA;
}

function compareAndWrite(unit: LogicalUnit, task: ScsiTask): void {
  const { dataOut, transferBytes } = task;
  if (transferBytes === 0) {
    unit.finish(task);
    return;
  }
  if (dataOut === null || dataOut.length < task.outBytes) {
    unit.refuseField(task, 13);
    return;
  }
  const there = new Uint8Array(transferBytes);
  transfer(task.session, OP.READ, task.offset, there, 0, (error, at) => {
    if (error !== null) {
      unit.fail(task, error, at, true);
      return;
    }
    const differs = firstDifference(there, dataOut);
    if (differs >= 0) {
      // [SBC-4 5.3] INFORMATION: the offset of the first byte that differs.
      const code = ASC.MISCOMPARE_DURING_VERIFY_OPERATION;
      unit.refuse(task, SENSE_KEY.MISCOMPARE, code, { information: differs });
      return;
    }
    write(unit, task, dataOut.subarray(transferBytes, transferBytes * 2));
  });
}

/** Where the second begins to differ from the first, or -1. */
export function firstDifference(first: Uint8Array, second: Uint8Array): number {
  for (let i = 0; i < first.length; i += 1) if (first[i] !== second[i]) return i;
  return -1;
}

function write(unit: LogicalUnit, task: ScsiTask, bytes: Uint8Array): void {
  transfer(task.session, OP.WRITE, task.offset, bytes, task.ioFlags, (error, at) => {
    if (error === null) unit.finish(task);
    else unit.fail(task, error, at);
  });
}

function planOrWrite(unit: LogicalUnit, task: ScsiTask): boolean {
  if (!planRange(unit, task, 16)) return false;
  task.outBytes = task.transferBytes;
  planFua(task);
  return unit.ranges.enter(task, true);
}

function orWrite(unit: LogicalUnit, task: ScsiTask): void {
  const { dataOut, transferBytes } = task;
  if (transferBytes === 0) {
    unit.finish(task);
    return;
  }
  if (dataOut === null || dataOut.length < transferBytes) {
    unit.refuseField(task, 10);
    return;
  }
  const merged = new Uint8Array(transferBytes);
  transfer(task.session, OP.READ, task.offset, merged, 0, (error, at) => {
    if (error !== null) {
      unit.fail(task, error, at, true);
      return;
    }
    for (let i = 0; i < transferBytes; i += 1) {
      merged[i] = (merged[i] as number) | (dataOut[i] as number);
    }
    write(unit, task, merged);
  });
}

export const COMPARE_AND_WRITE_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'COMPARE AND WRITE',
    section: 'SBC-4 5.3',
    opcode: 0x89,
    cdbBytes: 16,
    usage: [0x89, DPO | FUA, ...Array<number>(8).fill(0xff), 0, 0, 0, 0xff, 0x3f, 0x04],
    reservation: 'writes',
    needsMedium: true,
    writes: true,
    plan: planCompareAndWrite,
    execute: compareAndWrite,
  },
  {
    name: 'ORWRITE (16)',
    section: 'SBC-4 5.13',
    opcode: 0x8b,
    cdbBytes: 16,
    usage: [0x8b, DPO | FUA, ...Array<number>(12).fill(0xff), 0x3f, 0x04],
    reservation: 'writes',
    needsMedium: true,
    writes: true,
    plan: planOrWrite,
    execute: orWrite,
  },
];
