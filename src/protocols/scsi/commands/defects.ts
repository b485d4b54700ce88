import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
import { u16, u32 } from './block-range.ts';

// READ DEFECT DATA (10), (12) [SBC-4 5.22, 5.23]: the lists are empty, in whatever format. What is beneath mends its own.

const REQ_LISTS = 0x18;
const FORMAT = 0x07;
const RESERVED_FORMAT = 7;

function execute(unit: LogicalUnit, task: ScsiTask, ten: boolean): void {
  const { cdb } = task;
  const asked = cdb[ten ? 2 : 1] as number;
  if ((asked & FORMAT) === RESERVED_FORMAT) {
    unit.refuseField(task, ten ? 2 : 1, 2);
    return;
  }
  const data = new Uint8Array(ten ? 4 : 8);
  // PLISTV, GLISTV and the format as they were asked for; DEFECT LIST LENGTH 0.
  data[1] = asked & (REQ_LISTS | FORMAT);
  task.dataIn = data.subarray(0, ten ? u16(cdb, 7) : u32(cdb, 6));
  unit.finish(task);
}

function command(ten: boolean): CommandSpec {
  const lists = REQ_LISTS | FORMAT;
  return {
    name: `READ DEFECT DATA (${ten ? 10 : 12})`,
    section: ten ? 'SBC-4 5.22' : 'SBC-4 5.23',
    opcode: ten ? 0x37 : 0xb7,
    cdbBytes: ten ? 10 : 12,
    usage: ten
      ? [0x37, 0, lists, 0, 0, 0, 0, 0xff, 0xff, 0x04]
      : [0xb7, lists, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
    reservation: 'reads',
    needsMedium: true,
    plan: () => true,
    execute: (unit, task) => execute(unit, task, ten),
  };
}

export const DEFECT_COMMANDS: readonly CommandSpec[] = [command(true), command(false)];
