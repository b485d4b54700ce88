import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { commandsOf, findCommand, hasServiceActions } from '../registry.ts';
import type { ScsiTask } from '../task.ts';

// REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, made from the registry.

/** [SPC-4 6.35.4] Command timeouts descriptor: 12 bytes, of which none says anything: no times are promised. */
const TIMEOUTS = [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/** [SPC-4 6.35.2] */
function describe(command: CommandSpec, timeouts: boolean): number[] {
  const { opcode, serviceAction } = command;
  const action = serviceAction ?? 0;
  const flags = (timeouts ? 2 : 0) | (serviceAction === undefined ? 0 : 1);
  const head = [opcode, 0, action >> 8, action & 0xff, 0, flags, 0, command.cdbBytes];
  return timeouts ? [...head, ...TIMEOUTS] : head;
}

/** [SPC-4 6.35.3] SUPPORT 001b: not supported, 011b: as the standard says. */
function one(command: CommandSpec | null, timeouts: boolean): number[] {
  if (command === null) return [0, 1, 0, 0];
  const usage = [...command.usage];
  while (usage.length < command.cdbBytes) usage.push(0);
  const head = [0, 3 | (timeouts ? 0x80 : 0), 0, command.cdbBytes, ...usage];
  return timeouts ? [...head, ...TIMEOUTS] : head;
}

function supportedOpcodes(unit: LogicalUnit, task: ScsiTask): void {
  const { cdb } = task;
  const view = new DataView(cdb.buffer, cdb.byteOffset);
  const timeouts = ((cdb[2] as number) & 0x80) !== 0;
  const options = (cdb[2] as number) & 7;
  const asked = new Uint8Array(16);
  asked[0] = cdb[3] as number;
  const action = view.getUint16(4);
  // Service actions are five bits of byte 1, of a variable length CDB two bytes that we have none of.
  asked[1] = action & 0x1f;
  let data: number[];
  if (options === 0) {
    const list = commandsOf(unit).flatMap((command) => describe(command, timeouts));
    const { length } = list;
    data = [length >>> 24, (length >> 16) & 0xff, (length >> 8) & 0xff, length & 0xff, ...list];
  } else if (options === 1 || options === 2) {
    // [SPC-4 table 224] 001b only without, 010b only with service actions.
    if (hasServiceActions(asked[0]) !== (options === 2)) {
      unit.refuseField(task, 2, 2);
      return;
    }
    data = one(action > 0x1f ? null : findCommand(unit, asked), timeouts);
  } else if (options === 3) {
    const wanted = hasServiceActions(asked[0]) || action === 0 ? findCommand(unit, asked) : null;
    data = one(action > 0x1f ? null : wanted, timeouts);
  } else {
    unit.refuseField(task, 2, 2);
    return;
  }
  task.dataIn = Uint8Array.from(data).subarray(0, view.getUint32(6));
  unit.finish(task);
}

function supportedFunctions(unit: LogicalUnit, task: ScsiTask): void {
  const { cdb } = task;
  const extended = ((cdb[2] as number) & 0x80) !== 0;
  // [SPC-4 6.36] ATS, ATSS, CTSS, LURS, TRS. Query functions have no iSCSI request at protocol level 1.
  const data = new Uint8Array(extended ? 16 : 4);
  data[0] = 0x80 | 0x40 | 0x10 | 0x08 | 0x02;
  if (extended) data[3] = 0x0c;
  const allocated = new DataView(cdb.buffer, cdb.byteOffset).getUint32(6);
  task.dataIn = data.subarray(0, allocated);
  unit.finish(task);
}

export const REPORT_SUPPORTED_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'REPORT SUPPORTED OPERATION CODES',
    section: 'SPC-4 6.35',
    opcode: 0xa3,
    serviceAction: 0x0c,
    cdbBytes: 12,
    usage: [0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
    reservation: 'allowed',
    plan: () => true,
    execute: supportedOpcodes,
  },
  {
    name: 'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS',
    section: 'SPC-4 6.36',
    opcode: 0xa3,
    serviceAction: 0x0d,
    cdbBytes: 12,
    usage: [0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
    reservation: 'allowed',
    plan: () => true,
    execute: supportedFunctions,
  },
];
