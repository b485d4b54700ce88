import { SERVICE_RESPONSE, type ServiceResponse, TMF as SCSI_TMF, type Tmf } from '../scsi/scsi.ts';
import { PHASE } from './command-record.ts';
import type { Commands } from './commands.ts';
import { type PduSender, STAT_SN } from './pdu-sender.ts';
import type { IscsiSession } from './session.ts';
import {
  FIELD,
  flagsOf,
  initiatorTaskTag,
  readLun,
  serialLess,
  TMF,
  TMF_RESPONSE,
  writeTmfResponse,
} from './wire.ts';

export interface TaskManagementHost {
  progress(): void;
  /** A command that has not come yet is to be taken for one that has [RFC 7143 11.5.1]. True: it was still to come. */
  skip(cmdSn: number, itt: number): boolean;
  /** Commands of a LUN (null: all) before this one, which came early and have not been taken, are not done. */
  skipAll(cmdSn: number, lun: number | null): void;
  /** All is said: the connection ends. */
  leave(): void;
}

/** Without an answer of the SCSI target's own. */
const OF_SCSI: Readonly<Record<ServiceResponse, number>> = {
  [SERVICE_RESPONSE.FUNCTION_COMPLETE]: TMF_RESPONSE.FUNCTION_COMPLETE,
  [SERVICE_RESPONSE.FUNCTION_SUCCEEDED]: TMF_RESPONSE.FUNCTION_SUCCEEDED,
  [SERVICE_RESPONSE.FUNCTION_REJECTED]: TMF_RESPONSE.FUNCTION_REJECTED,
  [SERVICE_RESPONSE.INCORRECT_LOGICAL_UNIT_NUMBER]: TMF_RESPONSE.LUN_DOES_NOT_EXIST,
};

/** The function's number in SCSI. [RFC 7143 11.5.1, RFC 7144 4.1] */
const TO_SCSI: Readonly<Record<number, Tmf>> = {
  [TMF.ABORT_TASK_SET]: SCSI_TMF.ABORT_TASK_SET,
  [TMF.CLEAR_ACA]: SCSI_TMF.CLEAR_ACA,
  [TMF.CLEAR_TASK_SET]: SCSI_TMF.CLEAR_TASK_SET,
  [TMF.LOGICAL_UNIT_RESET]: SCSI_TMF.LOGICAL_UNIT_RESET,
  [TMF.QUERY_TASK_SET]: SCSI_TMF.QUERY_TASK_SET,
  [TMF.QUERY_ASYNCHRONOUS_EVENT]: SCSI_TMF.QUERY_ASYNCHRONOUS_EVENT,
};

/**
 * Task management function requests of a session [RFC 7143 11.5]. Each is answered when all that it affects has
 * ended: no response of an affected command comes after the function's own, and nothing of it touches the disk any
 * more.
 */
export class TaskManagement {
  readonly #session: IscsiSession;
  readonly #commands: Commands;
  readonly #sender: PduSender;
  readonly #host: TaskManagementHost;
  /** Functions under way. */
  count = 0;
  #gone = false;

  constructor(
    session: IscsiSession,
    commands: Commands,
    sender: PduSender,
    host: TaskManagementHost,
  ) {
    this.#session = session;
    this.#commands = commands;
    this.#sender = sender;
    this.#host = host;
  }

  /** The connection is gone: nobody is answered any more. */
  dispose(): void {
    this.#gone = true;
  }

  /** Takes a request. `view` is the caller's for no longer than the call. */
  begin(view: DataView, at: number): void {
    const itt = initiatorTaskTag(view, at);
    const tmf = flagsOf(view, at) & 0x7f;
    const lun = readLun(view, at);
    const tag = view.getUint32(at + FIELD.REFERENCED_TASK_TAG);
    const cmdSn = view.getUint32(at + FIELD.CMD_SN);
    const refCmdSn = view.getUint32(at + FIELD.REF_CMD_SN);
    this.count += 1;
    // In its turn: what came before it may still wait for the session to open.
    this.#session.whenReady(() => this.#run(tmf, { itt, lun, tag, cmdSn, refCmdSn }));
  }

  #run(tmf: number, request: Request): void {
    const { itt, lun, tag } = request;
    const { scsi, nexus } = this.#session;
    if (nexus === null) return;
    const answer = (response: number): void => this.#answer(itt, response);
    const told = (response: ServiceResponse): void => answer(OF_SCSI[response]);
    const query = tmf >= TMF.QUERY_TASK;
    if (query && this.#session.parameters.protocolLevel < 2) {
      answer(TMF_RESPONSE.FUNCTION_NOT_SUPPORTED);
      return;
    }
    const scsiTmf = TO_SCSI[tmf];
    if (scsiTmf !== undefined) {
      // What has come early, or has ended and not been answered, gets no answer after the function's.
      if (!query) this.#dropBefore(request.cmdSn, lun);
      scsi.manage(nexus, scsiTmf, lun, tag, told);
      return;
    }
    switch (tmf) {
      case TMF.ABORT_TASK:
        this.#abort(request);
        break;
      case TMF.QUERY_TASK:
        this.#query(request);
        break;
      case TMF.TARGET_WARM_RESET:
      case TMF.TARGET_COLD_RESET:
        this.#dropBefore(request.cmdSn, null);
        scsi.reset(() => {
          answer(TMF_RESPONSE.FUNCTION_COMPLETE);
          if (tmf === TMF.TARGET_COLD_RESET) this.#coldReset();
        });
        break;
      case TMF.TASK_REASSIGN:
        // [RFC 7143 11.6.1] Only from error recovery level 2 on.
        answer(TMF_RESPONSE.TASK_ALLEGIANCE_REASSIGNMENT_NOT_SUPPORTED);
        break;
      default:
        answer(TMF_RESPONSE.FUNCTION_NOT_SUPPORTED);
    }
  }

  #abort({ itt, lun, tag, cmdSn, refCmdSn }: Request): void {
    const record = this.#commands.find(tag);
    const { nexus, scsi } = this.#session;
    if (record === null || nexus === null) {
      // [RFC 7143 11.5.1] Not there yet: it is taken for received, and never done.
      const ahead = serialLess(refCmdSn, cmdSn) && this.#session.placeOf(refCmdSn) >= 0;
      const skipped = ahead && this.#host.skip(refCmdSn, tag);
      const { FUNCTION_COMPLETE, TASK_DOES_NOT_EXIST } = TMF_RESPONSE;
      this.#answer(itt, skipped ? FUNCTION_COMPLETE : TASK_DOES_NOT_EXIST);
    } else if (record.task.lun !== lun) {
      this.#answer(itt, TMF_RESPONSE.TASK_DOES_NOT_EXIST);
    } else if (record.phase === PHASE.ENDED) {
      this.#commands.drop(record);
      this.#answer(itt, TMF_RESPONSE.FUNCTION_COMPLETE);
    } else {
      scsi.manage(nexus, SCSI_TMF.ABORT_TASK, lun, tag, (response) => {
        this.#answer(itt, OF_SCSI[response]);
      });
    }
  }

  #query({ itt, lun, tag }: Request): void {
    const record = this.#commands.find(tag);
    const there = record !== null && record.task.lun === lun;
    const { FUNCTION_SUCCEEDED, FUNCTION_COMPLETE } = TMF_RESPONSE;
    this.#answer(itt, there ? FUNCTION_SUCCEEDED : FUNCTION_COMPLETE);
  }

  #dropBefore(cmdSn: number, lun: number | null): void {
    this.#commands.dropEnded(lun);
    this.#host.skipAll(cmdSn, lun);
  }

  /** [RFC 7143 11.5.1] All sessions with the target end, the one that asked when it has its answer. */
  #coldReset(): void {
    const { table, target } = this.#session;
    table.dropAll(target, this.#session, 'a cold reset of the target');
    if (!this.#gone) this.#host.leave();
  }

  #answer(itt: number, response: number): void {
    this.count -= 1;
    if (this.#gone) return;
    this.#sender.open(0);
    writeTmfResponse(this.#sender.view, this.#sender.at, itt, response);
    this.#sender.close(STAT_SN.OWN);
    this.#host.progress();
  }
}

interface Request {
  readonly itt: number;
  readonly lun: number;
  readonly tag: number;
  readonly cmdSn: number;
  readonly refCmdSn: number;
}
