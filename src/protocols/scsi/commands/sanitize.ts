import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { startSanitize, type SanitizeJob } from '../sanitize.ts';
import { SENSE_KEY, ASC } from '../scsi.ts';
import type { ScsiTask } from '../task.ts';
import { u16 } from './block-range.ts';

// SANITIZE [SBC-4 5.30]. OVERWRITE writes every block, in place as far as the file system beneath does; BLOCK ERASE gives
// the blocks of a thin disk back, and they read as zeroes. CRYPTOGRAPHIC ERASE is not there: there is no key to change.

const IMMED = 0x80;
const AUSE = 0x20;

const OVERWRITE = 0x01;
const BLOCK_ERASE = 0x02;
const EXIT_FAILURE_MODE = 0x1f;

const HEADER_BYTES = 4;
const INVERT = 0x80;
const TEST = 0x60;
const COUNT = 0x1f;

/** It can be done now: not while the medium is out, nor while another is under way. After a failed one it can. */
function ready(unit: LogicalUnit, task: ScsiTask): boolean {
  const { loaded, sanitizing } = unit.medium;
  return (loaded && sanitizing === null) || unit.hasMedium(task);
}

function planOverwrite(unit: LogicalUnit, task: ScsiTask): boolean {
  if (!ready(unit, task)) return false;
  const bytes = u16(task.cdb, 7);
  // [SBC-4 5.30.2.2] At least one byte of pattern, at most one block.
  if (bytes <= HEADER_BYTES || bytes > HEADER_BYTES + unit.blockBytes) {
    return unit.refuseField(task, 7);
  }
  task.outBytes = bytes;
  return true;
}

function overwrite(unit: LogicalUnit, task: ScsiTask): void {
  const list = task.dataOut;
  if (list === null || list.length < task.outBytes) {
    unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.PARAMETER_LIST_LENGTH_ERROR);
    return;
  }
  const flags = list[0] as number;
  const patternBytes = u16(list, 2);
  if ((flags & COUNT) === 0) unit.refuseParameter(task, 0, 4);
  else if ((flags & TEST) !== 0) unit.refuseParameter(task, 0, 6);
  else if (patternBytes === 0 || patternBytes > list.length - HEADER_BYTES) {
    unit.refuseParameter(task, 2);
  } else {
    const pattern = list.slice(HEADER_BYTES, HEADER_BYTES + patternBytes);
    begin(unit, task, { passes: flags & COUNT, invert: (flags & INVERT) !== 0, pattern });
  }
}

function planWithoutList(unit: LogicalUnit, task: ScsiTask): boolean {
  // [SBC-4 5.30] The list is OVERWRITE's alone.
  if (u16(task.cdb, 7) !== 0) return unit.refuseField(task, 7);
  return ready(unit, task);
}

function begin(unit: LogicalUnit, task: ScsiTask, job: SanitizeJob): void {
  // It may have begun while the parameter list was on its way.
  if (!ready(unit, task)) return;
  const flags = task.cdb[1] as number;
  const immediate = (flags & IMMED) !== 0;
  startSanitize(unit, job, immediate ? null : task, (flags & AUSE) !== 0);
  if (immediate) unit.finish(task);
}

function exitFailureMode(unit: LogicalUnit, task: ScsiTask): void {
  const { medium } = unit;
  // [SBC-4 5.30.5] Only where AUSE has allowed it; without a failure there is nothing to do.
  if (medium.sanitizeFailed === 'restricted') {
    unit.refuseField(task, 1, 4);
    return;
  }
  medium.sanitizeFailed = null;
  unit.finish(task);
}

/** What is under way goes on without the command [SBC-4 4.11.2]. */
function aborting(unit: LogicalUnit, task: ScsiTask): void {
  if (unit.medium.sanitizeTask !== task) return;
  unit.medium.sanitizeTask = null;
  unit.finish(task);
}

/** It goes on in the background. */
function hasTimers(unit: LogicalUnit): boolean {
  return unit.options.timers !== undefined;
}

function command(
  serviceAction: number,
  name: string,
  plan: CommandSpec['plan'],
  execute: (unit: LogicalUnit, task: ScsiTask) => void,
): CommandSpec {
  return {
    name: `SANITIZE (${name})`,
    section: 'SBC-4 5.30',
    opcode: 0x48,
    serviceAction,
    cdbBytes: 10,
    // ZNR is for zoned disks.
    usage: [0x48, IMMED | AUSE | serviceAction, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04],
    reservation: 'writes',
    writes: true,
    offered: hasTimers,
    plan,
    execute,
    aborting,
  };
}

export const SANITIZE_COMMANDS: readonly CommandSpec[] = [
  command(OVERWRITE, 'OVERWRITE', planOverwrite, overwrite),
  {
    ...command(BLOCK_ERASE, 'BLOCK ERASE', planWithoutList, (unit, task) =>
      begin(unit, task, { passes: 1, invert: false, pattern: null }),
    ),
    offered: (unit) => unit.options.thin && hasTimers(unit),
  },
  command(EXIT_FAILURE_MODE, 'EXIT FAILURE MODE', planWithoutList, exitFailureMode),
];
