import { assert } from '../../base/assert.ts';
import type { Peer } from '../../durability/disk-session.ts';
import { Nexus } from '../scsi/nexus.ts';
import type { ScsiTarget } from '../scsi/target.ts';
import type { CommandRecord } from './command-record.ts';
import type { IscsiTarget, LoginResult } from './node.ts';
import type { SessionParameters } from './parameters.ts';
import type { Counters } from './pdu-sender.ts';
import type { SessionTable } from './session-table.ts';
import { COMMAND_WINDOW } from './session-limits.ts';
import { serialAdd, serialDistance } from './wire.ts';

/** The connection of a session. */
export interface SessionConnection {
  /** Ends it at once, for this reason. It ends its session in turn. */
  drop(reason: string): void;
  /** Gives a command to the SCSI target: the session is open now. */
  submit(record: CommandRecord): void;
  progress(): void;
}

/** Where a session is in its life. */
const STATE = { WAITING: 0, OPENING: 1, OPEN: 2, CLOSING: 3, ENDED: 4 } as const;

/**
 * A session [RFC 7143 4.2.4]: one connection (MaxConnections is 1), the numbering of commands and responses, and
 * for normal sessions the I_T nexus. Its commands run when its predecessor has ended and the nexus is open; until
 * then they wait (P11).
 */
export class IscsiSession implements Counters {
  readonly table: SessionTable;
  readonly login: LoginResult;
  readonly tsih: number;
  readonly connection: SessionConnection;
  /** Null for discovery. */
  readonly nexus: Nexus | null;
  /** The next StatSN. */
  statSn: number;
  /** The CmdSN that comes next. */
  expCmdSn: number;
  /** What the initiator takes in one PDU: it may change [RFC 7143 13.12]. */
  sendSegmentBytes: number;
  /** Commands that count in the window. */
  held = 0;
  #state: (typeof STATE)[keyof typeof STATE] = STATE.WAITING;
  /** It is to end, whatever it was doing. */
  #closing = false;
  /** What waits until commands may run. */
  #waiting: (CommandRecord | (() => void))[] = [];
  readonly #ended: (() => void)[] = [];

  /** For SessionTable. */
  constructor(
    table: SessionTable,
    login: LoginResult,
    tsih: number,
    connection: SessionConnection,
    peer: Peer,
  ) {
    this.table = table;
    this.login = login;
    this.tsih = tsih;
    this.connection = connection;
    this.statSn = login.statSn;
    this.expCmdSn = login.cmdSn;
    this.sendSegmentBytes = login.parameters.sendSegmentBytes;
    const { initiatorName: name, isid } = login;
    const port = { name: portName(name, isid), transportId: transportId(name, isid) };
    this.nexus =
      login.target === null ? null : new Nexus(port, peer, login.target.scsi.relativePort);
  }

  get parameters(): SessionParameters {
    return this.login.parameters;
  }

  get target(): IscsiTarget | null {
    return this.login.target;
  }

  get scsi(): ScsiTarget {
    assert(this.login.target !== null, 'a discovery session has no target');
    return this.login.target.scsi;
  }

  /** [RFC 7143 4.2.2.1] Up to this CmdSN commands are taken. */
  get maxCmdSn(): number {
    return serialAdd(this.expCmdSn, COMMAND_WINDOW - this.held - 1);
  }

  /** A request for ordered delivery has come. */
  advance(): void {
    this.expCmdSn = serialAdd(this.expCmdSn, 1);
  }

  /** It has been rejected: it counts as not received [RFC 7143 11.17]. */
  retract(): void {
    this.expCmdSn = serialAdd(this.expCmdSn, -1);
  }

  /** Where a CmdSN is: 0 the next one, 1 and more after it in the window, -1 outside of it. */
  placeOf(cmdSn: number): number {
    const distance = serialDistance(this.expCmdSn, cmdSn);
    return distance < 0 || distance > serialDistance(this.expCmdSn, this.maxCmdSn) ? -1 : distance;
  }

  get ready(): boolean {
    return this.#state === STATE.OPEN && !this.#closing;
  }

  /** The command goes to the SCSI target, now or when the session is open. */
  submit(record: CommandRecord): void {
    if (this.ready) this.connection.submit(record);
    else if (!this.#closing) this.#waiting.push(record);
  }

  /** Calls back in turn with the commands, now or when the session is open; never when it ends before. */
  whenReady(callback: () => void): void {
    if (this.ready) callback();
    else if (!this.#closing) this.#waiting.push(callback);
  }

  /** The command has not been given to the SCSI target, and will not be. */
  withdraw(record: CommandRecord): void {
    const at = this.#waiting.indexOf(record);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  /** For SessionTable: what was there before it has ended. */
  open(): void {
    if (this.#closing) {
      this.#over();
      return;
    }
    this.#state = STATE.OPENING;
    if (this.nexus === null) this.#opened();
    else this.scsi.openNexus(this.nexus, () => this.#opened());
  }

  /**
   * Ends the session: its commands are aborted, the nexus is closed. `done`, perhaps at once, when nothing of it is
   * under way any more. The connection does so after its own end.
   */
  end(done: () => void = () => {}): void {
    if (this.#state === STATE.ENDED) {
      done();
      return;
    }
    this.#ended.push(done);
    if (this.#closing) return;
    this.#closing = true;
    this.#waiting = [];
    // What waits for the predecessor, or opens, comes back to it when that is done.
    if (this.#state === STATE.OPEN) this.#close();
  }

  #opened(): void {
    this.#state = STATE.OPEN;
    if (this.#closing) {
      this.#close();
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const item of waiting) {
      if (this.#closing) return;
      if (typeof item === 'function') item();
      else this.connection.submit(item);
    }
    this.connection.progress();
  }

  #close(): void {
    this.#state = STATE.CLOSING;
    if (this.nexus === null) this.#over();
    else this.scsi.closeNexus(this.nexus, () => this.#over());
  }

  #over(): void {
    this.#state = STATE.ENDED;
    this.table.ended(this);
    for (const done of this.#ended.splice(0)) done();
  }
}

/** [RFC 7143 3.4.2, SPC-4 7.8.6.10] The SCSI initiator port's name. */
export function portName(initiatorName: string, isid: Uint8Array): string {
  return `${initiatorName},i,0x${Buffer.from(isid).toString('hex')}`;
}

/** [SPC-4 7.6.4.6] TransportID of an iSCSI initiator port: protocol 5h, format 01b with the ISID, NUL, whole words. */
export function transportId(initiatorName: string, isid: Uint8Array): Uint8Array {
  const name = Buffer.from(portName(initiatorName, isid), 'utf8');
  // ADDITIONAL LENGTH is at least 20.
  const bytes = new Uint8Array(4 + Math.max(20, (name.length + 1 + 3) & ~3));
  bytes[0] = 0x45;
  new DataView(bytes.buffer).setUint16(2, bytes.length - 4);
  bytes.set(name, 4);
  return bytes;
}
