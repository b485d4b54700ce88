import type { Timers } from '../../base/clock.ts';
import { MiB } from '../../base/units.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { OP } from '../../block/io.ts';
import type { DiskSession } from '../../durability/disk-session.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { ASC, SENSE_KEY } from './scsi.ts';
import type { ScsiTask } from './task.ts';
import { request, transfer } from './unit-io.ts';

/** What is done to every block. */
export interface SanitizeJob {
  readonly passes: number;
  /** The pattern is inverted from pass to pass. */
  readonly invert: boolean;
  /** Repeated over each block; null: the blocks are given back and read as zeroes. */
  readonly pattern: Uint8Array | null;
}

const PIECE_BYTES = 1 * MiB;
/** Giving blocks back is work on the file system's books, not on the blocks. */
const ERASE_BYTES = 256 * MiB;

/**
 * How fast it goes unless told otherwise: nobody waits for it at a keyboard, and the drive beneath is also its neighbours'.
 */
export const SANITIZE_BYTES_PER_SECOND: number = 256 * MiB;
/**
 * The least time that overwriting takes at that pace. On small disks it would be over before anybody can look how far it is;
 * libiscsi's suite looks after four seconds and two sessions.
 */
const LEAST_MS = 8000;
/** How far it may be ahead of that before it waits. */
const LEAD_MS = 10;

/**
 * Sanitizes the medium in the background [SBC-4 4.11], in a session of its own: neither an abort nor a reset nor the end of
 * the initiator's session ends it. It is over when what it has done is stable. `task`, if any, ends with it.
 */
export function startSanitize(
  unit: LogicalUnit,
  job: SanitizeJob,
  task: ScsiTask | null,
  unrestricted: boolean,
): void {
  const { medium } = unit;
  medium.sanitizing = 0;
  medium.sanitizeTask = task;
  medium.sanitizeFailed = null;
  unit.disk.openSession({ flushes: true }, (session) => {
    // Writes that were under way are done first: none of them may come after it. New ones are refused.
    const whole = { offset: 0, transferBytes: unit.blocks * unit.blockBytes };
    unit.ranges.hold(whole, true, () => {
      unit.ranges.leave(whole);
      new Sanitize(unit, job, session, (error) => {
        session.end();
        ended(unit, error, unrestricted);
      }).run();
    });
  });
}

function ended(unit: LogicalUnit, error: BlockErrorCode | null, unrestricted: boolean): void {
  const { medium } = unit;
  const task = medium.sanitizeTask;
  medium.sanitizing = null;
  medium.sanitizeTask = null;
  if (error !== null) {
    medium.sanitizeFailed = unrestricted ? 'unrestricted' : 'restricted';
    unit.options.log(`LUN ${unit.lun}: SANITIZE failed with ${error}`);
  }
  if (task === null) return;
  if (error === null) unit.finish(task);
  else unit.refuse(task, SENSE_KEY.MEDIUM_ERROR, ASC.SANITIZE_COMMAND_FAILED);
}

class Sanitize {
  readonly #unit: LogicalUnit;
  readonly #job: SanitizeJob;
  readonly #session: DiskSession;
  readonly #done: (error: BlockErrorCode | null) => void;
  readonly #bytes: number;
  readonly #piece: Uint8Array | null;
  readonly #timers: Timers;
  readonly #began: number;
  /** How long all of it takes at the pace that it may have. */
  readonly #wholeMs: number;
  #pass = 0;
  #at = 0;

  constructor(
    unit: LogicalUnit,
    job: SanitizeJob,
    session: DiskSession,
    done: (error: BlockErrorCode | null) => void,
  ) {
    this.#unit = unit;
    this.#timers = unit.options.timers as Timers;
    this.#began = this.#timers.nowMs();
    this.#job = job;
    this.#session = session;
    this.#done = done;
    this.#bytes = unit.blocks * unit.blockBytes;
    this.#piece = job.pattern === null ? null : fill(job.pattern, unit.blockBytes);
    const rate = unit.options.sanitizeBytesPerSecond;
    const writtenMs = (bytes: number): number => ((job.passes * this.#bytes) / bytes) * 1000;
    // Nothing is written to give blocks back.
    if (job.pattern === null) this.#wholeMs = 0;
    else if (rate !== undefined) this.#wholeMs = writtenMs(rate);
    else this.#wholeMs = Math.max(LEAST_MS, writtenMs(SANITIZE_BYTES_PER_SECOND));
  }

  run(): void {
    if (this.#at === this.#bytes) {
      this.#passDone();
      return;
    }
    const most = this.#piece?.length ?? ERASE_BYTES;
    const length = Math.min(most, this.#bytes - this.#at);
    const next = (error: BlockErrorCode | null): void => {
      if (error !== null) {
        this.#done(error);
        return;
      }
      this.#at += length;
      this.#unit.medium.sanitizing = this.#share();
      this.#runLater();
    };
    const piece = this.#piece?.subarray(0, length);
    if (piece === undefined) {
      request(this.#session, OP.WRITE_ZEROES, this.#at, length, 0, next);
    } else {
      transfer(this.#session, OP.WRITE, this.#at, piece, 0, next);
    }
  }

  /** How much of it is done. */
  #share(): number {
    return (this.#pass + this.#at / this.#bytes) / this.#job.passes;
  }

  /** At the pace it may have, and not from inside the completion: a device in memory completes at once. */
  #runLater(): void {
    const due = this.#began + this.#share() * this.#wholeMs;
    const wait = due - this.#timers.nowMs();
    this.#timers.after(wait > LEAD_MS ? wait : 0, () => this.run());
  }

  #passDone(): void {
    this.#pass += 1;
    // [SBC-4 4.11.3] Each pass is on the medium before the next one: in the cache it would only replace it.
    request(this.#session, OP.FLUSH, 0, 0, 0, (error) => {
      if (error !== null || this.#pass === this.#job.passes) {
        this.#done(error);
        return;
      }
      const piece = this.#piece;
      if (piece !== null && this.#job.invert) {
        for (let i = 0; i < piece.length; i += 1) piece[i] = ~(piece[i] as number);
      }
      this.#at = 0;
      this.run();
    });
  }
}

/** Whole blocks, each filled with the pattern from its start on [SBC-4 5.30.2.3]. */
function fill(pattern: Uint8Array, blockBytes: number): Uint8Array {
  const piece = new Uint8Array(Math.max(blockBytes, PIECE_BYTES));
  for (let i = 0; i < piece.length; i += 1) {
    piece[i] = pattern[(i % blockBytes) % pattern.length] as number;
  }
  return piece;
}
