import type { ReservationRule } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import type { Nexus } from './nexus.ts';

/** What a logical unit knows of who may use it. */
export interface Reservations {
  /** A logical unit that is governed by these reservations; several targets may show one. */
  attach?(unit: LogicalUnit): void;
  /** Whether a command of this nexus that stands so to reservations is to be refused. `own`: never. */
  conflicts(nexus: Nexus, rule: ReservationRule): boolean;
  /** I_T nexus loss: RESERVE (6) ends with it, registrations do not [SPC-4 5.13.1]. */
  nexusLost(nexus: Nexus): void;
  /** Logical unit reset. */
  unitReset(): void;
}
