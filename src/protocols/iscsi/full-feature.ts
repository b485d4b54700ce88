import { Region } from '../../block/memory.ts';
import type { Inbox } from '../../reactor/inbox.ts';
import type { Outbox } from '../../reactor/outbox.ts';
import type { Page, PagePool } from '../../reactor/page-pool.ts';
import type { CommandRecord } from './command-record.ts';
import { Commands } from './commands.ts';
import type { IscsiNode } from './node.ts';
import { type KeptPdu, ParkedRequests } from './parked-requests.ts';
import { type Lack, PduReader } from './pdu-reader.ts';
import { PduSender, STAT_SN } from './pdu-sender.ts';
import { Requests } from './requests.ts';
import type { IscsiSession } from './session.ts';
import {
  DATA_OUT_TIMEOUT_MS,
  LOGOUT_TIMEOUT_MS,
  MAX_TASK_MANAGEMENT,
  PING_AFTER_MS,
  SILENCE_TIMEOUT_MS,
} from './session-limits.ts';
import { TaskManagement } from './task-management.ts';
import {
  ASYNC_EVENT,
  BHS_BYTES,
  dataSegmentLength,
  FIELD,
  initiatorTaskTag,
  isFinal,
  isImmediate,
  ISCSI_OP,
  opcodeOf,
  readLun,
  REJECT,
  RESERVED_TAG,
  serialDistance,
  writeAsyncMessage,
  writeNopIn,
  writeReject,
} from './wire.ts';

/** What the full feature phase tells its connection. All calls may come inside `advance` or at any completion. */
export interface FullFeatureHost {
  readonly nowMs: number;
  /** Something has been said, or what `advance` waited for may be there now. */
  progress(): void;
  /** Nothing more will be understood: the initiator has logged out (null), or broke the protocol in this way. */
  over(reason: string | null): void;
}

const NO_DATA = new Uint8Array(0);

/**
 * The full feature phase of one connection [RFC 7143 4.2.5], without sockets and timers: PDUs are understood where
 * they arrived and put in the order of their CmdSN, answers are laid into the outbox.
 */
export class FullFeature {
  readonly #session: IscsiSession;
  readonly #outbox: Outbox;
  readonly #pool: PagePool;
  readonly #host: FullFeatureHost;
  readonly #reader: PduReader;
  readonly #sender: PduSender;
  readonly #commands: Commands;
  readonly #tasks: TaskManagement;
  readonly #requests: Requests;
  readonly #parked = new ParkedRequests();
  #gone = false;
  /** MaxCmdSN may have grown without an answer that says so. */
  #windowGrew = false;
  #heardMs: number;
  /** A NOP-In of ours has not been answered. */
  #pinged = false;
  #nextPing = 0;

  // The PDU that is arriving.
  #command: CommandRecord | null = null;
  #isDataOut = false;
  #kept: KeptPdu | null = null;
  #parking = false;
  #final = false;
  /** It took a place in the order of commands. */
  #ordered = false;

  constructor(
    session: IscsiSession,
    inbox: Inbox,
    outbox: Outbox,
    pool: PagePool,
    node: IscsiNode,
    host: FullFeatureHost,
  ) {
    this.#session = session;
    this.#outbox = outbox;
    this.#pool = pool;
    this.#host = host;
    this.#heardMs = host.nowMs;
    this.#sender = new PduSender(outbox, session, session.parameters);
    this.#reader = new PduReader(inbox, this, session.parameters);
    this.#commands = new Commands(session, this.#sender, outbox, pool, {
      get nowMs() {
        return host.nowMs;
      },
      progress: () => host.progress(),
      released: () => {
        this.#windowGrew = true;
      },
    });
    this.#tasks = new TaskManagement(session, this.#commands, this.#sender, {
      progress: () => host.progress(),
      skip: (cmdSn, itt) => this.#skip(cmdSn, itt),
      skipAll: (before, lun) => this.#parked.skipAll(before, lun),
      leave: () => this.#leave(),
    });
    this.#requests = new Requests(session, this.#sender, node, {
      reject: (reason, header) => this.#reject(reason, header, 0, header.byteLength - BHS_BYTES),
      leave: () => this.#leave(),
      stop: () => this.stop(),
    });
  }

  /** Requests taken and not yet answered. */
  get inFlight(): number {
    return this.#commands.count + this.#tasks.count + this.#requests.count;
  }

  /** Everything taken is answered, as far as the outbox is concerned. */
  get idle(): boolean {
    return this.inFlight === 0 && !this.#sender.late;
  }

  /** Understands all it can of what has arrived. */
  advance(): Lack {
    if (!this.#sender.flush()) return 'room';
    if (this.#windowGrew) this.#tellWindow();
    if (!this.#commands.in.advance()) return 'room';
    return this.#reader.advance();
  }

  /** Bytes have come. */
  heard(): void {
    this.#heardMs = this.#host.nowMs;
    this.#pinged = false;
  }

  /** For IscsiSession. */
  submit(record: CommandRecord): void {
    this.#commands.submit(record);
  }

  /** Now and then. `listening`: what the initiator says would be heard. */
  tick(listening: boolean): void {
    const now = this.#host.nowMs;
    if (!listening) {
      this.#heardMs = now;
      return;
    }
    const silentMs = now - this.#heardMs;
    if (silentMs >= SILENCE_TIMEOUT_MS) {
      this.over('the initiator does not answer');
    } else if (this.#commands.out.overdueMs >= DATA_OUT_TIMEOUT_MS) {
      this.over('the initiator does not send the data of its write');
    } else if (this.#commands.hoardsMs >= DATA_OUT_TIMEOUT_MS) {
      this.over(
        'the initiator sends the data of its command too slowly, and others need the memory',
      );
    } else if (silentMs >= PING_AFTER_MS && !this.#pinged) {
      this.#pinged = true;
      this.#nextPing = (this.#nextPing + 1) & 0x7fffffff;
      this.#nopIn(this.#nextPing);
    }
  }

  /** The server stops: the initiator is asked to log out [RFC 7143 11.9.1]. */
  askLogout(): void {
    const seconds = Math.ceil(LOGOUT_TIMEOUT_MS / 1000);
    this.#sender.open(0);
    const { view, at } = this.#sender;
    writeAsyncMessage(view, at, ASYNC_EVENT.LOGOUT_REQUEST, 0, 0, seconds, 0);
    // [RFC 7143 11.9] The message has a StatSN of its own.
    this.#sender.close(STAT_SN.OWN);
    this.#host.progress();
  }

  /** Takes nothing more. What is in flight is answered as ever. */
  stop(): void {
    this.#reader.stop();
  }

  /**
   * The connection is gone: gives memory back and ends the session. What the disk still has gives its own back then.
   */
  dispose(): void {
    this.#gone = true;
    this.#reader.dispose();
    this.#commands.dispose();
    this.#tasks.dispose();
    this.#requests.dispose();
    this.#sender.drop();
    this.#session.end();
  }

  // PduHost

  pduBegins(view: DataView, at: number, ahs: number): boolean {
    if (this.#sender.late || this.#outbox.heldBytes > this.#pool.shareBytes) return false;
    this.#begin(view, at, ahs);
    return true;
  }

  pduData(region: Region, page: Page | null, start: number, length: number, left: number): void {
    const command = this.#command;
    if (command !== null) {
      this.#commands.out.take(command, region, page, start, length, left);
      return;
    }
    const kept = this.#kept;
    if (kept === null) return;
    const take = Math.min(length, kept.data.length - kept.have);
    kept.data.set(region.bytes.subarray(start, start + take), kept.have);
    kept.have += take;
  }

  pduEnds(): void {
    this.#end();
    if (this.#parked.any) this.#replay();
  }

  pduDamaged(view: DataView, at: number, ahs: number): void {
    this.#ordered = false;
    this.#reject(REJECT.DATA_DIGEST_ERROR, view, at, ahs);
    if (opcodeOf(view, at) !== ISCSI_OP.SCSI_DATA_OUT) return;
    const command = this.#commands.find(initiatorTaskTag(view, at));
    if (command !== null) this.#commands.out.damaged(command, view, at);
  }

  over(reason: string | null): void {
    this.#reader.stop();
    this.#host.over(reason);
  }

  // One PDU

  #begin(view: DataView, at: number, ahs: number): void {
    this.#command = null;
    this.#kept = null;
    this.#parking = false;
    this.#ordered = false;
    this.#final = isFinal(view, at);
    const opcode = opcodeOf(view, at);
    this.#isDataOut = opcode === ISCSI_OP.SCSI_DATA_OUT;
    if (this.#isDataOut) {
      this.#beginDataOut(view, at, ahs);
      return;
    }
    if (isOrdered(opcode) && !isImmediate(view, at)) {
      const cmdSn = view.getUint32(at + FIELD.CMD_SN);
      const place = this.#session.placeOf(cmdSn);
      if (place !== 0) {
        // [RFC 7143 4.2.2.1] What is outside of the window, or there already, is ignored without a word.
        if (place > 0 && !this.#parked.has(cmdSn)) this.#park(view, at, ahs, cmdSn);
        return;
      }
      this.#session.advance();
      this.#ordered = true;
    }
    if (opcode === ISCSI_OP.SCSI_COMMAND) this.#beginCommand(view, at, ahs);
    else this.#keep(view, at, ahs, opcode);
  }

  #beginCommand(view: DataView, at: number, ahs: number): void {
    const immediate = isImmediate(view, at);
    const reason =
      this.#session.nexus === null
        ? REJECT.PROTOCOL_ERROR
        : this.#commands.refuse(view, at, ahs, immediate);
    if (reason !== 0) {
      this.#reject(reason, view, at, ahs);
      return;
    }
    const record = this.#commands.begin(view, at, ahs, immediate);
    if (record.writes) this.#command = record;
  }

  #beginDataOut(view: DataView, at: number, ahs: number): void {
    const itt = initiatorTaskTag(view, at);
    const bytes = dataSegmentLength(view, at);
    const command = this.#commands.find(itt);
    if (command !== null) {
      if (this.#commands.out.dataBegins(command, view, at, bytes)) this.#command = command;
      return;
    }
    // Of a command that has been aborted, as a rule: dropped.
    const parked = this.#parked.any ? this.#parked.find(itt) : null;
    if (parked === null) return;
    this.#parking = true;
    this.#kept = this.#parked.keep(parked, copyHeader(view, at, ahs), bytes);
    if (this.#kept === null) this.over('too much data behind a command that is missing');
  }

  /** Everything else is understood when it is there as a whole. */
  #keep(view: DataView, at: number, ahs: number, opcode: number): void {
    const wanted = opcode === ISCSI_OP.NOP_OUT || opcode === ISCSI_OP.TEXT_REQUEST;
    const bytes = wanted ? dataSegmentLength(view, at) : 0;
    const data = bytes === 0 ? NO_DATA : new Uint8Array(bytes);
    this.#kept = { header: copyHeader(view, at, ahs), data, have: 0 };
  }

  #end(): void {
    const command = this.#command;
    const kept = this.#kept;
    this.#command = null;
    this.#kept = null;
    if (command !== null) {
      if (this.#isDataOut) this.#commands.out.dataEnds(command, this.#final);
      else this.#commands.out.commandEnds(command, this.#final);
    } else if (kept !== null && !this.#parking) {
      this.#understand(kept);
    }
  }

  #understand({ header, data }: KeptPdu): void {
    const opcode = opcodeOf(header, 0);
    switch (opcode) {
      case ISCSI_OP.NOP_OUT:
        this.#requests.nopOut(header, data);
        break;
      case ISCSI_OP.TEXT_REQUEST:
        this.#requests.text(header, data);
        break;
      case ISCSI_OP.LOGOUT_REQUEST:
        this.#requests.logout(header);
        break;
      case ISCSI_OP.SCSI_TASK_MANAGEMENT_FUNCTION_REQUEST:
        if (this.#session.nexus === null) this.#rejectKept(REJECT.PROTOCOL_ERROR, header);
        else if (this.#tasks.count >= MAX_TASK_MANAGEMENT) {
          this.#rejectKept(REJECT.IMMEDIATE_COMMAND_REJECT, header);
        } else this.#tasks.begin(header, 0);
        break;
      case ISCSI_OP.SNACK_REQUEST:
        // [RFC 7143 11.16] Nothing can be sent again at error recovery level 0.
        this.#rejectKept(REJECT.SNACK_REJECT, header);
        break;
      case ISCSI_OP.LOGIN_REQUEST:
        this.#rejectKept(REJECT.PROTOCOL_ERROR, header);
        break;
      default:
        this.#rejectKept(REJECT.COMMAND_NOT_SUPPORTED, header);
    }
    this.#host.progress();
  }

  // Order

  #park(view: DataView, at: number, ahs: number, cmdSn: number): void {
    const isCommand = opcodeOf(view, at) === ISCSI_OP.SCSI_COMMAND;
    const itt = isCommand ? initiatorTaskTag(view, at) : RESERVED_TAG;
    const request = this.#parked.add(cmdSn, itt, isCommand ? readLun(view, at) : -1);
    const bytes = dataSegmentLength(view, at);
    this.#parking = true;
    this.#kept = this.#parked.keep(request, copyHeader(view, at, ahs), bytes);
    if (this.#kept === null) this.over('too much data behind a command that is missing');
  }

  /** What waited for the command that has come now. */
  #replay(): void {
    for (;;) {
      const request = this.#parked.take(this.#session.expCmdSn);
      if (request === null) return;
      if (request.skipped) this.#session.advance();
      for (const { header, data, have } of request.pdus) {
        this.#begin(header, 0, header.byteLength - BHS_BYTES);
        if (have > 0) this.pduData(Region.plain(data), null, 0, have, have);
        this.#end();
      }
    }
  }

  #skip(cmdSn: number, itt: number): boolean {
    if (cmdSn === this.#session.expCmdSn) {
      this.#session.advance();
      return true;
    }
    const parked = this.#parked.find(itt);
    if (parked !== null && parked.cmdSn === cmdSn) {
      this.#parked.skip(parked);
      return true;
    }
    if (this.#parked.has(cmdSn)) return false;
    this.#parked.skip(this.#parked.add(cmdSn, itt, -1));
    return true;
  }

  // What the target says of its own accord

  /**
   * [RFC 7143 11.19.2] A NOP-In without a tag of either side tells the numbers; with one of ours it asks for an
   * answer.
   */
  #nopIn(ttt: number): void {
    this.#sender.open(0);
    writeNopIn(this.#sender.view, this.#sender.at, RESERVED_TAG, ttt, 0);
    this.#sender.close(STAT_SN.NEXT);
    this.#host.progress();
  }

  /** The initiator may believe that the window is shut. */
  #tellWindow(): void {
    this.#windowGrew = false;
    const { expCmdSn, maxCmdSn } = this.#session;
    const shut = serialDistance(expCmdSn, this.#sender.toldMaxCmdSn) < 0;
    if (shut && serialDistance(expCmdSn, maxCmdSn) >= 0) this.#nopIn(RESERVED_TAG);
  }

  #rejectKept(reason: number, header: DataView): void {
    this.#reject(reason, header, 0, header.byteLength - BHS_BYTES);
  }

  /** [RFC 7143 11.17] The header goes back with the reason. */
  #reject(reason: number, view: DataView, at: number, ahs: number): void {
    if (this.#gone) return;
    // [RFC 7143 11.17] "The CmdSN of the rejected command PDU (if it is a non-immediate command) MUST NOT be
    // considered received".
    if (this.#ordered) this.#session.retract();
    this.#ordered = false;
    const bytes = BHS_BYTES + ahs;
    const sender = this.#sender;
    sender.open(bytes);
    writeReject(sender.view, sender.at, reason, bytes);
    for (let i = 0; i < bytes; i += 1) {
      sender.view.setUint8(sender.dataAt + i, view.getUint8(at + i));
    }
    sender.close(STAT_SN.OWN);
    this.#host.progress();
  }

  #leave(): void {
    this.over(null);
  }
}

/** Requests that carry a CmdSN [RFC 7143 4.2.2.1]. */
function isOrdered(opcode: number): boolean {
  switch (opcode) {
    case ISCSI_OP.NOP_OUT:
    case ISCSI_OP.SCSI_COMMAND:
    case ISCSI_OP.SCSI_TASK_MANAGEMENT_FUNCTION_REQUEST:
    case ISCSI_OP.TEXT_REQUEST:
    case ISCSI_OP.LOGOUT_REQUEST:
      return true;
    default:
      return false;
  }
}

function copyHeader(view: DataView, at: number, ahs: number): DataView {
  const from = view.byteOffset + at;
  return new DataView(view.buffer.slice(from, from + BHS_BYTES + ahs) as ArrayBuffer);
}
