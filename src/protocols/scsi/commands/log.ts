import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
import { u16 } from './block-range.ts';

// LOG SENSE: which pages there are, and that there are no informational exceptions.

const SUPPORTED = 0x00;
const INFORMATIONAL_EXCEPTIONS = 0x2f;
const SUBPAGES = 0xff;

function logPage(page: number, subpage: number): Uint8Array | null {
  if (page === SUPPORTED && subpage === 0) {
    return Uint8Array.from([SUPPORTED, 0, 0, 2, SUPPORTED, INFORMATIONAL_EXCEPTIONS]);
  }
  // [SPC-4 7.3.19] SPF set: page and subpage codes of all that there is.
  if (page === SUPPORTED && subpage === SUBPAGES) {
    const pairs = [SUPPORTED, 0, SUPPORTED, SUBPAGES, INFORMATIONAL_EXCEPTIONS, 0];
    return Uint8Array.from([0x40 | SUPPORTED, SUBPAGES, 0, pairs.length, ...pairs]);
  }
  // [SPC-4 7.3.11] one parameter, 0000h: no exception, temperature not known (FFh).
  if (page === INFORMATIONAL_EXCEPTIONS && subpage === 0) {
    return Uint8Array.from([INFORMATIONAL_EXCEPTIONS, 0, 0, 8, 0, 0, 0x03, 4, 0, 0, 0xff, 0]);
  }
  return null;
}

function logSense(unit: LogicalUnit, task: ScsiTask): void {
  const { cdb } = task;
  const data = logPage((cdb[2] as number) & 0x3f, cdb[3] as number);
  if (data === null) {
    unit.refuseField(task, 2, 5);
    return;
  }
  // [SPC-4 6.7] A pointer behind the last parameter.
  if (u16(cdb, 5) !== 0) {
    unit.refuseField(task, 5);
    return;
  }
  task.dataIn = data.subarray(0, u16(cdb, 7));
  unit.finish(task);
}

export const LOG_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'LOG SENSE',
    section: 'SPC-4 6.7',
    opcode: 0x4d,
    cdbBytes: 10,
    usage: [0x4d, 0, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x04],
    reservation: 'reads',
    plan: () => true,
    execute: logSense,
  },
];
