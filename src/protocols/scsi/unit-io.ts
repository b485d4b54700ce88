import type { BlockErrorCode } from '../../block/errors.ts';
import { Io, OP, type Op } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import type { DiskSession } from '../../durability/disk-session.ts';

// Requests of commands that do not move data between initiator and medium as it is: few, so they may allocate.

export type Outcome = (error: BlockErrorCode | null, at: number) => void;

/** One request without data, of any length. `at`: where an error came. */
export function request(
  session: DiskSession,
  op: Op,
  offset: number,
  length: number,
  flags: number,
  done: Outcome,
): void {
  const io = new Io();
  io.reset(op, offset, length, flags);
  io.push({ ioDone: ({ error }) => done(error, offset) });
  session.submit(io);
}

/** Has a range on the medium that a command is about to read there: see DiskSession.submitImplied. */
export function impliedFlush(
  session: DiskSession,
  offset: number,
  length: number,
  done: Outcome,
): void {
  const io = new Io();
  io.reset(OP.FLUSH, offset, length, 0);
  io.push({ ioDone: ({ error }) => done(error, offset) });
  session.submitImplied(io);
}

/**
 * READ or WRITE of a whole range from and to one buffer, in pieces of what the device takes, one after the other.
 */
export function transfer(
  session: DiskSession,
  op: typeof OP.READ | typeof OP.WRITE,
  offset: number,
  bytes: Uint8Array,
  flags: number,
  done: Outcome,
): void {
  const region = Region.plain(bytes);
  const io = new Io();
  let moved = 0;
  let inside = false;
  let again = false;
  const next = (): void => {
    // A device may complete inside `submit`: a loop, so that long transfers do not grow the stack.
    if (inside) {
      again = true;
      return;
    }
    inside = true;
    do {
      again = false;
      const length = Math.min(bytes.length - moved, session.info.maxTransferBytes);
      if (length === 0) {
        done(null, offset + moved);
        return;
      }
      io.reset(op, offset + moved, length, flags);
      io.segments.push(region, moved, length);
      io.push(owner);
      session.submit(io);
    } while (again);
    inside = false;
  };
  const owner = {
    ioDone: ({ error, length }: Io): void => {
      if (error !== null) {
        done(error, offset + moved);
        return;
      }
      moved += length;
      next();
    },
  };
  next();
}

/** Runs `step` for 0, 1, ... until it is done with `count` of them or one fails. */
export function inTurn(
  count: number,
  step: (index: number, next: Outcome) => void,
  done: Outcome,
): void {
  let index = 0;
  let inside = false;
  let again = false;
  const next: Outcome = (error, at) => {
    if (error !== null) {
      done(error, at);
      return;
    }
    index += 1;
    run();
  };
  const run = (): void => {
    if (inside) {
      again = true;
      return;
    }
    inside = true;
    do {
      again = false;
      if (index === count) {
        done(null, 0);
        return;
      }
      step(index, next);
    } while (again);
    inside = false;
  };
  run();
}
