import { Buffer } from 'node:buffer';
import type { Prng } from '../../src/base/prng.ts';
import {
  type CommandResult,
  IscsiInitiator,
} from '../../src/protocols/iscsi/initiator/initiator.ts';
import {
  ASYNC_EVENT,
  BHS_BYTES,
  FIELD,
  initiatorTaskTag,
  ISCSI_OP,
  LOGIN_STATUS,
  LOGOUT_REASON,
  opcodeOf,
  TMF,
  TMF_RESPONSE,
} from '../../src/protocols/iscsi/wire.ts';
import { ASC, SENSE_KEY, STATUS, TASK_ATTRIBUTE } from '../../src/protocols/scsi/scsi.ts';
import { readSector, SECTOR_BYTES } from './media.ts';
import type { InitiatorPlan } from './iscsi-scenario.ts';
import type { Oracle } from './oracle.ts';
import type { Kind, OracleSession } from './ops.ts';
import { commandOf, writeCacheOf } from './scsi-commands.ts';
import { ScsiOp, type ScsiRole } from './scsi-op.ts';
import type { SimStream, StreamPeer } from './stream.ts';

/** What a session of an initiator needs of the world. */
export interface InitiatorHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  readonly hotAt: number;
  /** Mode `unsafe`: the write cache cannot be switched. */
  readonly ignoresFlush: boolean;
  /** What the sectors held when somebody last looked: what COMPARE AND WRITE expects. */
  readonly seen: Map<number, number>;
  nextOp(): number;
  later(ms: number, callback: () => void): void;
  wantsMore(): boolean;
  /** Sessions of its port before this one are over. */
  loggedIn(client: InitiatorClient): void;
  /** Logs in again, while this one is there. */
  reinstate(client: InitiatorClient): void;
  over(client: InitiatorClient): void;
}

interface Reaction {
  readonly end: number;
  readonly react: () => void;
}

/**
 * What an initiator port takes the write cache for, as Linux does: off since it was told so, until it is told or says
 * something else. A new session, with the same server or with another, changes nothing about it.
 */
export interface CacheView {
  off: boolean;
}

/** What a logical unit has to report with the next command. */
export type Notice = 'deferred error' | 'changed mode';

const EIO = 5;
const ENOSPC = 28;
/** Any other error; nothing was done. */
const REFUSED = -1;
const MISCOMPARED = -2;

interface Sense {
  readonly deferred: boolean;
  readonly key: number;
  readonly code: number;
}

const TARGET = 'iqn.2026-11.sim:disk';

/** One session of a simulated initiator, from its login on. It tells the oracle what it asks and what it is told. */
export class InitiatorClient implements StreamPeer {
  readonly session: OracleSession;
  readonly plan: InitiatorPlan;
  readonly isid: Uint8Array;
  readonly view: CacheView;
  readonly outstanding = new Map<number, ScsiOp>();
  stream!: SimStream;
  over = false;
  readonly #host: InitiatorHost;
  readonly #initiator: IscsiInitiator;
  /** By initiator task tag. */
  readonly #ops = new Map<number, ScsiOp>();
  readonly #reactions: Reaction[] = [];
  readonly #arrivals: Reaction[] = [];
  readonly #owed = new Map<Notice, number>();
  /** Of immediate flushes, not yet told; several may be told as one. */
  #failures = 0;
  #asking: ScsiOp | null = null;
  #functions = 0;
  #said = 0;
  #heard = 0;
  #sent = 0;
  #taken = 0;
  #delayed = 0;
  #telling = false;
  #pausing = false;
  #leaving = false;

  constructor(
    host: InitiatorHost,
    { plan, isid, view }: { plan: InitiatorPlan; isid: Uint8Array; view: CacheView },
    session: OracleSession,
    tsih: number,
  ) {
    this.#host = host;
    this.plan = plan;
    this.session = session;
    this.isid = isid;
    this.view = view;
    this.#initiator = new IscsiInitiator(
      { send: (bytes) => this.#send(bytes) },
      { initiatorName: plan.name, isid, tsih, targetName: TARGET, keys: plan.keys },
    );
    this.#initiator.watch = ({ opcode, header }) => {
      if (opcode === ISCSI_OP.REJECT) this.#fail('a PDU was rejected');
      if (opcode !== ISCSI_OP.ASYNCHRONOUS_MESSAGE) return;
      const asked = header.getUint8(FIELD.ASYNC_EVENT) === ASYNC_EVENT.LOGOUT_REQUEST;
      if (asked && host.prng.chance(0.7)) this.#react(() => this.#logout());
    };
    host.oracle.opened(session);
    host.oracle.believes(session, view.off);
  }

  get tsih(): number {
    return this.#initiator.tsih;
  }

  login(): void {
    this.#initiator.login((status) => {
      if (status === LOGIN_STATUS.SUCCESS) {
        this.#react(() => this.#goOn());
        return;
      }
      const { SERVICE_UNAVAILABLE, SESSION_DOES_NOT_EXIST } = LOGIN_STATUS;
      if (status !== SERVICE_UNAVAILABLE && status !== SESSION_DOES_NOT_EXIST) {
        this.#fail(`the login failed: 0x${status.toString(16)}`);
      }
    });
  }

  /** The command with this initiator task tag. */
  find(itt: number): ScsiOp | undefined {
    return this.#ops.get(itt);
  }

  /** Its login is complete: an earlier session of this port is over. */
  loggedIn(): void {
    this.#host.loggedIn(this);
    this.#host.oracle.goArrived(this.session);
  }

  /** The unit has something to say to this initiator, from now on. */
  owes(notice: Notice): void {
    const { oracle } = this.#host;
    oracle.tick += 1;
    if (!this.#owed.has(notice)) this.#owed.set(notice, oracle.tick);
    if (notice === 'deferred error') this.#failures += 1;
  }

  /** Inside the server a command has ended without an answer: a task management function has ended it. */
  dropped(op: ScsiOp): void {
    if (op.dropped || op.answered) return;
    op.dropped = true;
    // It may have been the one that would have told.
    this.#owed.clear();
    this.#host.oracle.aborted(op);
    this.outstanding.delete(op.id);
    this.#react(() => this.#goOn());
  }

  // What the stream tells.

  told(bytes: Uint8Array): void {
    if (this.over) return;
    this.#said += bytes.length;
    this.#telling = true;
    this.#initiator.receive(bytes);
    this.#telling = false;
  }

  heard(count: number): void {
    this.#heard += count;
    this.#runReactions();
  }

  taken(count: number): void {
    this.#taken += count;
    while ((this.#arrivals[0]?.end ?? Infinity) <= this.#taken) this.#arrivals.shift()?.react();
  }

  hungUp(): void {
    this.#end();
  }

  /** Goes away without a word. */
  cut(): void {
    if (this.over) return;
    this.#host.oracle.gone(this.session);
    this.stream.cut(this.#host.prng.chance(0.3));
    this.#end();
  }

  #end(): void {
    if (this.over) return;
    this.over = true;
    this.#host.oracle.gone(this.session);
    this.#host.over(this);
  }

  #fail(text: string): never {
    return this.#host.oracle.fail(`session ${this.session.id}: ${text}`);
  }

  // Bytes: what is said is understood at once, what follows from it is done when it has been heard.

  #react(react: () => void): void {
    this.#reactions.push({ end: this.#said, react });
    if (!this.#telling) this.#host.later(0, () => this.#runReactions());
  }

  #runReactions(): void {
    while (!this.over && (this.#reactions[0]?.end ?? Infinity) <= this.#heard) {
      this.#reactions.shift()?.react();
    }
  }

  #send(bytes: Uint8Array): void {
    if (!this.#telling && this.#delayed === 0) {
      this.#transmit(bytes);
      return;
    }
    this.#delayed += 1;
    this.#react(() => {
      this.#delayed -= 1;
      this.#transmit(bytes);
    });
  }

  #transmit(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const opcode = opcodeOf(view, 0);
    const header = this.#sent + BHS_BYTES;
    this.#sent += bytes.length;
    if (opcode === ISCSI_OP.SCSI_COMMAND) {
      const op = this.#ops.get(initiatorTaskTag(view, 0)) ?? (this.#asking as ScsiOp);
      op.sent = true;
      this.#arrivals.push({ end: header, react: () => this.#host.oracle.arrived(op) });
    }
    this.stream.write(bytes);
  }

  // Commands

  #goOn(): void {
    if (this.over || this.#leaving) return;
    const { prng } = this.#host;
    const { depth, thinkMs } = this.plan.traits;
    while (this.outstanding.size < depth && this.#host.wantsMore() && !this.over) {
      this.#ask();
      if (prng.chance(0.3)) break;
    }
    if (this.over) return;
    if (!this.#host.wantsMore()) {
      if (this.outstanding.size === 0 && this.#functions === 0) this.#leave();
    } else if (this.outstanding.size < depth && !this.#pausing) {
      this.#pausing = true;
      this.#host.later(prng.float() * thinkMs, () => {
        this.#pausing = false;
        this.#goOn();
      });
    }
  }

  #leave(): void {
    if (this.#host.prng.chance(0.5)) this.cut();
    else this.#logout();
  }

  #logout(): void {
    if (this.over || this.#leaving) return;
    this.#leaving = true;
    this.#initiator.logout(LOGOUT_REASON.CLOSE_SESSION, () => {});
  }

  #ask(): void {
    const { prng } = this.#host;
    const { traits } = this.plan;
    if (prng.chance(traits.aborts)) this.#abort();
    if (prng.chance(traits.resets)) this.#reset();
    const op = this.#choose();
    if (prng.chance(traits.orderedShare)) op.attribute = TASK_ATTRIBUTE.ORDERED;
    else if (prng.chance(traits.headShare)) op.attribute = TASK_ATTRIBUTE.HEAD_OF_QUEUE;
    this.#host.oracle.asked(op);
    if (knowsCache(op)) this.#believes(true);
    this.outstanding.set(op.id, op);
    const command = commandOf(op, prng, this.#host.sectors);
    // Its bytes may come before its tag is known here.
    this.#asking = op;
    op.itt = this.#initiator.command(command, (result) => this.#answered(op, result));
    this.#ops.set(op.itt, op);
    if (prng.chance(traits.cuts)) this.cut();
    else if (prng.chance(traits.reinstates)) this.#host.reinstate(this);
    else if (prng.chance(traits.stalls)) this.stream.stall(prng.float() * 200);
  }

  #choose(): ScsiOp {
    const { prng, ignoresFlush } = this.#host;
    const { traits } = this.plan;
    if (!ignoresFlush && prng.chance(traits.switches)) {
      const op = this.#make('status', 'select', [0, 0], false);
      op.on = prng.chance(0.5);
      return op;
    }
    if (prng.chance(traits.looks)) return this.#make('status', 'sense', [0, 0], false);
    // Who believes in no cache hardly flushes.
    if (prng.chance(this.view.off ? traits.flushShare / 10 : traits.flushShare)) {
      return this.#chooseFlush();
    }
    const fua = prng.chance(traits.fuaShare);
    if (prng.chance(traits.readShare)) {
      return this.#make('read', 'blocks', this.#range(), fua && prng.chance(0.3));
    }
    if (prng.chance(traits.compareShare)) return this.#chooseCompare(fua);
    if (!prng.chance(traits.zeroShare)) return this.#make('write', 'blocks', this.#range(), fua);
    const role = prng.pick<ScsiRole>(['same', 'unmap']);
    const kind = role === 'unmap' ? 'trim' : prng.pick<Kind>(['zeroes', 'write']);
    return this.#make(kind, role, this.#range(), false);
  }

  #make(kind: Kind, role: ScsiRole, range: readonly [number, number], fua: boolean): ScsiOp {
    return new ScsiOp(this.#host.nextOp(), kind, role, this.session, range, fua);
  }

  #range(most = this.plan.traits.maxSectors): [number, number] {
    const { prng, sectors, hotAt } = this.#host;
    const { hotSectors } = this.plan.traits;
    const hot = prng.chance(0.8);
    const place = hot ? hotAt + prng.below(hotSectors) : prng.below(sectors);
    const first = Math.min(place, sectors - 1);
    return [first, 1 + prng.below(Math.min(most, sectors - first))];
  }

  #chooseFlush(): ScsiOp {
    const { prng, sectors } = this.#host;
    const { rangeShare, immediateShare } = this.plan.traits;
    const ranged = prng.chance(rangeShare);
    const range = ranged ? this.#range() : ([0, sectors] as const);
    const op = this.#make('flush', 'blocks', range, false);
    op.ranged = ranged;
    op.immediate = prng.chance(immediateShare);
    return op;
  }

  #chooseCompare(fua: boolean): ScsiOp {
    const { seen } = this.#host;
    const [first, sectors] = this.#range(3);
    const op = this.#make('write', 'compare', [first, sectors], fua);
    op.expected = Array.from({ length: sectors }, (_, i) => seen.get(first + i) ?? 0);
    return op;
  }

  // Task management

  #abort(): void {
    const { prng } = this.#host;
    const sent = [...this.outstanding.values()].filter((op) => op.sent);
    if (sent.length === 0) return;
    if (prng.chance(0.2)) {
      this.#manage(TMF.ABORT_TASK_SET, 0, sent);
      return;
    }
    const op = prng.pick(sent);
    this.#manage(TMF.ABORT_TASK, op.itt, [op]);
  }

  #reset(): void {
    const sent = [...this.outstanding.values()].filter((op) => op.sent);
    const functions = [TMF.LOGICAL_UNIT_RESET, TMF.CLEAR_TASK_SET, TMF.TARGET_WARM_RESET];
    this.#manage(this.#host.prng.pick(functions), 0, sent);
  }

  /** `affected`: when the answer is there, they have ended, with an answer or without. */
  #manage(tmf: number, itt: number, affected: readonly ScsiOp[]): void {
    this.#functions += 1;
    const before = this.#initiator.cmdSn;
    this.#initiator.manage(tmf, 0, itt, before - 1, (response) => {
      this.#functions -= 1;
      if (response === TMF_RESPONSE.TASK_DOES_NOT_EXIST) {
        const alive = affected.find((op) => !op.answered && !op.dropped);
        if (alive !== undefined) this.#fail(`${alive.text} is said not to exist`);
      } else if (response === TMF_RESPONSE.FUNCTION_COMPLETE) {
        for (const op of affected) this.dropped(op);
      } else {
        this.#fail(`task management function ${tmf} was answered with ${response}`);
      }
      this.#react(() => this.#goOn());
    });
  }

  // Answers

  #answered(op: ScsiOp, result: CommandResult): void {
    if (op.dropped) this.#fail(`${op.text} was answered after it had been aborted`);
    this.outstanding.delete(op.id);
    this.#ops.delete(op.itt);
    const sense = senseOf(result);
    this.#settleNotices(op, sense);
    const error = this.#errorOf(op, result, sense);
    const { oracle } = this.#host;
    if (error === 0) {
      if (result.overflow || result.underflow) this.#fail(`${op.text}: not all of it was moved`);
      this.#judge(op, result.data);
    } else if ((error === REFUSED || error === MISCOMPARED) && op.orders.size > 0) {
      this.#fail(`${op.text} was refused, and has changed the disk`);
    }
    oracle.initiators += 1;
    oracle.answered(op, error);
    this.#react(() => {
      const { prng } = this.#host;
      const { cuts, reinstates } = this.plan.traits;
      if (prng.chance(cuts)) this.cut();
      else if (prng.chance(reinstates)) this.#host.reinstate(this);
      if (!this.over) this.#goOn();
    });
  }

  #judge(op: ScsiOp, data: Uint8Array): void {
    const { oracle, seen } = this.#host;
    if (op.kind === 'read') {
      const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
      const contents = Array.from({ length: op.sectors }, (_, i) =>
        readSector(bytes, i * SECTOR_BYTES, op.first + i),
      );
      oracle.readReturned(op, contents);
      for (const [i, content] of contents.entries()) seen.set(op.first + i, content);
    } else if (op.role === 'compare') {
      oracle.compared(op, op.expected);
    } else if (op.role === 'sense') {
      this.#believes(writeCacheOf(data));
    } else if (op.role === 'select') {
      this.#believes(op.on);
    }
  }

  /** P4 is judged by what it was told, and so is P3 from then on. */
  #believes(writeCache: boolean): void {
    this.#host.oracle.believes(this.session, !writeCache);
    // What it has asked for meanwhile says that the cache may be on.
    const off = !writeCache && ![...this.outstanding.values()].some(knowsCache);
    if (!off) this.#host.oracle.believes(this.session, false);
    this.view.off = off;
  }

  #errorOf(op: ScsiOp, { status }: CommandResult, sense: Sense | null): number {
    if (status === STATUS.GOOD) return 0;
    if (status === STATUS.BUSY) return REFUSED;
    if (sense === null) return this.#fail(`${op.text}: status 0x${status.toString(16)}`);
    if (sense.deferred || sense.key === SENSE_KEY.UNIT_ATTENTION) return REFUSED;
    switch (sense.code) {
      case ASC.WRITE_ERROR:
        return EIO;
      case ASC.UNRECOVERED_READ_ERROR:
        return REFUSED;
      case ASC.SPACE_ALLOCATION_FAILED_WRITE_PROTECT:
        return ENOSPC;
      case ASC.MISCOMPARE_DURING_VERIFY_OPERATION:
        if (op.role === 'compare') return MISCOMPARED;
        break;
      // A switch that was overtaken by another; a session that ends.
      case ASC.INTERNAL_TARGET_FAILURE:
        return 125;
    }
    return this.#fail(
      `${op.text}: sense key ${sense.key}, additional sense code 0x${sense.code.toString(16)}`,
    );
  }

  /** What the unit owed is told with the first command that comes after. */
  #settleNotices(op: ScsiOp, sense: Sense | null): void {
    if (sense?.deferred === true) {
      if (this.#failures === 0) {
        this.#fail(`${op.text} reports a deferred error, and nothing has failed`);
      }
      this.#failures -= 1;
      this.#owed.delete('deferred error');
      return;
    }
    if (sense?.key === SENSE_KEY.UNIT_ATTENTION) {
      // [SAM-5 5.14.1] A reset covers all that came before it.
      if (sense.code !== ASC.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)
        this.#owed.delete('changed mode');
      return;
    }
    for (const [notice, since] of this.#owed) {
      if (op.arrivedAt <= since) continue;
      const others = [...this.outstanding.values()];
      if (others.some(({ arrivedAt }) => arrivedAt > since && arrivedAt !== Infinity)) continue;
      this.#fail(`${op.text} was carried out, and the ${notice} before it was not told`);
    }
  }
}

/** Who asks for this does not take the write cache for off. */
function knowsCache(op: ScsiOp): boolean {
  return op.kind === 'flush' || (op.role === 'select' && op.on);
}

function senseOf({ status, sense }: CommandResult): Sense | null {
  if (status !== STATUS.CHECK_CONDITION || sense.length < 14) return null;
  const code = (sense[12] as number) * 256 + (sense[13] as number);
  return {
    deferred: ((sense[0] as number) & 0x7f) === 0x71,
    key: (sense[2] as number) & 0x0f,
    code,
  };
}
