import type { Prng } from '../../src/base/prng.ts';
import { portName } from '../../src/protocols/iscsi/session.ts';
import { type CacheView, InitiatorClient, type InitiatorHost } from './initiator-client.ts';
import type { InitiatorPlan, IscsiWorld } from './iscsi-scenario.ts';
import type { IscsiServer } from './iscsi-server.ts';
import type { Media } from './media.ts';
import type { Oracle } from './oracle.ts';
import { newSession } from './ops.ts';
import { ScsiOp } from './scsi-op.ts';
import { type NetworkTraits, SimStream } from './stream.ts';

/** What the initiators need of their world. */
export interface InitiatorsHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  readonly ignoresFlush: boolean;
  nextOp(): number;
  nextSession(): number;
  later(ms: number, callback: () => void): void;
  wantsMore(): boolean;
  /** The server that serves now, or null. */
  target(): IscsiServer | null;
}

/** An initiator port: a name and an ISID. It has one session, or two while one takes the other's place. */
interface Port {
  readonly plan: InitiatorPlan;
  readonly isid: Uint8Array;
  readonly view: CacheView;
  readonly live: Set<InitiatorClient>;
  /** A connection is on its way. */
  connecting: boolean;
}

/** The iSCSI initiators of a world. */
export class Initiators implements InitiatorHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  readonly ignoresFlush: boolean;
  readonly hotAt: number;
  readonly seen = new Map<number, number>();
  readonly #host: InitiatorsHost;
  readonly #network: NetworkTraits;
  readonly #ports: Port[] = [];
  readonly #portOf = new Map<InitiatorClient, Port>();

  constructor(host: InitiatorsHost, world: IscsiWorld, network: NetworkTraits) {
    this.#host = host;
    this.oracle = host.oracle;
    this.prng = host.prng;
    this.sectors = host.sectors;
    this.ignoresFlush = host.ignoresFlush;
    this.hotAt = world.hotAt;
    this.#network = network;
    for (const plan of world.initiators) {
      for (let i = 0; i < plan.sessions; i += 1) {
        const isid = new Uint8Array([0x00, 0x02, 0x3d, 0, 0, i + 1]);
        const view = { off: false };
        this.#ports.push({ plan, isid, view, live: new Set(), connecting: false });
      }
    }
  }

  start(): void {
    for (const port of this.#ports) this.#connect(port, 0);
  }

  get count(): number {
    return this.#portOf.size;
  }

  /** The server process is gone. */
  serverGone(): void {
    for (const client of Array.from(this.#portOf.keys())) client.hungUp();
  }

  /** COMPARE AND WRITE is about to change sectors: they are what it found, for no command has come between. */
  applying(id: number, media: Media): void {
    const op = this.oracle.ops.get(id);
    // What a failed sync drops from the cache comes back as something older.
    if (!(op instanceof ScsiOp) || op.role !== 'compare' || this.oracle.everFailed) return;
    for (let i = 0; i < op.sectors; i += 1) {
      if (op.orders.has(op.first + i)) continue;
      const { op: there, zero } = media.cached(op.first + i);
      const content = zero ? 0 : there;
      if (content === op.expected[i]) continue;
      // Clients of other protocols know no such sequence.
      if (there !== 0 && !(this.oracle.ops.get(there) instanceof ScsiOp)) continue;
      this.oracle.fail(
        `${op.text} replaces #${content} in sector ${op.first + i}, where it expected #${op.expected[i]}`,
      );
    }
  }

  // InitiatorHost

  nextOp(): number {
    return this.#host.nextOp();
  }

  later(ms: number, callback: () => void): void {
    this.#host.later(ms, callback);
  }

  wantsMore(): boolean {
    return this.#host.wantsMore();
  }

  loggedIn(client: InitiatorClient): void {
    for (const other of this.#portOf.get(client)?.live ?? []) {
      if (other !== client) this.oracle.gone(other.session);
    }
  }

  reinstate(client: InitiatorClient): void {
    const port = this.#portOf.get(client);
    if (port === undefined || port.connecting || port.live.size > 1) return;
    this.#connect(port, this.prng.chance(0.5) ? client.tsih : 0);
  }

  over(client: InitiatorClient): void {
    const port = this.#portOf.get(client) as Port;
    this.#portOf.delete(client);
    port.live.delete(client);
    if (port.live.size > 0 || port.connecting || !this.wantsMore()) return;
    port.connecting = true;
    const ms = this.prng.chance(0.5) ? 0 : this.prng.float() * 100;
    const tsih = this.prng.chance(0.2) ? client.tsih : 0;
    this.later(ms, () => this.#connect(port, tsih));
  }

  #connect(port: Port, tsih: number): void {
    port.connecting = false;
    if (!this.wantsMore()) return;
    const { plan } = port;
    const target = this.#host.target();
    if (target === null) {
      port.connecting = true;
      this.later(10 + this.prng.float() * 20, () => this.#connect(port, 0));
      return;
    }
    const id = this.#host.nextSession();
    const session = newSession({
      id,
      peerKey: portName(plan.name, port.isid),
      resumable: plan.resumable,
      flushes: true,
    });
    const client = new InitiatorClient(this, port, session, tsih);
    const { reactor } = target;
    const peer = `${plan.host}:${40_000 + id}`;
    client.stream = new SimStream(reactor, this.prng, this.#network, peer, client);
    this.#portOf.set(client, port);
    port.live.add(client);
    target.accept(client);
    client.login();
  }
}
