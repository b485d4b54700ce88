import type { Timer } from '../../base/clock.ts';
import type { Peer } from '../../durability/disk-session.ts';
import { Inbox } from '../../reactor/inbox.ts';
import { Outbox } from '../../reactor/outbox.ts';
import type { Page } from '../../reactor/page-pool.ts';
import type { Reactor, Stream, StreamOwner } from '../../reactor/reactor.ts';
import type { CommandRecord } from './command-record.ts';
import { FullFeature, type FullFeatureHost } from './full-feature.ts';
import { CLOSE_TIMEOUT_MS, LOGIN_SEGMENT_BYTES, LOGIN_TIMEOUT_MS } from './limits.ts';
import { type Admission, LoginNegotiation } from './login.ts';
import type { IscsiNode, LoginResult } from './node.ts';
import type { Lack } from './pdu-reader.ts';
import type { IscsiSession, SessionConnection } from './session.ts';
import { portName } from './session.ts';
import { COMMAND_WINDOW, LOGOUT_TIMEOUT_MS, TICK_MS } from './session-limits.ts';
import type { SessionTable } from './session-table.ts';
import { ahsBytes, BHS_BYTES, dataSegmentLength, LOGIN_STATUS, padded } from './wire.ts';

/** What all connections of a portal share. */
export interface ConnectionContext {
  readonly reactor: Pick<Reactor, 'pool' | 'defer' | 'after' | 'nowMs'>;
  readonly node: IscsiNode;
  readonly sessions: SessionTable;
  /** One line about one connection. */
  readonly log: (line: string) => void;
  /**
   * The connection has ended and holds no memory any more; what its session left with the disk may still be under
   * way.
   */
  readonly ended: (connection: IscsiConnection) => void;
}

/**
 * One initiator's connection from accept to close: joins a stream with the login and then the full feature phase,
 * gives them memory, and stops listening while there is no room (back-pressure). Everything is done at most once
 * per turn of the reactor.
 */
export class IscsiConnection implements StreamOwner, FullFeatureHost, SessionConnection {
  readonly #context: ConnectionContext;
  readonly #stream: Stream;
  readonly #inbox: Inbox;
  readonly #outbox: Outbox;
  readonly #login: LoginNegotiation;
  #timer: Timer;
  #session: IscsiSession | null = null;
  #fullFeature: FullFeature | null = null;
  #receiving = false;
  /** Closing once everything said is sent and everything taken is answered. */
  #leaving = false;
  #stopping = false;
  #closed = false;
  #scheduled = false;
  #waitsForMemory = false;
  /** Of the login; at most what one request is answered with. */
  readonly #unsaid: Uint8Array[] = [];
  readonly #run: () => void = () => {
    this.#scheduled = false;
    this.#work();
  };
  readonly #memoryFreed: () => void = () => {
    this.#waitsForMemory = false;
    this.progress();
  };
  readonly #tick: () => void = () => {
    this.#timer = this.#context.reactor.after(TICK_MS, this.#tick);
    this.#fullFeature?.tick(this.#receiving);
  };

  constructor(context: ConnectionContext, stream: Stream) {
    this.#context = context;
    this.#stream = stream;
    this.#inbox = new Inbox(context.reactor.pool, BHS_BYTES);
    this.#outbox = new Outbox(context.reactor.pool);
    this.#login = new LoginNegotiation(
      {
        send: (header, data) => this.#answerLogin(header, data),
        admit: (result) => this.#admit(result),
        done: (result, tsih) => this.#begin(result, tsih),
        fail: (reason) => this.#refused(reason),
      },
      context.node,
    );
    context.reactor.pool.join();
    stream.owner = this;
    this.#timer = context.reactor.after(LOGIN_TIMEOUT_MS, () => {
      this.#end(`the login took too long: ${this.#login.who}`);
    });
    this.progress();
  }

  /** Who is at the other end, for messages. */
  get peer(): string {
    return this.#stream.peer;
  }

  get nowMs(): number {
    return this.#context.reactor.nowMs();
  }

  /** The server stops: initiators are asked to log out, for a while; then what has been taken is answered. */
  shutdown(): void {
    if (this.#closed || this.#leaving || this.#stopping) return;
    this.#stopping = true;
    if (this.#fullFeature === null) {
      this.#leave();
      return;
    }
    this.#fullFeature.askLogout();
    this.#timer.cancel();
    this.#timer = this.#context.reactor.after(LOGOUT_TIMEOUT_MS, () => this.over(null));
  }

  // StreamOwner

  received(count: number): void {
    this.#receiving = false;
    if (this.#closed) return;
    if (count <= 0) {
      const inFlight = this.#fullFeature?.inFlight ?? 0;
      const lost = count < 0 || inFlight > 0 ? `lost with ${inFlight} commands in flight` : null;
      this.#end(lost);
      return;
    }
    this.#inbox.end += count;
    this.#fullFeature?.heard();
    this.#work();
  }

  sent(result: number): void {
    this.#outbox.sent();
    if (this.#closed) return;
    if (result < 0) this.#end('the initiator does not take its answers any more');
    else this.progress();
  }

  // FullFeatureHost and SessionConnection

  progress(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.#context.reactor.defer(this.#run);
  }

  over(reason: string | null): void {
    if (reason !== null && !this.#closed) this.#say(`closed: ${reason}`);
    this.#leave();
  }

  submit(record: CommandRecord): void {
    this.#fullFeature?.submit(record);
  }

  drop(reason: string): void {
    this.#end(reason);
  }

  // The work

  #work(): void {
    if (this.#closed) return;
    let lack = this.#understand();
    if (this.#closed) return;
    this.#outbox.pump(this.#stream);
    if (this.#leaving) {
      const silent = this.#outbox.empty && this.#unsaid.length === 0;
      if (silent && (this.#fullFeature?.idle ?? true)) {
        this.#end(null);
        return;
      }
    } else if (lack === 'bytes' && !this.#receiving) {
      if (this.#inbox.receive(this.#stream)) this.#receiving = true;
      else lack = 'room';
    }
    if (lack === 'room' && !this.#waitsForMemory) {
      this.#waitsForMemory = true;
      this.#context.reactor.pool.whenFree(this.#memoryFreed);
    }
  }

  #understand(): Lack {
    if (!this.#sayRest()) return 'room';
    // Also when leaving: what was taken goes on until it is answered.
    if (this.#fullFeature !== null) return this.#fullFeature.advance();
    if (this.#leaving) return 'nothing';
    while (this.#login.state === 'negotiating' && this.#takeLoginPdu());
    if (!this.#sayRest()) return 'room';
    const fullFeature = this.#fullFeature as FullFeature | null;
    if (fullFeature !== null) return fullFeature.advance();
    return this.#leaving ? 'nothing' : 'bytes';
  }

  /** One PDU of the login phase, which has no digests. False: it is not all there. */
  #takeLoginPdu(): boolean {
    const inbox = this.#inbox;
    const there = inbox.end - inbox.start;
    if (there < BHS_BYTES) return false;
    const { bytes, view } = (inbox.page as Page).region;
    const at = inbox.start;
    const data = at + BHS_BYTES + ahsBytes(view, at);
    const dataBytes = dataSegmentLength(view, at);
    if (dataBytes > LOGIN_SEGMENT_BYTES) {
      this.over(`a PDU with ${dataBytes} bytes of data before the login is complete`);
      return false;
    }
    const end = data + padded(dataBytes);
    if (inbox.end < end) return false;
    inbox.start = end;
    this.#login.receive(bytes.subarray(at, at + BHS_BYTES), bytes.subarray(data, data + dataBytes));
    return true;
  }

  #answerLogin(header: Uint8Array, data: Uint8Array): void {
    const bytes = new Uint8Array(header.length + padded(data.length));
    bytes.set(header);
    bytes.set(data, header.length);
    this.#unsaid.push(bytes);
  }

  #admit(result: LoginResult): Admission {
    const { sessions } = this.#context;
    if (this.#stopping) {
      const reason = 'the server is stopping';
      return { status: LOGIN_STATUS.SERVICE_UNAVAILABLE, reason };
    }
    const status = sessions.admits(result);
    return status === LOGIN_STATUS.SUCCESS
      ? { tsih: sessions.tsihFor(result), window: COMMAND_WINDOW }
      : { status, reason: 'there is no place for its session' };
  }

  /** Says what the login has said. False: there is no memory for it yet. */
  #sayRest(): boolean {
    for (;;) {
      const first = this.#unsaid[0];
      if (first === undefined) return true;
      const said = this.#outbox.sayCopy(first);
      if (said < first.length) {
        this.#unsaid[0] = first.subarray(said);
        return false;
      }
      this.#unsaid.shift();
    }
  }

  #refused(reason: string): void {
    this.#context.log(`${this.peer}: ${reason}`);
    this.#leave();
  }

  #begin(result: LoginResult, tsih: number): void {
    this.#timer.cancel();
    this.#timer = this.#context.reactor.after(TICK_MS, this.#tick);
    const peer = peerOf(this.peer, result);
    const session = this.#context.sessions.open(result, tsih, this, peer);
    this.#session = session;
    const { reactor, node } = this.#context;
    const { pool } = reactor;
    this.#fullFeature = new FullFeature(session, this.#inbox, this.#outbox, pool, node, this);
    this.progress();
  }

  #say(line: string): void {
    const who = this.#session?.login.initiatorName;
    this.#context.log(`${this.peer}${who === undefined ? '' : ` ${who}`}: ${line}`);
  }

  #leave(): void {
    if (this.#leaving || this.#closed) return;
    this.#leaving = true;
    this.#fullFeature?.stop();
    this.#timer.cancel();
    // An initiator that takes no answers must not hold up the server's end.
    this.#timer = this.#context.reactor.after(CLOSE_TIMEOUT_MS, () => this.#end(null));
    this.progress();
  }

  #end(reason: string | null): void {
    if (this.#closed) return;
    this.#closed = true;
    if (reason !== null) this.#say(`closed: ${reason}`);
    this.#timer.cancel();
    this.#fullFeature?.dispose();
    this.#stream.close(() => {
      this.#inbox.dispose();
      this.#outbox.dispose();
      this.#context.reactor.pool.leave();
      this.#context.ended(this);
    });
  }
}

/** 127.0.0.0/8 and ::1, as IPv6 writes them too; the ring writes addresses out, without `::`. */
const LOOPBACK = /^(127\.|\[::1\]|\[(0:){7}1\]|\[::ffff:127\.|\[(0:){5}ffff:7f)/;

/**
 * An initiator on this host cannot outlive a crash of it; another one can, and is known by its port's name.
 */
function peerOf(peer: string, { initiatorName, isid }: LoginResult): Peer {
  const host = /^tcp (.*):\d+$/.exec(peer)?.[1] ?? '';
  const local = host === '' || LOOPBACK.test(host);
  return { resumable: !local, key: portName(initiatorName, isid) };
}
