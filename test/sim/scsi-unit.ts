import type { Io } from '../../src/block/io.ts';
import type { DiskSession } from '../../src/durability/disk-session.ts';
import { LogicalUnit, type LogicalUnitOptions } from '../../src/protocols/scsi/logical-unit.ts';
import type { Nexus } from '../../src/protocols/scsi/nexus.ts';
import { TASK_ATTRIBUTE } from '../../src/protocols/scsi/scsi.ts';
import type { SenseDetails } from '../../src/protocols/scsi/sense.ts';
import type { ScsiTask, TaskOwner } from '../../src/protocols/scsi/task.ts';
import type { InitiatorClient } from './initiator-client.ts';
import type { IscsiServer } from './iscsi-server.ts';
import type { ScsiOp } from './scsi-op.ts';
import { TaggedSession, type TaskWatch } from './scsi-tags.ts';

/** A task that has come to the unit and has not ended. */
interface Entered {
  readonly op: ScsiOp;
  readonly client: InitiatorClient;
  /** The order in which tasks came. */
  readonly number: number;
}

/** The logical unit as the server has it, under the oracle's eyes: the order of tasks, and what they do to the medium. */
export class SimUnit extends LogicalUnit {
  readonly #server: IscsiServer;
  readonly #entered = new Map<ScsiTask, Entered>();
  /** The same by request, for what a command does when its task is over: nobody's then. */
  readonly #clients = new WeakMap<ScsiOp, InitiatorClient>();
  readonly #watch: TaskWatch;
  #count = 0;

  constructor(server: IscsiServer, options: LogicalUnitOptions) {
    super(options);
    this.#server = server;
    this.#watch = {
      opOf: (session) => this.#opOf(session),
      touches: (op) => this.#judgeOrder(op),
      immediateEnded: (op, io) => this.#immediateEnded(op, io),
      submit: server.faults.submit ?? null,
    };
  }

  override submit(task: ScsiTask): void {
    const client = this.#server.clientOf(task.nexus);
    const op = client.find(task.tag);
    if (op === undefined) {
      this.#server.oracle.fail(`a command with tag ${task.tag}, which no initiator has sent`);
    }
    this.#count += 1;
    this.#entered.set(task, { op, client, number: this.#count });
    this.#clients.set(op, client);
    task.owner = this.#tap(task.owner);
    super.submit(task);
  }

  override sessionOf(nexus: Nexus): DiskSession {
    return new TaggedSession(super.sessionOf(nexus), this.#watch).asSession;
  }

  override planned(task: ScsiTask): void {
    // A command that is answered at once has no task any more when it goes on.
    const session = task.session as unknown as TaggedSession;
    session.op = this.#entered.get(task)?.op ?? null;
    super.planned(task);
  }

  override finish(task: ScsiTask, status?: number): void {
    this.#entered.delete(task);
    super.finish(task, status);
  }

  override refuse(task: ScsiTask, key: number, code: number, details?: SenseDetails): false {
    this.#entered.delete(task);
    return super.refuse(task, key, code, details);
  }

  /** A reset puts the write cache back, unless somebody else switches it meanwhile, or its flush fails. */
  override reset(done: () => void): void {
    const { switches, oracle } = this.#server;
    const before = switches.count;
    super.reset(() => {
      const alone = switches.count <= before + 1 && !switches.failed;
      if (alone && this.disk.info.writeCache !== this.disk.mode.writeCache) {
        oracle.fail(`a reset leaves the write cache ${this.disk.info.writeCache ? 'on' : 'off'}`);
      }
      done();
    });
  }

  #tap(owner: TaskOwner): TaskOwner {
    return {
      taskReady: (task) => owner.taskReady(task),
      taskAborting: (task) => owner.taskAborting(task),
      taskDone: (task) => {
        const entered = this.#entered.get(task);
        this.#entered.delete(task);
        task.owner = owner;
        const { aborted } = task;
        const client = this.#server.clientOf(task.nexus);
        const op = entered?.op ?? client.find(task.tag);
        if (aborted && op !== undefined) client.dropped(op);
        owner.taskDone(task);
      },
    };
  }

  #opOf(session: TaggedSession): ScsiOp | null {
    for (const [task, { op }] of this.#entered) {
      if ((task.session as unknown as TaggedSession) === session) return op;
    }
    return null;
  }

  /** [SAM-5 8.7] ORDERED: after all that came before, and before all that comes after. HEAD OF QUEUE: before what waits. */
  #judgeOrder(op: ScsiOp): void {
    const { ORDERED, HEAD_OF_QUEUE } = TASK_ATTRIBUTE;
    if (op.attribute === HEAD_OF_QUEUE) return;
    let own = 0;
    for (const entered of this.#entered.values()) if (entered.op === op) own = entered.number;
    for (const { op: other, number } of this.#entered.values()) {
      if (number >= own) continue;
      const ordered = op.attribute === ORDERED || other.attribute === ORDERED;
      if (!ordered && other.attribute !== HEAD_OF_QUEUE) continue;
      this.#server.oracle.fail(
        `order: ${op.text} begins, and ${other.text}, which came before it, has not ended`,
      );
    }
  }

  #immediateEnded(op: ScsiOp, io: Io): void {
    if (io.error === null) return;
    const { oracle } = this.#server;
    oracle.immediateEnded(op, io.error === 'EIO');
    const client = this.#clients.get(op);
    if (client !== undefined && client.session.goneAt === Infinity) client.owes('deferred error');
  }
}
