import type { CommandSpec } from './command.ts';
import { CAPACITY_COMMANDS } from './commands/capacity.ts';
import { COMPARE_AND_WRITE_COMMANDS } from './commands/compare-and-write.ts';
import { DEFECT_COMMANDS } from './commands/defects.ts';
import { EXTENDED_COPY_COMMANDS } from './commands/extended-copy.ts';
import { INQUIRY_COMMANDS } from './commands/inquiry.ts';
import { LOG_COMMANDS } from './commands/log.ts';
import { MODE_COMMANDS } from './commands/mode.ts';
import { PERSISTENT_RESERVE_COMMANDS } from './commands/persistent-reserve.ts';
import { PRE_FETCH_COMMANDS } from './commands/pre-fetch.ts';
import { READ_WRITE_COMMANDS } from './commands/read-write.ts';
import { REPORT_LUNS_COMMANDS } from './commands/report-luns.ts';
import { REPORT_SUPPORTED_COMMANDS } from './commands/report-supported.ts';
import { RESERVE_COMMANDS } from './commands/reserve.ts';
import { SANITIZE_COMMANDS } from './commands/sanitize.ts';
import { SYNCHRONIZE_CACHE_COMMANDS } from './commands/synchronize-cache.ts';
import { UNIT_STATE_COMMANDS } from './commands/unit-state.ts';
import { UNMAP_COMMANDS } from './commands/unmap.ts';
import { VERIFY_COMMANDS } from './commands/verify.ts';
import { WRITE_ATOMIC_COMMANDS } from './commands/write-atomic.ts';
import { WRITE_SAME_COMMANDS } from './commands/write-same.ts';
import type { LogicalUnit } from './logical-unit.ts';

/** Every command there is. A new one is a row in a file of `commands/` and, if the file is new, a line here. */
function all(): CommandSpec[] {
  return [
    ...UNIT_STATE_COMMANDS,
    ...REPORT_LUNS_COMMANDS,
    ...REPORT_SUPPORTED_COMMANDS,
    ...INQUIRY_COMMANDS,
    ...MODE_COMMANDS,
    ...LOG_COMMANDS,
    ...CAPACITY_COMMANDS,
    ...READ_WRITE_COMMANDS,
    ...SYNCHRONIZE_CACHE_COMMANDS,
    ...PRE_FETCH_COMMANDS,
    ...VERIFY_COMMANDS,
    ...WRITE_SAME_COMMANDS,
    ...UNMAP_COMMANDS,
    ...COMPARE_AND_WRITE_COMMANDS,
    ...WRITE_ATOMIC_COMMANDS,
    ...SANITIZE_COMMANDS,
    ...DEFECT_COMMANDS,
    ...RESERVE_COMMANDS,
    ...PERSISTENT_RESERVE_COMMANDS,
    ...EXTENDED_COPY_COMMANDS,
  ];
}

/** By operation code: the command, or its service actions. Made at first use: the files above import this one. */
let table: (CommandSpec | Map<number, CommandSpec> | undefined)[] | null = null;

function lookup(opcode: number): CommandSpec | Map<number, CommandSpec> | undefined {
  if (table === null) {
    table = Array.from<undefined>({ length: 256 });
    for (const command of all()) {
      const { opcode: code, serviceAction } = command;
      if (serviceAction === undefined) {
        table[code] = command;
        continue;
      }
      const actions = (table[code] ??= new Map()) as Map<number, CommandSpec>;
      actions.set(serviceAction, command);
    }
  }
  return table[opcode];
}

/** The operation code has service actions, in the low five bits of byte 1 [SPC-4 4.2.5.2]. */
export function hasServiceActions(opcode: number): boolean {
  return lookup(opcode) instanceof Map;
}

/** The command of a CDB, as far as this logical unit offers it. */
export function findCommand(unit: LogicalUnit, cdb: Uint8Array): CommandSpec | null {
  const found = lookup(cdb[0] as number);
  const command = found instanceof Map ? found.get((cdb[1] as number) & 0x1f) : found;
  if (command === undefined || command.offered?.(unit) === false) return null;
  return command;
}

/** All commands of a logical unit, by operation code and service action. */
export function commandsOf(unit: LogicalUnit): CommandSpec[] {
  return allCommands().filter((command) => command.offered?.(unit) !== false);
}

/** The same of any: for the documentation. */
export function allCommands(): CommandSpec[] {
  return all().toSorted(
    (a, b) => a.opcode - b.opcode || (a.serviceAction ?? 0) - (b.serviceAction ?? 0),
  );
}
