import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { ASC, SENSE_KEY } from '../scsi.ts';
import { senseData } from '../sense.ts';
import type { ScsiTask } from '../task.ts';
import { impliedFlush } from '../unit-io.ts';

// TEST UNIT READY, REQUEST SENSE, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL.

function requestSense(unit: LogicalUnit, task: ScsiTask): void {
  const descriptorFormat = ((task.cdb[1] as number) & 1) !== 0;
  const { obstacle, sanitizing } = unit.medium;
  // [SPC-4 6.39] A pending condition is reported as data, and is cleared by that.
  const attention = unit.attentions.take(task.nexus);
  let data: Uint8Array;
  if (attention !== null) data = senseData(descriptorFormat, SENSE_KEY.UNIT_ATTENTION, attention);
  else if (obstacle !== null && obstacle.code !== ASC.MEDIUM_NOT_PRESENT) {
    const details = sanitizing === null ? {} : { progress: sanitizing };
    data = senseData(descriptorFormat, obstacle.key, obstacle.code, details);
  } else
    data = senseData(descriptorFormat, SENSE_KEY.NO_SENSE, ASC.NO_ADDITIONAL_SENSE_INFORMATION);
  task.dataIn = data.subarray(0, task.cdb[4]);
  unit.finish(task);
}

/** [SBC-4 5.31] Stopping and ejecting make stable what is in the cache, unless NO_FLUSH says otherwise. */
function startStop(unit: LogicalUnit, task: ScsiTask): void {
  const byte = task.cdb[4] as number;
  const powerCondition = byte >> 4;
  const noFlush = (byte & 4) !== 0;
  const loadEject = (byte & 2) !== 0;
  const start = (byte & 1) !== 0;
  // The medium stays, and stays as it is, while it is being sanitized [SBC-4 4.11.3].
  if (unit.medium.sanitizing !== null) {
    unit.hasMedium(task);
    return;
  }
  // [SBC-4 5.31] With a power condition, START and LOEJ are ignored. There are none to go to.
  if (powerCondition !== 0) {
    unit.finish(task);
    return;
  }
  if (loadEject && !unit.options.removable) {
    unit.refuseField(task, 4, 1);
    return;
  }
  // [SPC-4 6.16] Prevented: no medium goes out, and none comes in (libiscsi's suite wants the second too).
  if (loadEject && unit.medium.preventers.size > 0) {
    unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.MEDIUM_REMOVAL_PREVENTED);
    return;
  }
  if (start) {
    if (loadEject) load(unit, task);
    unit.finish(task);
    return;
  }
  const stopped = (): void => {
    if (loadEject) unit.medium.loaded = false;
    unit.finish(task);
  };
  if (noFlush || !unit.medium.loaded) stopped();
  else flushThen(unit, task, stopped);
}

function load(unit: LogicalUnit, task: ScsiTask): void {
  if (unit.medium.loaded) return;
  unit.medium.loaded = true;
  unit.attentions.establish(ASC.NOT_READY_TO_READY_CHANGE, task.nexus);
}

function flushThen(unit: LogicalUnit, task: ScsiTask, then: () => void): void {
  impliedFlush(task.session, 0, 0, (error) => (error === null ? then() : unit.fail(task, error)));
}

function preventAllow(unit: LogicalUnit, task: ScsiTask): void {
  const { preventers } = unit.medium;
  if (((task.cdb[4] as number) & 1) !== 0) preventers.add(task.nexus);
  else preventers.delete(task.nexus);
  unit.finish(task);
}

export const UNIT_STATE_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'TEST UNIT READY',
    section: 'SPC-4 6.47',
    opcode: 0x00,
    cdbBytes: 6,
    usage: [0x00, 0, 0, 0, 0, 0x04],
    reservation: 'allowed',
    needsMedium: true,
    plan: () => true,
    execute: (unit, task) => unit.finish(task),
  },
  {
    name: 'REQUEST SENSE',
    section: 'SPC-4 6.39',
    opcode: 0x03,
    cdbBytes: 6,
    usage: [0x03, 0x01, 0, 0, 0xff, 0x04],
    reservation: 'allowed',
    despiteUnitAttention: true,
    plan: () => true,
    execute: requestSense,
  },
  {
    name: 'START STOP UNIT',
    section: 'SBC-4 5.31',
    opcode: 0x1b,
    cdbBytes: 6,
    usage: [0x1b, 0x01, 0, 0x0f, 0xf7, 0x04],
    // [SBC-4 table 15] START is allowed under a write exclusive reservation, stopping is not.
    reservation: 'own',
    plan: (unit, task) => {
      const rule = ((task.cdb[4] as number) & 1) !== 0 ? 'allowed' : 'writes';
      return unit.respectsReservation(task, rule);
    },
    execute: startStop,
  },
  {
    name: 'PREVENT ALLOW MEDIUM REMOVAL',
    section: 'SBC-4 5.15',
    opcode: 0x1e,
    cdbBytes: 6,
    usage: [0x1e, 0, 0, 0, 0x03, 0x04],
    // [SBC-4 table 15] Allowing is always allowed.
    reservation: 'own',
    plan: (unit, task) => {
      const rule = ((task.cdb[4] as number) & 1) !== 0 ? 'writes' : 'allowed';
      return unit.respectsReservation(task, rule);
    },
    execute: preventAllow,
  },
];
