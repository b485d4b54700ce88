import { TASK_ATTRIBUTE, type TaskAttribute } from '../../src/protocols/scsi/scsi.ts';
import { type Kind, Op, type OracleSession } from './ops.ts';

/** What is done to the medium or to the unit, beyond what the kind of request says. */
export type ScsiRole = 'blocks' | 'same' | 'unmap' | 'compare' | 'sense' | 'select';

/** A SCSI command of a simulated initiator. */
export class ScsiOp extends Op {
  readonly role: ScsiRole;
  attribute: TaskAttribute = TASK_ATTRIBUTE.SIMPLE;
  /** COMPARE AND WRITE: the contents it expects, by sector. */
  expected: readonly number[] = [];
  /** MODE SELECT: the write cache is to be on. */
  on = false;
  itt = 0;
  /** Its PDU has been sent. */
  sent = false;
  /** A task management function has ended it: it is never answered. */
  dropped = false;

  constructor(
    id: number,
    kind: Kind,
    role: ScsiRole,
    session: OracleSession,
    [first, sectors]: readonly [number, number],
    fua: boolean,
  ) {
    super(id, kind, session, first, sectors, fua);
    this.role = role;
    this.streamed = true;
  }

  override get text(): string {
    const order = { [TASK_ATTRIBUTE.ORDERED]: ' ORDERED', [TASK_ATTRIBUTE.HEAD_OF_QUEUE]: ' HEAD' };
    const attribute = (order as Partial<Record<TaskAttribute, string>>)[this.attribute] ?? '';
    const immediate = this.immediate ? ' IMMED' : '';
    return `${this.role}:${super.text}${attribute}${immediate}`;
  }
}
