import { assert } from '../../base/assert.ts';
import type { Timers } from '../../base/clock.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import type { DeviceInfo } from '../../block/device.ts';
import type { Disk } from '../../durability/disk.ts';
import type { DiskSession } from '../../durability/disk-session.ts';
import { Attentions } from './attentions.ts';
import type { CommandSpec, ReservationRule } from './command.ts';
import { CopyRecords } from './copy-records.ts';
import { toldOf } from './errors.ts';
import { GroupStatistics } from './group-statistics.ts';
import { Medium } from './medium.ts';
import { ModeParameters } from './mode-parameters.ts';
import type { Nexus } from './nexus.ts';
import { RangeGate } from './range-gate.ts';
import { findCommand, hasServiceActions } from './registry.ts';
import type { Reservations } from './reservations.ts';
import { ASC, SENSE_KEY, STATUS } from './scsi.ts';
import { type SenseDetails, senseData } from './sense.ts';
import type { ScsiTarget } from './target.ts';
import { TRANSFER, type ScsiTask } from './task.ts';
import { TaskSet } from './task-set.ts';

export interface LogicalUnitOptions {
  readonly lun: number;
  readonly disk: Disk;
  /** [SPC-4 6.6] T10 VENDOR IDENTIFICATION (8 characters), PRODUCT IDENTIFICATION (16), PRODUCT REVISION LEVEL (4). */
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
  /** Unit serial number: printable ASCII. */
  readonly serial: string;
  /** [SPC-4 7.8.6.6] an NAA designator, 8 or 16 bytes; the same for all targets that show this disk. */
  readonly naa: Uint8Array;
  /** RMB: the medium can be ejected and loaded. */
  readonly removable: boolean;
  /** LBPME: the disk is thinly provisioned; UNMAP and WRITE SAME with UNMAP are offered. */
  readonly thin: boolean;
  /** Persistent reservations, kept where APTPL says they outlive a restart. */
  readonly reservations: Reservations;
  readonly log: (line: string) => void;
  /**
   * How many blocks of one write are all old or all new whatever happens, loss of power included (P12); 0, as when left out:
   * WRITE ATOMIC is not offered.
   */
  readonly atomicBlocks?: number;
  /** For what goes on in the background: without them SANITIZE is not offered. */
  readonly timers?: Timers;
  /** The most that SANITIZE writes; unless given SANITIZE_BYTES_PER_SECOND, and never so fast that nobody sees it. */
  readonly sanitizeBytesPerSecond?: number;
}

/** One logical unit: a disk, and what all initiators of it share [SAM-5 4.6.8]. */
export class LogicalUnit {
  readonly lun: number;
  readonly disk: Disk;
  readonly options: LogicalUnitOptions;
  readonly attentions: Attentions = new Attentions();
  readonly modes: ModeParameters = new ModeParameters();
  readonly medium: Medium = new Medium();
  readonly reservations: Reservations;
  /** EXTENDED COPY commands that came to this unit. */
  readonly copies: CopyRecords = new CopyRecords();
  readonly groups: GroupStatistics;
  readonly tasks: TaskSet;
  /** Every command that changes blocks is in it from its plan to its end. */
  readonly ranges: RangeGate = new RangeGate((task) => this.planned(task));
  /** Set by ScsiTarget.addUnit. */
  target!: ScsiTarget;
  /** Who is switching the write cache: the others are told, it is not. */
  switching: Nexus | null = null;
  #shown: DeviceInfo;

  constructor(options: LogicalUnitOptions) {
    this.lun = options.lun;
    this.disk = options.disk;
    this.options = options;
    this.reservations = options.reservations;
    this.groups = new GroupStatistics(options.timers ?? null);
    this.tasks = new TaskSet((task) => this.#begin(task));
    this.#shown = options.disk.info;
    this.reservations.attach?.(this);
    options.disk.onInfoChange((info) => this.#infoChanged(info));
  }

  /** Bytes of one logical block. */
  get blockBytes(): number {
    return Math.max(512, this.disk.info.blockBytes);
  }

  get blocks(): number {
    return Math.floor(this.disk.info.sizeBytes / this.blockBytes);
  }

  get writeProtected(): boolean {
    return this.disk.info.readOnly || this.modes.softwareWriteProtect;
  }

  /** For ScsiTarget. */
  openNexus(nexus: Nexus, ready: () => void): void {
    // [SAM-5 5.14.3] A nexus that is new to the unit hears of the power on that it has not seen.
    this.attentions.open(nexus, ASC.POWER_ON_OCCURRED);
    // The initiator can always flush, and sees WCE in the Caching mode page (P9).
    this.disk.openSession({ flushes: true, peer: nexus.peer }, (session) => {
      // It may have seen it long ago: initiators live over a restart of the server, which puts WCE back, and do not look again.
      session.cacheBelief = 'doubtful';
      nexus.sessions.set(this.lun, session);
      ready();
    });
  }

  /** I_T nexus loss [SAM-5 6.3.4]: ends its tasks, then its session. `done` when nothing of it is under way. */
  closeNexus(nexus: Nexus, done: () => void): void {
    // First: from here on nobody gets a session of the disk before what is under way has ended (P11).
    nexus.sessions.get(this.lun)?.end();
    this.abortTasks(
      (task) => task.nexus === nexus,
      () => {
        nexus.sessions.delete(this.lun);
        this.attentions.close(nexus);
        this.copies.close(nexus);
        this.medium.preventers.delete(nexus);
        this.reservations.nexusLost(nexus);
        done();
      },
    );
  }

  /** See TaskSet.abort. */
  abortTasks(fits: (task: ScsiTask) => boolean, done: () => void): void {
    this.tasks.abort(
      fits,
      {
        end: (task) => task.owner.taskDone(task),
        // A command that is with the device ends by itself.
        abort: (task) => {
          if (task.begun) task.owner.taskAborting(task);
          else task.command?.aborting?.(this, task);
        },
      },
      done,
    );
  }

  /** [SAM-5 6.3.3] Ends all tasks, and puts the unit back as it was at first; what is persistent stays. */
  reset(done: () => void): void {
    this.abortTasks(
      () => true,
      () => {
        this.modes.reset();
        this.medium.preventers.clear();
        this.copies.clear();
        this.reservations.unitReset();
        this.attentions.establish(ASC.BUS_DEVICE_RESET_FUNCTION_OCCURRED);
        this.disk.restoreWriteCache((error) => {
          if (error !== null && error !== 'EOPNOTSUPP' && error !== 'ECANCELED') {
            this.options.log(`LUN ${this.lun}: the write cache could not be set back: ${error}`);
          }
          done();
        });
      },
    );
  }

  /** For ScsiTarget: takes a task in. */
  submit(task: ScsiTask): void {
    this.tasks.add(task);
  }

  /** The plan of a task is made: it is the transport's turn. */
  planned(task: ScsiTask): void {
    if (task.aborted) {
      this.finish(task);
      return;
    }
    task.begun = true;
    task.owner.taskReady(task);
  }

  /** For ScsiTarget: the transport has collected what the command takes. */
  execute(task: ScsiTask): void {
    task.begun = false;
    const { execute, needsMedium } = task.command as CommandSpec;
    if (task.aborted || execute === undefined) this.finish(task);
    // It may have gone while parameters were collected.
    else if (needsMedium !== true || this.hasMedium(task)) execute(this, task);
  }

  /** For ScsiTarget: the transport has moved the data, or failed with `error` at byte `at` of the medium. */
  transferred(task: ScsiTask, error: BlockErrorCode | null, at: number): void {
    task.begun = false;
    if (error !== null) this.fail(task, error, at);
    else this.execute(task);
  }

  /** Ends a task well. */
  finish(task: ScsiTask, status: number = STATUS.GOOD): void {
    task.status = status;
    this.#end(task);
  }

  /** Ends a task with CHECK CONDITION. Returns false, for `plan`. */
  refuse(task: ScsiTask, key: number, code: number, details?: SenseDetails): false {
    task.status = STATUS.CHECK_CONDITION;
    task.sense = senseData(this.modes.descriptorSense, key, code, details);
    this.#end(task);
    return false;
  }

  /** INVALID FIELD IN CDB, with the field. */
  refuseField(task: ScsiTask, byte: number, bit?: number): false {
    const field = bit === undefined ? { inCdb: true, byte } : { inCdb: true, byte, bit };
    return this.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.INVALID_FIELD_IN_CDB, { field });
  }

  /** INVALID FIELD IN PARAMETER LIST, with the field. */
  refuseParameter(task: ScsiTask, byte: number, bit?: number): false {
    const field = bit === undefined ? { inCdb: false, byte } : { inCdb: false, byte, bit };
    const code = ASC.INVALID_FIELD_IN_PARAMETER_LIST;
    return this.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, code, { field });
  }

  /** The disk failed it, at byte `at`; `reading`: a READ did. */
  fail(
    task: ScsiTask,
    error: BlockErrorCode,
    at = 0,
    reading: boolean = task.transfer === TRANSFER.READ,
  ): void {
    const told = toldOf(error, reading);
    if (told.status !== STATUS.CHECK_CONDITION) {
      this.finish(task, told.status);
      return;
    }
    const information = Math.floor(at / this.blockBytes);
    this.refuse(task, told.key, told.code, { information });
  }

  /** False: the command conflicts with another nexus' reservation, and has ended so. */
  respectsReservation(task: ScsiTask, rule: ReservationRule): boolean {
    if (!this.reservations.conflicts(task.nexus, rule)) return true;
    this.finish(task, STATUS.RESERVATION_CONFLICT);
    return false;
  }

  /** False: the medium cannot be used now, and the command has ended so. */
  hasMedium(task: ScsiTask): boolean {
    const { obstacle, sanitizing } = this.medium;
    if (obstacle === null) return true;
    if (this.medium.loaded && task.command?.duringSanitize?.(task.cdb) === true) return true;
    const { key, code } = obstacle;
    return this.refuse(task, key, code, sanitizing === null ? {} : { progress: sanitizing });
  }

  /** The nexus' own way to the disk. */
  sessionOf(nexus: Nexus): DiskSession {
    const session = nexus.sessions.get(this.lun);
    assert(session !== undefined, 'a command of a nexus that is not open');
    return session;
  }

  /** The initiator knows how the write cache is: it was shown the page, or has set it. */
  toldWriteCache(nexus: Nexus, enabled: boolean): void {
    const session = nexus.sessions.get(this.lun);
    if (session !== undefined) session.cacheBelief = enabled ? 'on' : 'off';
  }

  #end(task: ScsiTask): void {
    task.begun = false;
    if (task.command?.writes === true) this.ranges.leave(task);
    if (task.group !== 0) this.#endGrouped(task);
    this.tasks.ended(task, tellOwner);
  }

  /** Blocks count when all of them have been moved. */
  #endGrouped(task: ScsiTask): void {
    const moved = task.transfer !== TRANSFER.WHOLE && task.status === STATUS.GOOD && !task.aborted;
    this.groups.ended(task, moved ? task.transferBytes / this.blockBytes : 0);
  }

  /** The task is enabled: everything that may stand against it, in the order of precedence, then its plan. */
  #begin(task: ScsiTask): void {
    task.session = this.sessionOf(task.nexus);
    const command = findCommand(this, task.cdb);
    task.command = command;
    if (command?.grouped !== undefined) this.groups.begin(task, command);
    if (this.#attention(task, command)) return;
    if (command === null) {
      this.#refuseUnknown(task);
      return;
    }
    // An extended CDB behind one of a fixed length: none of ours is longer than the task holds.
    if (task.cdbBytes > task.cdb.length) {
      this.refuseField(task, task.cdb.length);
      return;
    }
    const wrong = wrongBit(command, task.cdb);
    if (wrong >= 0) {
      this.refuseField(task, wrong >> 3, wrong & 7);
      return;
    }
    if (!this.respectsReservation(task, command.reservation)) return;
    if (command.needsMedium === true && !this.hasMedium(task)) return;
    if (command.writes === true && this.writeProtected) {
      const code = this.disk.info.readOnly ? ASC.WRITE_PROTECTED : ASC.SOFTWARE_WRITE_PROTECTED;
      this.refuse(task, SENSE_KEY.DATA_PROTECT, code);
      return;
    }
    if (command.plan(this, task)) this.planned(task);
  }

  #refuseUnknown(task: ScsiTask): void {
    // [SPC-4 4.3.4] A service action that is not there is a field like others.
    if (hasServiceActions(task.cdb[0] as number)) this.refuseField(task, 1, 4);
    else this.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.INVALID_COMMAND_OPERATION_CODE);
  }

  /** Whether a condition was reported in the place of the command [SAM-5 5.14.1, SPC-4 4.5.5]. */
  #attention(task: ScsiTask, command: CommandSpec | null): boolean {
    if (!this.attentions.has(task.nexus) || command?.despiteUnitAttention === true) return false;
    const deferred = this.attentions.takeDeferred(task.nexus);
    if (deferred !== null) {
      this.refuse(task, deferred.key, deferred.code, { deferred: true });
      return true;
    }
    const code = this.attentions.take(task.nexus);
    if (code === null) return false;
    this.refuse(task, SENSE_KEY.UNIT_ATTENTION, code);
    return true;
  }

  #infoChanged(info: DeviceInfo): void {
    const before = this.#shown;
    this.#shown = info;
    if (info.writeCache !== before.writeCache) {
      this.attentions.establish(ASC.MODE_PARAMETERS_CHANGED, this.switching);
      if (info.writeCache) this.#switchedOn();
    }
    if (info.sizeBytes !== before.sizeBytes) {
      this.attentions.establish(ASC.CAPACITY_DATA_HAS_CHANGED);
    }
  }

  /** Whoever was told that it is off is told now, but not everybody listens. */
  #switchedOn(): void {
    for (const nexus of this.target.nexuses) {
      const session = nexus.sessions.get(this.lun);
      if (session?.cacheBelief === 'off') session.cacheBelief = 'doubtful';
    }
  }
}

function tellOwner(task: ScsiTask): void {
  task.owner.taskDone(task);
}

/** NACA in the CONTROL byte, the last one: there is no ACA (NORMACA 0), so it must be 0 [SAM-5 5.2]. */
const NACA = 0x04;

/** The first bit of the CDB that must not be set, as 8 * byte + bit; -1 when there is none. */
function wrongBit({ usage, cdbBytes }: CommandSpec, cdb: Uint8Array): number {
  for (let i = 1; i < usage.length; i += 1) {
    const extra = (cdb[i] as number) & ~(usage[i] as number);
    if (extra !== 0) return i * 8 + (31 - Math.clz32(extra));
  }
  return ((cdb[cdbBytes - 1] as number) & NACA) === 0 ? -1 : (cdbBytes - 1) * 8 + 2;
}
