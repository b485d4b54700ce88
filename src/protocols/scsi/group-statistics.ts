import type { Timers } from '../../base/clock.ts';
import { GROUPED, type CommandSpec } from './command.ts';
import type { ScsiTask } from './task.ts';

/** [SPC-4 7.3.7] Groups 1 to 31 have a log page each; 0 means no group, and what is above is accepted and not counted. */
export const GROUPS = 32;

/** The fields of a page in their order [SPC-4 table 383]. */
export const GROUP_FIELD = {
  READS: 0,
  WRITES: 1,
  BLOCKS_RECEIVED: 2,
  BLOCKS_TRANSMITTED: 3,
  /** Time from the begin of a command to its end. */
  READ_TIME: 4,
  WRITE_TIME: 5,
} as const;
export const GROUP_FIELDS = 6;

/** Bits of the GROUP NUMBER field [SBC-4 5.13]. */
const GROUP_NUMBER = 0x3f;
const MICROSECONDS_PER_MS = 1000;

/**
 * What commands of a logical unit have done, by their GROUP NUMBER [SBC-4 4.22]. Statistics is all that it is: no command does
 * anything else for its group, and a flush covers its blocks whoever wrote them. A command without a group costs nothing, not
 * even a look at the clock.
 */
export class GroupStatistics {
  readonly #timers: Timers | null;
  readonly #counts = new Float64Array(GROUPS * GROUP_FIELDS);

  constructor(timers: Timers | null) {
    this.#timers = timers;
  }

  /** One field of a group; times in microseconds. */
  get(group: number, field: number): number {
    return this.#counts[group * GROUP_FIELDS + field] as number;
  }

  /** A command has come that has a group number. */
  begin(task: ScsiTask, { grouped, groupByte }: CommandSpec): void {
    const group = (task.cdb[groupByte as number] as number) & GROUP_NUMBER;
    if (group === 0 || group >= GROUPS) return;
    task.group = group;
    task.groupSince = this.#now();
    this.#add(group, grouped === GROUPED.READ ? GROUP_FIELD.READS : GROUP_FIELD.WRITES, 1);
  }

  /** It is over; `blocks`: how many it has moved. */
  ended(task: ScsiTask, blocks: number): void {
    const { group, groupSince } = task;
    const took = (this.#now() - groupSince) * MICROSECONDS_PER_MS;
    if (task.command?.grouped === GROUPED.READ) {
      this.#add(group, GROUP_FIELD.BLOCKS_TRANSMITTED, blocks);
      this.#add(group, GROUP_FIELD.READ_TIME, took);
    } else {
      this.#add(group, GROUP_FIELD.BLOCKS_RECEIVED, blocks);
      this.#add(group, GROUP_FIELD.WRITE_TIME, took);
    }
  }

  #now(): number {
    return this.#timers?.nowMs() ?? 0;
  }

  #add(group: number, field: number, amount: number): void {
    const at = group * GROUP_FIELDS + field;
    this.#counts[at] = (this.#counts[at] as number) + amount;
  }
}
