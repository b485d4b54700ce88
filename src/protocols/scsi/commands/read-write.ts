import { FLAG } from '../../../block/io.ts';
import { type CommandSpec, GROUPED } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { TRANSFER, type ScsiTask } from '../task.ts';
import { impliedFlush } from '../unit-io.ts';
import { groupField, planRange, rangeUsage, type RangeForm } from './block-range.ts';

// READ and WRITE (6), (10), (12), (16).
//
// DPO is a hint that the blocks will not be needed again: it is taken and not used. GROUP NUMBER is for statistics alone:
// see GroupStatistics. RDPROTECT and WRPROTECT must be 0: there is no protection
// information.

/**
 * Byte 1: FUA [SBC-4 5.9], and FUA_NV, which SBC-3 made obsolete: a cache that is not volatile would do. There is none, so it is
 * as good as FUA, and never less than was asked for; libiscsi's suite wants it taken.
 */
const FUA = 0x08 | 0x02;
const DPO = 0x10;

function planRead(form: RangeForm): CommandSpec['plan'] {
  return (unit, task) => {
    task.transfer = TRANSFER.READ;
    if (!planRange(unit, task, form)) return false;
    if (form !== 6 && ((task.cdb[1] as number) & FUA) !== 0 && task.transferBytes > 0) {
      return readFromMedium(unit, task);
    }
    return true;
  };
}

/** [SBC-4 5.9] FUA: what is read is on the medium: blocks that are only in the cache go there first. */
function readFromMedium(unit: LogicalUnit, task: ScsiTask): boolean {
  if (!unit.disk.info.writeCache) return true;
  impliedFlush(task.session, task.offset, task.transferBytes, (error, at) => {
    if (error === null) unit.planned(task);
    else unit.fail(task, error, at, false);
  });
  return false;
}

function planWrite(form: RangeForm): CommandSpec['plan'] {
  return (unit, task) => {
    task.transfer = TRANSFER.WRITE;
    // [SBC-4 5.36] P2: stable when it completes.
    if (form !== 6 && ((task.cdb[1] as number) & FUA) !== 0) task.ioFlags = FLAG.FUA;
    return planRange(unit, task, form) && unit.ranges.enter(task, false);
  };
}

function read(form: RangeForm, opcode: number, section: string): CommandSpec {
  return {
    name: `READ (${form})`,
    section,
    opcode,
    cdbBytes: form,
    usage: rangeUsage(opcode, DPO | FUA, form),
    reservation: 'reads',
    needsMedium: true,
    ...(form === 6 ? {} : { grouped: GROUPED.READ, groupByte: groupField(form) }),
    plan: planRead(form),
  };
}

function write(form: RangeForm, opcode: number, section: string): CommandSpec {
  return {
    name: `WRITE (${form})`,
    section,
    opcode,
    cdbBytes: form,
    usage: rangeUsage(opcode, DPO | FUA, form),
    reservation: 'writes',
    needsMedium: true,
    writes: true,
    ...(form === 6 ? {} : { grouped: GROUPED.WRITE, groupByte: groupField(form) }),
    plan: planWrite(form),
  };
}

export const READ_WRITE_COMMANDS: readonly CommandSpec[] = [
  read(6, 0x08, 'SBC-4 5.15'),
  read(10, 0x28, 'SBC-4 5.16'),
  read(12, 0xa8, 'SBC-4 5.17'),
  read(16, 0x88, 'SBC-4 5.18'),
  write(6, 0x0a, 'SBC-4 5.39'),
  write(10, 0x2a, 'SBC-4 5.40'),
  write(12, 0xaa, 'SBC-4 5.41'),
  write(16, 0x8a, 'SBC-4 5.42'),
];
