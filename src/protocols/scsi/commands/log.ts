import type { CommandSpec } from '../command.ts';
import { GROUP_FIELDS, GROUPS } from '../group-statistics.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
import { u16 } from './block-range.ts';

// LOG SENSE: which pages there are, that there are no informational exceptions, and what each group of commands has done.

const SUPPORTED = 0x00;
const GROUP_STATISTICS = 0x19;
const INFORMATIONAL_EXCEPTIONS = 0x2f;
const SUBPAGES = 0xff;
/** Subpage format; nothing is saved. */
const SPF = 0x40;
const DS = 0x80;

/** [SPC-4 table 184] What values of counters are asked for. There are no thresholds. */
const PAGE_CONTROL = { CUMULATIVE: 1, DEFAULT_CUMULATIVE: 3 } as const;

/** Page and subpage codes of all that there is. */
function allPages(): number[] {
  const groups = Array.from({ length: GROUPS - 1 }, (_, i) => [GROUP_STATISTICS, i + 1]).flat();
  return [SUPPORTED, 0, SUPPORTED, SUBPAGES, ...groups, INFORMATIONAL_EXCEPTIONS, 0];
}

function logPage(page: number, subpage: number): Uint8Array | null {
  if (page === SUPPORTED && subpage === 0) {
    return Uint8Array.from([SUPPORTED, 0, 0, 2, SUPPORTED, INFORMATIONAL_EXCEPTIONS]);
  }
  // [SPC-4 7.3.19] SPF set: page and subpage codes of all that there is.
  if (page === SUPPORTED && subpage === SUBPAGES) {
    const pairs = allPages();
    return Uint8Array.from([SPF | SUPPORTED, SUBPAGES, 0, pairs.length, ...pairs]);
  }
  // [SPC-4 7.3.11] one parameter, 0000h: no exception, temperature not known (FFh).
  if (page === INFORMATIONAL_EXCEPTIONS && subpage === 0) {
    return Uint8Array.from([INFORMATIONAL_EXCEPTIONS, 0, 0, 8, 0, 0, 0x03, 4, 0, 0, 0xff, 0]);
  }
  return null;
}

/** [SPC-4 7.3.7.2] Group Statistics and Performance (n): one parameter, 0001h, an unbounded data counter that is not saved. */
function groupPage(unit: LogicalUnit, group: number, isDefault: boolean): Uint8Array {
  const fieldsAt = 8;
  const data = new Uint8Array(fieldsAt + 8 * GROUP_FIELDS);
  const view = new DataView(data.buffer);
  data.set([DS | SPF | GROUP_STATISTICS, group, 0, data.length - 4]);
  // TSD, FORMAT AND LINKING 10b
  data.set([0, 1, 0x22, data.length - fieldsAt], 4);
  if (isDefault) return data;
  for (let field = 0; field < GROUP_FIELDS; field += 1) {
    const value = BigInt(Math.round(unit.groups.get(group, field)));
    view.setBigUint64(fieldsAt + 8 * field, value);
  }
  return data;
}

/** False: another page is asked for. */
function senseGroup(unit: LogicalUnit, task: ScsiTask): boolean {
  const { cdb } = task;
  const group = cdb[3] as number;
  if (((cdb[2] as number) & 0x3f) !== GROUP_STATISTICS || group === 0 || group >= GROUPS) {
    return false;
  }
  const control = (cdb[2] as number) >> 6;
  const isDefault = control === PAGE_CONTROL.DEFAULT_CUMULATIVE;
  if (control !== PAGE_CONTROL.CUMULATIVE && !isDefault) unit.refuseField(task, 2, 7);
  // [SPC-4 6.7] From this parameter on: there is but one.
  else if (u16(cdb, 5) > 1) unit.refuseField(task, 5);
  else {
    task.dataIn = groupPage(unit, group, isDefault).subarray(0, u16(cdb, 7));
    unit.finish(task);
  }
  return true;
}

function logSense(unit: LogicalUnit, task: ScsiTask): void {
  const { cdb } = task;
  if (senseGroup(unit, task)) return;
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
