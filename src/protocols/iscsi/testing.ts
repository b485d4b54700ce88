import type { Timer } from '../../base/clock.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import { Io, OP } from '../../block/io.ts';
import { Region, Segments } from '../../block/memory.ts';
import type { CacheMode } from '../../durability/modes.ts';
import { Disk } from '../../durability/disk.ts';
import { PagePool } from '../../reactor/page-pool.ts';
import type { Stream, StreamOwner, TlsSettings } from '../../reactor/reactor.ts';
import { LogicalUnit } from '../scsi/logical-unit.ts';
import type { Reservations } from '../scsi/reservations.ts';
import { ScsiTarget } from '../scsi/target.ts';
import { openMemoryStore } from '../../stores/memory/memory-store.ts';
import { IscsiConnection } from './connection.ts';
import { IscsiInitiator, type InitiatorOptions } from './initiator/initiator.ts';
import type { IscsiTarget } from './node.ts';
import { SessionTable } from './session-table.ts';

// A target in memory, for tests: virtual time, streams in memory, a disk that can be slow and can fail.

export const TARGET_NAME = 'iqn.2026-11.test:disk';
export const BLOCK_BYTES = 512;
const ECONNRESET = -104;

/** A disk in memory whose requests can be held and failed. */
export class TestDevice implements BlockDevice {
  readonly info: DeviceInfo;
  readonly #store: BlockDevice;
  /** Requests that are held, in order. */
  readonly held: Io[] = [];
  /** Holds what it says yes to. */
  holds: (io: Io) => boolean = () => false;
  /** Fails what it says yes to, with EIO. */
  fails: (io: Io) => boolean = () => false;
  writes = 0;
  reads = 0;

  constructor(sizeBytes: number, changes: Partial<DeviceInfo> = {}) {
    this.#store = openMemoryStore({ name: 'test', sizeBytes });
    this.info = { ...this.#store.info, writeCache: true, ...changes };
  }

  submit(io: Io): void {
    if (io.op === OP.WRITE) this.writes += 1;
    if (io.op === OP.READ) this.reads += 1;
    if (this.holds(io)) this.held.push(io);
    else this.#perform(io);
  }

  /** Does what was held first. */
  release(count = 1): void {
    for (const io of this.held.splice(0, count)) this.#perform(io);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #perform(io: Io): void {
    if (this.fails(io)) io.complete('EIO');
    else this.#store.submit(io);
  }
}

const NO_RESERVATIONS: Reservations = {
  conflicts: () => false,
  nexusLost: () => {},
  unitReset: () => {},
};

interface TimedCall {
  readonly atMs: number;
  readonly callback: () => void;
  cancelled: boolean;
}

/** Deferred calls and timers, run when told. */
class TestReactor {
  readonly pool: PagePool;
  readonly #deferred: (() => void)[] = [];
  #timers: TimedCall[] = [];
  #now = 0;

  constructor(pageBytes: number, pages: number) {
    this.pool = new PagePool(pageBytes, pages, (bytes) => Region.plain(bytes));
  }

  nowMs(): number {
    return this.#now;
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback);
  }

  after(delayMs: number, callback: () => void): Timer {
    const call = { atMs: this.#now + delayMs, callback, cancelled: false };
    this.#timers.push(call);
    return {
      cancel: () => {
        call.cancelled = true;
      },
    };
  }

  /** True: something was done. */
  step(): boolean {
    const next = this.#deferred.shift();
    next?.();
    return next !== undefined;
  }

  get timers(): number {
    return this.#timers.filter((call) => !call.cancelled).length;
  }

  /** Time passes. */
  pass(ms: number, settle: () => void): void {
    const end = this.#now + ms;
    for (;;) {
      this.#timers = this.#timers.filter((call) => !call.cancelled);
      const due = this.#timers.toSorted((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined || due.atMs > end) break;
      this.#timers.splice(this.#timers.indexOf(due), 1);
      this.#now = due.atMs;
      due.callback();
      settle();
    }
    this.#now = end;
  }
}

/** The target's end of a connection; the other end is a function. */
export class TestStream implements Stream {
  owner!: StreamOwner;
  readonly peer: string;
  /** How many bytes the initiator takes from now on. */
  window = Infinity;
  /** The longest piece in which bytes arrive. */
  pieceBytes = Infinity;
  closed = false;
  /** The initiator does not understand what it hears. */
  deaf = false;
  readonly #toTarget: Uint8Array[] = [];
  #region: Region | null = null;
  #start = 0;
  #length = 0;
  #sending: Segments | null = null;
  #taken = 0;
  #gone = false;
  #closing: (() => void) | null = null;
  readonly #heard: (bytes: Uint8Array) => void;

  constructor(peer: string, heard: (bytes: Uint8Array) => void) {
    this.peer = peer;
    this.#heard = heard;
  }

  receive(region: Region, start: number, length: number): void {
    this.#region = region;
    this.#start = start;
    this.#length = length;
  }

  send(segments: Segments): void {
    this.#sending = segments;
    this.#taken = 0;
  }

  peerGone(): boolean {
    return this.#gone;
  }

  close(closed: () => void): void {
    this.#closing = closed;
  }

  startTls(_settings: TlsSettings, ready: (error: string | null) => void): void {
    ready('no TLS here');
  }

  /** The initiator sends. */
  write(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#toTarget.push(bytes);
  }

  /** The initiator goes away. */
  cut(): void {
    this.#gone = true;
  }

  /** Moves bytes. True: something was done. */
  step(): boolean {
    if (this.#closing !== null) return this.#close();
    return this.#deliver() || this.#take();
  }

  #close(): boolean {
    const closing = this.#closing as () => void;
    this.#closing = null;
    if (this.#region !== null) {
      this.#region = null;
      this.owner.received(0);
    }
    if (this.#sending !== null) {
      this.#sending = null;
      this.owner.sent(ECONNRESET);
    }
    this.closed = true;
    closing();
    return true;
  }

  #deliver(): boolean {
    const region = this.#region;
    const first = this.#toTarget[0];
    if (region === null || (first === undefined && !this.#gone)) return false;
    this.#region = null;
    if (first === undefined) {
      this.owner.received(0);
      return true;
    }
    const part = first.subarray(0, Math.min(this.#length, this.pieceBytes));
    region.bytes.set(part, this.#start);
    if (part.length === first.length) this.#toTarget.shift();
    else this.#toTarget[0] = first.subarray(part.length);
    this.owner.received(part.length);
    return true;
  }

  #take(): boolean {
    const segments = this.#sending;
    if (segments === null) return false;
    if (this.#gone) {
      this.#sending = null;
      this.owner.sent(ECONNRESET);
      return true;
    }
    const bytes = new Uint8Array(Math.min(segments.totalBytes - this.#taken, this.window));
    if (bytes.length === 0) return false;
    segments.copyTo(bytes, this.#taken);
    this.#taken += bytes.length;
    this.window -= bytes.length;
    if (this.#taken === segments.totalBytes) {
      this.#sending = null;
      this.owner.sent(0);
    }
    if (!this.deaf) this.#heard(bytes);
    return true;
  }
}

/** One initiator with its connection. */
export interface Client {
  readonly initiator: IscsiInitiator;
  readonly stream: TestStream;
  readonly connection: IscsiConnection;
}

export interface WorldOptions {
  readonly pageBytes?: number;
  readonly pages?: number;
  readonly sizeBytes?: number;
  readonly mode?: CacheMode;
  readonly info?: Partial<DeviceInfo>;
  /** How much Data-Out all sessions may collect. */
  readonly collectedBytes?: number;
}

/** A node with one target and one disk as LUN 0, and whoever connects to it. */
export class World {
  readonly device: TestDevice;
  readonly disk: Disk;
  readonly unit: LogicalUnit;
  readonly target: IscsiTarget;
  readonly sessions: SessionTable;
  readonly reactor: TestReactor;
  readonly lines: string[] = [];
  readonly connections = new Set<IscsiConnection>();
  readonly #streams: TestStream[] = [];

  constructor(options: WorldOptions = {}) {
    const { pageBytes = 272 * 1024, pages = 32, sizeBytes = 64 * 1024 * 1024 } = options;
    this.reactor = new TestReactor(pageBytes, pages);
    this.device = new TestDevice(sizeBytes, options.info);
    this.disk = new Disk({ store: this.device, mode: options.mode ?? 'writeback' });
    this.unit = new LogicalUnit({
      lun: 0,
      disk: this.disk,
      vendor: 'HOLDFAST',
      product: 'test disk',
      revision: '0.1',
      serial: 'T1',
      naa: new Uint8Array([0x30, 1, 2, 3, 4, 5, 6, 7]),
      removable: false,
      thin: true,
      reservations: NO_RESERVATIONS,
      log: (line) => this.lines.push(line),
    });
    const scsi = new ScsiTarget(TARGET_NAME);
    scsi.addUnit(this.unit);
    this.target = {
      name: TARGET_NAME,
      alias: 'test',
      scsi,
      chap: null,
      mutualChap: null,
      initiators: null,
    };
    this.sessions = new SessionTable(64, options.collectedBytes);
  }

  /** An initiator connects; nothing is said yet. */
  connect(options: Partial<InitiatorOptions> = {}): Client {
    const stream: TestStream = new TestStream('tcp 192.0.2.7:40000', (bytes) => {
      initiator.receive(bytes);
    });
    const initiator = new IscsiInitiator(
      { send: (bytes) => stream.write(bytes) },
      { targetName: TARGET_NAME, ...options },
    );
    this.#streams.push(stream);
    const targets = new Map([[this.target.name, this.target]]);
    const connection = new IscsiConnection(
      {
        reactor: this.reactor,
        node: { targets, portals: () => ['192.0.2.1:3260'] },
        sessions: this.sessions,
        log: (line) => this.lines.push(line),
        ended: (which) => this.connections.delete(which),
      },
      stream,
    );
    this.connections.add(connection);
    return { initiator, stream, connection };
  }

  /** The same, logged in, and the unit attention of the power on heard. */
  login(options: Partial<InitiatorOptions> = {}): Client {
    const client = this.connect(options);
    let status = -1;
    client.initiator.login((told) => {
      status = told;
    });
    this.settle();
    if (status !== 0) throw new Error(`the login failed: ${status} ${this.lines.join('; ')}`);
    if (options.targetName !== null) {
      client.initiator.command({ cdb: new Uint8Array(6) }, () => {});
      this.settle();
    }
    return client;
  }

  /** Until nothing moves. */
  settle(): void {
    for (let steps = 0; ; steps += 1) {
      if (steps > 1_000_000) throw new Error('it never comes to rest');
      let moved = this.reactor.step();
      for (const stream of this.#streams) if (!stream.closed && stream.step()) moved = true;
      if (!moved) return;
    }
  }

  pass(ms: number): void {
    this.reactor.pass(ms, () => this.settle());
    this.settle();
  }

  /** What the disk holds. */
  bytes(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const store = this.device;
    const { holds, fails } = store;
    store.holds = () => false;
    store.fails = () => false;
    const io = newIo(offset, bytes);
    store.submit(io);
    store.holds = holds;
    store.fails = fails;
    return bytes;
  }
}

function newIo(offset: number, bytes: Uint8Array): Io {
  const io = new Io();
  io.reset(OP.READ, offset, bytes.length, 0);
  io.segments.push(Region.plain(bytes), 0, bytes.length);
  io.push({ ioDone: () => {} });
  return io;
}
