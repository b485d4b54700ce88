import type { BlockErrorCode } from '../../block/errors.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { absentUnit } from './absent-unit.ts';
import type { Nexus } from './nexus.ts';
import { ASC, SERVICE_RESPONSE, type ServiceResponse, TMF, type Tmf } from './scsi.ts';
import type { ScsiTask } from './task.ts';

/**
 * A SCSI target device [SAM-5 4.6.5] for any transport: logical units by number, the nexuses to it, commands and task
 * management. All calls come from the data plane's thread.
 */
export class ScsiTarget {
  /** [SPC-4 7.8.6.10] SCSI name string of the target device, an iSCSI name with iSCSI. */
  readonly name: string;
  /**
   * [SPC-4 3.1.132] Relative target port identifier of its one port: another one for each target that shows the same disk, for a
   * registration is that of an initiator port at a target port.
   */
  readonly relativePort: number;
  readonly units = new Map<number, LogicalUnit>();
  readonly nexuses = new Set<Nexus>();

  constructor(name: string, relativePort = 1) {
    this.name = name;
    this.relativePort = relativePort;
  }

  addUnit(unit: LogicalUnit): void {
    unit.target = this;
    this.units.set(unit.lun, unit);
    for (const other of this.units.values()) {
      if (other !== unit) other.attentions.establish(ASC.REPORTED_LUNS_DATA_HAS_CHANGED);
    }
  }

  /** A login is done. `ready` when commands may come: what earlier sessions left behind is finished (P11). */
  openNexus(nexus: Nexus, ready: () => void): void {
    this.nexuses.add(nexus);
    let left = this.units.size + 1;
    const one = (): void => {
      left -= 1;
      if (left === 0) ready();
    };
    for (const unit of this.units.values()) unit.openNexus(nexus, one);
    one();
  }

  /** The session has ended. `done` when none of its commands is under way any more. */
  closeNexus(nexus: Nexus, done: () => void): void {
    this.nexuses.delete(nexus);
    this.#forAll((unit, one) => unit.closeNexus(nexus, one), done);
  }

  /** A command [SAM-5 5.1]. Its owner hears of it, perhaps before this returns. */
  submit(task: ScsiTask): void {
    const unit = this.units.get(task.lun);
    if (unit === undefined) absentUnit(this, task);
    else unit.submit(task);
  }

  /** See TaskOwner.taskReady. */
  execute(task: ScsiTask): void {
    this.#unitOf(task).execute(task);
  }

  /** See TaskOwner.taskReady. `at`: the byte of the medium where `error` came. */
  transferred(task: ScsiTask, error: BlockErrorCode | null, at = 0): void {
    this.#unitOf(task).transferred(task, error, at);
  }

  /** Task management [SAM-5 7]. `done` when what was to end has ended. */
  manage(
    nexus: Nexus,
    tmf: Tmf,
    lun: number,
    tag: number,
    done: (response: ServiceResponse) => void,
  ): void {
    const { FUNCTION_COMPLETE, FUNCTION_SUCCEEDED, FUNCTION_REJECTED } = SERVICE_RESPONSE;
    const unit = this.units.get(lun);
    if (unit === undefined) {
      done(SERVICE_RESPONSE.INCORRECT_LOGICAL_UNIT_NUMBER);
      return;
    }
    const complete = (): void => done(FUNCTION_COMPLETE);
    switch (tmf) {
      case TMF.ABORT_TASK:
        unit.abortTasks((task) => task.nexus === nexus && task.tag === tag, complete);
        break;
      case TMF.ABORT_TASK_SET:
        unit.abortTasks((task) => task.nexus === nexus, complete);
        break;
      case TMF.CLEAR_TASK_SET:
        this.#clear(unit, nexus, complete);
        break;
      case TMF.LOGICAL_UNIT_RESET:
        unit.reset(complete);
        break;
      case TMF.QUERY_TASK:
        done(unit.tasks.find(nexus, tag) === null ? FUNCTION_COMPLETE : FUNCTION_SUCCEEDED);
        break;
      case TMF.QUERY_TASK_SET:
        done(unit.tasks.has(nexus) ? FUNCTION_SUCCEEDED : FUNCTION_COMPLETE);
        break;
      case TMF.QUERY_ASYNCHRONOUS_EVENT:
        done(unit.attentions.has(nexus) ? FUNCTION_SUCCEEDED : FUNCTION_COMPLETE);
        break;
      case TMF.CLEAR_ACA:
      case TMF.I_T_NEXUS_RESET:
        // No ACA (NORMACA is 0); an iSCSI nexus is reset by ending its session.
        done(FUNCTION_REJECTED);
        break;
      default:
        done(FUNCTION_REJECTED);
    }
  }

  /** All units are reset: iSCSI's TARGET WARM RESET and TARGET COLD RESET [RFC 7143 11.5.1]. */
  reset(done: () => void): void {
    this.#forAll((unit, one) => unit.reset(one), done);
  }

  /** [SAM-5 7.5] The tasks of all nexuses; the others hear that theirs were cleared. */
  #clear(unit: LogicalUnit, nexus: Nexus, done: () => void): void {
    const hit = new Set<Nexus>();
    unit.abortTasks((task) => {
      if (task.nexus !== nexus) hit.add(task.nexus);
      return true;
    }, done);
    for (const other of hit) {
      unit.attentions.establishFor(other, ASC.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR);
    }
  }

  #unitOf(task: ScsiTask): LogicalUnit {
    return this.units.get(task.lun) as LogicalUnit;
  }

  #forAll(each: (unit: LogicalUnit, one: () => void) => void, done: () => void): void {
    let left = this.units.size + 1;
    const one = (): void => {
      left -= 1;
      if (left === 0) done();
    };
    for (const unit of this.units.values()) each(unit, one);
    one();
  }
}
