import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { PersistentReservations } from '../persistent-reservations.ts';
import { STATUS } from '../scsi.ts';
import type { ScsiTask } from '../task.ts';

// RESERVE (6) and RELEASE (6) [SPC-2 7.21, 7.16]: of the whole logical unit, for the nexus that asks. Third parties and
// extents are obsolete, and refused.

function command(
  name: string,
  opcode: number,
  section: string,
  act: (reservations: PersistentReservations, task: ScsiTask) => boolean,
): CommandSpec {
  return {
    name,
    section,
    opcode,
    cdbBytes: 6,
    usage: [opcode, 0, 0, 0, 0, 0x04],
    reservation: 'own',
    offered: (unit) => unit.reservations instanceof PersistentReservations,
    plan: () => true,
    execute: (unit: LogicalUnit, task) => {
      const done = act(unit.reservations as PersistentReservations, task);
      unit.finish(task, done ? STATUS.GOOD : STATUS.RESERVATION_CONFLICT);
    },
  };
}

export const RESERVE_COMMANDS: readonly CommandSpec[] = [
  command('RESERVE (6)', 0x16, 'SPC-2 7.21', (held, { nexus }) => held.reserve(nexus)),
  command('RELEASE (6)', 0x17, 'SPC-2 7.16', (held, { nexus }) => held.release(nexus)),
];
