import { type Io, OP } from '../../src/block/io.ts';
import type { DeviceInfo } from '../../src/block/device.ts';
import type { DiskSession } from '../../src/durability/disk-session.ts';
import type { LogicalUnit } from '../../src/protocols/scsi/logical-unit.ts';
import type { ScsiOp } from './scsi-op.ts';

const TAGS = new WeakMap<Io, number>();

/** The number of the initiator's request that an Io is part of; undefined: it is none of a SCSI command. */
export function scsiOpOf(io: Io): number | undefined {
  return TAGS.get(io);
}

/** Whom the session of a task tells of what the task does. */
export interface TaskWatch {
  /** Which command this session was made for: known when its first request comes. */
  opOf(session: TaggedSession): ScsiOp | null;
  /** The command is about to read or to change the medium. */
  touches(op: ScsiOp): void;
  /** A flush that has been answered already has ended. */
  immediateEnded(op: ScsiOp, io: Io): void;
  /** In place of `submit`, for a mistake that is put in. */
  readonly submit: ((io: Io, op: ScsiOp, submit: (io: Io) => void) => void) | null;
}

/**
 * One command's view of its nexus' DiskSession: what it submits is known by the number of the initiator's request down to
 * the store.
 */
export class TaggedSession {
  op: ScsiOp | null = null;
  readonly #session: DiskSession;
  readonly #watch: TaskWatch;

  constructor(session: DiskSession, watch: TaskWatch) {
    this.#session = session;
    this.#watch = watch;
  }

  /** As a logical unit takes it: of a session commands use nothing but this. */
  get asSession(): ReturnType<LogicalUnit['sessionOf']> {
    return this as unknown as DiskSession;
  }

  get info(): DeviceInfo {
    return this.#session.info;
  }

  submit(io: Io): void {
    this.#submit(io, (made) => this.#session.submit(made));
  }

  submitImplied(io: Io): void {
    this.#submit(io, (made) => this.#session.submitImplied(made));
  }

  #submit(io: Io, submit: (io: Io) => void): void {
    this.op ??= this.#watch.opOf(this);
    const { op } = this;
    if (op === null) {
      submit(io);
      return;
    }
    TAGS.set(io, op.id);
    if (io.op === OP.FLUSH && op.immediate) {
      io.push({
        ioDone: (done) => {
          this.#watch.immediateEnded(op, done);
          done.complete(done.error);
        },
      });
    } else this.#watch.touches(op);
    if (this.#watch.submit === null) submit(io);
    else this.#watch.submit(io, op, submit);
  }
}
