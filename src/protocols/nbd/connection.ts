import type { Timer } from '../../base/clock.ts';
import type { Disk } from '../../durability/disk.ts';
import type { DiskSession, Peer, SessionOptions } from '../../durability/disk-session.ts';
import { Inbox } from '../../reactor/inbox.ts';
import { Outbox } from '../../reactor/outbox.ts';
import type { Page } from '../../reactor/page-pool.ts';
import type { Reactor, Stream, StreamOwner, TlsSettings } from '../../reactor/reactor.ts';
import type { ExportTable, NbdExport } from './export.ts';
import {
  type ExportInfo,
  type HandshakeHost,
  type HandshakeResult,
  type Refusal,
  ServerHandshake,
  type TlsMode,
} from './handshake.ts';
import { HANDSHAKE_TIMEOUT_MS, CLOSE_TIMEOUT_MS } from './limits.ts';
import { type Lack, Transmission, type TransmissionHost } from './transmission.ts';
import { NBD_HEADER, NBD_REP_ERR } from './wire.ts';

/** What all connections of a server share. */
export interface ConnectionContext {
  readonly reactor: Pick<Reactor, 'pool' | 'defer' | 'after'>;
  readonly exports: ExportTable;
  readonly tlsMode: TlsMode;
  readonly tls?: TlsSettings;
  /** One line about one connection. */
  readonly log: (line: string) => void;
  /** A client of `disk` is about to be served: on every face, those that are gone are ended. Absent: there is no other. */
  readonly fence?: (disk: Disk) => void;
  /** The connection has ended and holds nothing any more. */
  readonly ended: (connection: NbdConnection) => void;
}

/**
 * One client from accept to close: joins a stream with the handshake and then the transmission phase, gives them
 * memory, and stops listening while there is no room (back-pressure). Everything is done at most once per turn of the
 * reactor.
 */
export class NbdConnection implements StreamOwner, HandshakeHost, TransmissionHost {
  readonly #context: ConnectionContext;
  readonly #stream: Stream;
  readonly #inbox: Inbox;
  readonly #outbox: Outbox;
  readonly #handshake: ServerHandshake;
  #timer: Timer;
  #export: NbdExport | null = null;
  #session: DiskSession | null = null;
  #result: HandshakeResult | null = null;
  #transmission: Transmission | null = null;
  #receiving = false;
  /** Closing once everything said is sent and everything taken is answered. */
  #leaving = false;
  #closed = false;
  #scheduled = false;
  #waitsForMemory = false;
  #tlsWanted = false;
  /** Of the handshake; at most what one option is answered with. */
  readonly #unsaid: Uint8Array[] = [];
  readonly #run: () => void = () => {
    this.#scheduled = false;
    this.#work();
  };
  readonly #memoryFreed: () => void = () => {
    this.#waitsForMemory = false;
    this.progress();
  };

  constructor(context: ConnectionContext, stream: Stream) {
    this.#context = context;
    this.#stream = stream;
    this.#inbox = new Inbox(context.reactor.pool, NBD_HEADER.REQUEST);
    this.#outbox = new Outbox(context.reactor.pool);
    this.#handshake = new ServerHandshake(this, context.tlsMode);
    context.reactor.pool.join();
    stream.owner = this;
    this.#timer = context.reactor.after(HANDSHAKE_TIMEOUT_MS, () => {
      this.#end('the handshake took too long');
    });
    this.#handshake.start();
    this.progress();
  }

  /** Who is at the other end, for messages. */
  get peer(): string {
    return this.#stream.peer;
  }

  /** The server stops: takes nothing more, answers what it has taken, then closes. */
  shutdown(): void {
    this.#handshake.shutdown();
    this.#transmission?.stop();
    this.#leave();
  }

  /** See NbdExport.fenceGone. */
  endIfGone(): void {
    if (!this.#closed && this.#stream.peerGone()) this.#end('the client is gone');
  }

  /** The power of the disk is cut: the connection ends at once, and nothing is answered any more. */
  cut(): void {
    this.#end("the disk's power was cut");
  }

  // StreamOwner

  received(count: number): void {
    this.#receiving = false;
    if (this.#closed) return;
    if (count <= 0) {
      const inFlight = this.#transmission?.inFlight ?? 0;
      const lost = count < 0 || inFlight > 0 ? `lost with ${inFlight} requests in flight` : null;
      this.#end(lost);
      return;
    }
    this.#inbox.end += count;
    this.#work();
  }

  sent(result: number): void {
    this.#outbox.sent();
    if (this.#closed) return;
    if (result < 0) this.#end('the client does not take its answers any more');
    else this.progress();
  }

  // TransmissionHost

  progress(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.#context.reactor.defer(this.#run);
  }

  over(reason: string | null): void {
    if (reason !== null) this.#context.log(`${this.peer}: closed: ${reason}`);
    this.#leave();
  }

  // HandshakeHost

  send(bytes: Uint8Array): void {
    this.#unsaid.push(bytes);
    this.#sayRest();
    this.progress();
  }

  startTls(): void {
    this.#tlsWanted = true;
    this.progress();
  }

  lookup(name: string): ExportInfo | null {
    return this.#context.exports.get(name) ?? null;
  }

  list(): Iterable<ExportInfo> {
    return this.#context.exports.values();
  }

  open(name: string, ready: (refused: Refusal | null) => void): void {
    const found = this.#context.exports.get(name);
    if (found === undefined) {
      ready({ reply: NBD_REP_ERR.UNKNOWN, message: 'no such export' });
      return;
    }
    this.#export = found;
    if (this.#context.fence === undefined) found.fenceGone();
    else this.#context.fence(found.disk);
    const options: SessionOptions = {
      // Read when the session is made, in the same turn in which the client is told of NBD_FLAG_SEND_FLUSH or not:
      // who is not told never flushes, also when the write cache is switched on later (P9).
      get flushes() {
        return found.info.writeCache;
      },
      peer: peerOf(this.peer),
    };
    found.disk.openSession(options, (session) => {
      if (this.#closed) session.end();
      else {
        this.#session = session;
        ready(null);
        this.progress();
      }
    });
  }

  negotiated(result: HandshakeResult): void {
    this.#timer.cancel();
    this.#result = result;
    this.#export?.connections.add(this);
  }

  close(reason: string): void {
    this.#context.log(`${this.peer}: handshake: ${reason}`);
    this.#leave();
  }

  // The work

  #work(): void {
    if (this.#closed) return;
    let lack = this.#understand();
    if (this.#closed) return;
    this.#outbox.pump(this.#stream);
    const silent = this.#outbox.empty && this.#unsaid.length === 0;
    if (this.#tlsWanted && silent && !this.#receiving) this.#beginTls();
    if (this.#leaving) {
      if (silent && (this.#transmission?.inFlight ?? 0) === 0) {
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

  /** Says what the handshake has said and there was no memory for. False: there still is none. */
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

  #understand(): Lack {
    if (!this.#sayRest()) return 'room';
    // Also when leaving: long reads that were taken go on until they are answered.
    if (this.#transmission !== null) return this.#transmission.advance();
    if (this.#leaving) return 'nothing';
    const inbox = this.#inbox;
    if (
      this.#result === null &&
      inbox.start < inbox.end &&
      this.#handshake.state === 'negotiating'
    ) {
      const { bytes } = (inbox.page as Page).region;
      inbox.start += this.#handshake.receive(bytes.subarray(inbox.start, inbox.end));
    }
    const { state } = this.#handshake;
    if (this.#result !== null && state === 'done') {
      this.#transmission = new Transmission(
        this.#session as DiskSession,
        this.#result,
        inbox,
        this.#outbox,
        this.#context.reactor.pool,
        this,
      );
      return this.#transmission.advance();
    }
    return state === 'negotiating' ? 'bytes' : 'nothing';
  }

  #beginTls(): void {
    this.#tlsWanted = false;
    const { tls } = this.#context;
    // A request smuggled in behind STARTTLS in the clear would be taken for one that came through TLS.
    if (tls === undefined || this.#inbox.start < this.#inbox.end) {
      this.#end('bytes in the clear after STARTTLS');
      return;
    }
    this.#stream.startTls(tls, (error) => {
      if (this.#closed) return;
      if (error !== null) {
        this.#end(`TLS: ${error}`);
        return;
      }
      this.#handshake.tlsStarted();
      this.progress();
    });
  }

  #leave(): void {
    if (this.#leaving || this.#closed) return;
    this.#leaving = true;
    this.#timer.cancel();
    // A client that takes no answers must not hold up the server's end.
    this.#timer = this.#context.reactor.after(CLOSE_TIMEOUT_MS, () => this.#end(null));
    this.progress();
  }

  #end(reason: string | null): void {
    if (this.#closed) return;
    this.#closed = true;
    if (reason !== null) this.#context.log(`${this.peer}: closed: ${reason}`);
    this.#timer.cancel();
    this.#handshake.abandon();
    this.#session?.end();
    this.#export?.connections.delete(this);
    this.#transmission?.dispose();
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
 * A client on this host cannot outlive a crash of it; another one can, and is known by its address without the port.
 */
function peerOf(peer: string): Peer {
  const host = /^tcp (.*):\d+$/.exec(peer)?.[1] ?? '';
  const local = host === '' || LOOPBACK.test(host);
  return { resumable: !local, key: host };
}
