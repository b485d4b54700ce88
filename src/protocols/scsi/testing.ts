import assert from 'node:assert/strict';
import type { Timer, Timers } from '../../base/clock.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { EXTENT } from '../../block/extents.ts';
import { FLAG, Io, type IoOwner, OP, type Op } from '../../block/io.ts';
import { Region } from '../../block/memory.ts';
import { Disk } from '../../durability/disk.ts';
import { type AdmitOwner, FlushDomain, type SyncTarget } from '../../durability/flush-domain.ts';
import type { CacheMode } from '../../durability/modes.ts';
import { LogicalUnit, type LogicalUnitOptions } from './logical-unit.ts';
import { Nexus } from './nexus.ts';
import { PersistentReservations } from './persistent-reservations.ts';
import { STATUS, TASK_ATTRIBUTE, type TaskAttribute } from './scsi.ts';
import { ScsiTarget } from './target.ts';
import { ScsiTask, type TaskOwner, TRANSFER } from './task.ts';

// A bench for tests of the device server: a disk with a volatile cache, a target on it, and initiators that send CDBs
// without a network between.

/** A disk in memory whose writes are lost with the power until a sync; it can hold requests and syncs until told. */
export class TestStore implements BlockDevice, SyncTarget, AdmitOwner {
  readonly info: DeviceInfo;
  readonly domain: FlushDomain;
  /** What is read, and what would be left without power. */
  readonly bytes: Uint8Array;
  stable: Uint8Array;
  /** Requests wait in `pending` for `finish`, syncs for `finishSync`. */
  holds = false;
  holdsSyncs = false;
  readonly pending: Io[] = [];
  syncs = 0;
  syncing = false;
  /** What the next sync ends with. */
  nextSync: BlockErrorCode | null = null;
  /** What the next request of an op ends with. */
  readonly failures = new Map<Op, BlockErrorCode>();
  readonly #holes: Uint8Array;
  #snapshot = new Uint8Array(0);

  constructor(options: Partial<DeviceInfo> = {}) {
    this.info = Object.freeze({
      name: 'test',
      sizeBytes: 256 * 1024,
      blockBytes: 512,
      preferredBytes: 4096,
      maxTransferBytes: 8192,
      readOnly: false,
      writeCache: true,
      ignoresFlush: false,
      fua: 'emulated',
      discard: true,
      fastZero: true,
      extents: true,
      rotational: false,
      memoryAlignment: 1,
      ...options,
    });
    const { sizeBytes } = this.info;
    this.bytes = new Uint8Array(sizeBytes);
    this.stable = new Uint8Array(sizeBytes);
    this.#holes = new Uint8Array(sizeBytes / 512).fill(1);
    this.domain = new FlushDomain({ target: this, sizeBytes });
  }

  submit(io: Io): void {
    if (io.op === OP.FLUSH) this.domain.flush(io);
    else if (!io.mutates || this.domain.admit(io, this)) this.admitted(io);
  }

  admitted(io: Io): void {
    this.pending.push(io);
    if (!this.holds) this.finish(io);
  }

  /** Does a held request: the oldest, or the one given. */
  finish(io: Io | undefined = this.pending[0], asked: BlockErrorCode | null = null): void {
    assert.ok(io !== undefined && this.pending.includes(io), 'nothing to finish');
    this.pending.splice(this.pending.indexOf(io), 1);
    const error = asked ?? this.failures.get(io.op) ?? null;
    this.failures.delete(io.op);
    if (error === null) this.#perform(io);
    if (!io.mutates) {
      io.complete(error);
      return;
    }
    const number = this.domain.mutated(io.offset, io.length);
    if (error === null && (io.flags & FLAG.FUA) !== 0) this.domain.flushTo(io, number);
    else io.complete(error);
  }

  /** Does everything that is held, and everything that follows from it. */
  settle(): void {
    for (;;) {
      if (this.pending.length > 0) this.finish();
      else if (this.syncing) this.finishSync();
      else return;
    }
  }

  startSync(): void {
    this.syncs += 1;
    this.syncing = true;
    this.#snapshot = this.bytes.slice();
    if (!this.holdsSyncs) this.finishSync();
  }

  finishSync(): void {
    assert.ok(this.syncing, 'no sync to finish');
    this.syncing = false;
    const error = this.nextSync;
    this.nextSync = null;
    if (error === null) this.stable = this.#snapshot;
    this.domain.synced(error);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #perform(io: Io): void {
    const { offset, length } = io;
    const end = offset + length;
    switch (io.op) {
      case OP.READ:
        io.segments.copyFrom(this.bytes.subarray(offset, end));
        break;
      case OP.WRITE:
        io.segments.copyTo(this.bytes.subarray(offset, end));
        this.#holes.fill(0, offset / 512, end / 512);
        break;
      case OP.WRITE_ZEROES:
      case OP.DISCARD:
        this.bytes.fill(0, offset, end);
        this.#holes.fill((io.flags & FLAG.NO_HOLE) === 0 ? 1 : 0, offset / 512, end / 512);
        break;
      case OP.EXTENTS:
        for (let at = offset; at < end; at += 512) {
          const hole = this.#holes[at / 512] === 1;
          io.extents.push(512, hole ? EXTENT.HOLE | EXTENT.ZERO : 0);
        }
        break;
      case OP.FLUSH:
      case OP.CACHE:
        break;
    }
  }
}

/** Time that passes when a test says so. */
export class TestTimers implements Timers {
  now = 0;
  #due: { at: number; readonly run: () => void }[] = [];

  nowMs(): number {
    return this.now;
  }

  after(delayMs: number, callback: () => void): Timer {
    const entry = { at: this.now + delayMs, run: callback };
    this.#due.push(entry);
    return { cancel: () => (this.#due = this.#due.filter((each) => each !== entry)) };
  }

  /** Runs what is due first; false when nothing is. */
  step(): boolean {
    const next = this.#due.toSorted((a, b) => a.at - b.at)[0];
    if (next === undefined) return false;
    this.#due = this.#due.filter((each) => each !== next);
    this.now = Math.max(this.now, next.at);
    next.run();
    return true;
  }

  run(): void {
    while (this.step());
  }
}

export interface SendOptions {
  readonly lun?: number;
  readonly dataOut?: Uint8Array;
  readonly attribute?: TaskAttribute;
  /** What the initiator announces, if not what it has. */
  readonly announced?: number;
  /** What it has room for, if not for everything. */
  readonly room?: number;
  /** Data-Out is not there yet: `Sent.give` brings it. */
  readonly late?: boolean;
}

/** A command and what became of it. */
export class Sent implements TaskOwner, IoOwner {
  readonly task = new ScsiTask();
  readonly initiator: TestInitiator;
  readonly #dataOut: Uint8Array;
  readonly #late: boolean;
  readonly #io = new Io();
  ready = false;
  aborting = false;
  done = false;
  /** Data-In: parameter data, or the blocks that were read. */
  data: Uint8Array = new Uint8Array(0);
  onDone: (() => void) | null = null;
  #region = Region.plain(0);
  #moved = 0;
  #given = false;

  constructor(initiator: TestInitiator, cdb: readonly number[], options: SendOptions) {
    this.initiator = initiator;
    this.#dataOut = options.dataOut ?? new Uint8Array(0);
    this.#late = options.late ?? false;
    const { task } = this;
    task.reset();
    task.owner = this;
    task.nexus = initiator.nexus;
    task.lun = options.lun ?? 0;
    task.tag = initiator.nextTag();
    task.attribute = options.attribute ?? TASK_ATTRIBUTE.SIMPLE;
    task.cdb.set(cdb);
    task.cdbBytes = cdb.length;
    task.expectedOutBytes = options.announced ?? this.#dataOut.length;
    task.expectedInBytes = options.room ?? Infinity;
  }

  taskReady(task: ScsiTask): void {
    assert.ok(!this.ready && !this.done, 'ready twice');
    this.ready = true;
    if (!this.#late || (task.transfer === TRANSFER.WHOLE && task.outBytes === 0)) this.give();
  }

  /** Data-Out is there, or there is room for Data-In. */
  give(): void {
    if (this.#given) return;
    this.#given = true;
    const { task } = this;
    if (task.transfer === TRANSFER.WHOLE) {
      const bytes = Math.min(task.outBytes, task.expectedOutBytes);
      task.dataOut = bytes === 0 ? null : this.#dataOut.slice(0, bytes);
      this.initiator.target.execute(task);
      return;
    }
    this.#region = Region.plain(task.transferBytes);
    if (task.transfer === TRANSFER.WRITE) {
      this.#region.bytes.set(this.#dataOut.subarray(0, task.transferBytes));
    }
    this.#move();
  }

  taskAborting(): void {
    this.aborting = true;
    // What is in flight is waited for; what has not begun never will.
    if (!this.#given) {
      this.#given = true;
      if (this.task.transfer === TRANSFER.WHOLE) this.initiator.target.execute(this.task);
      else this.initiator.target.transferred(this.task, null);
    }
  }

  taskDone(task: ScsiTask): void {
    assert.ok(!this.done, 'done twice');
    this.done = true;
    if (task.dataIn !== null) this.data = task.dataIn.slice();
    this.onDone?.();
  }

  ioDone({ error, length }: Io): void {
    if (error !== null) {
      this.initiator.target.transferred(this.task, error, this.task.offset + this.#moved);
      return;
    }
    this.#moved += length;
    this.#move();
  }

  get status(): number {
    assert.ok(this.done, 'the command has not ended');
    return this.task.status;
  }

  #move(): void {
    const { task } = this;
    const left = task.transferBytes - this.#moved;
    if (left === 0 || this.aborting) {
      if (task.transfer === TRANSFER.READ) this.data = this.#region.bytes;
      this.initiator.target.transferred(task, null);
      return;
    }
    const length = Math.min(left, task.session.info.maxTransferBytes);
    const op = task.transfer === TRANSFER.READ ? OP.READ : OP.WRITE;
    this.#io.reset(op, task.offset + this.#moved, length, task.ioFlags);
    this.#io.segments.push(this.#region, this.#moved, length);
    this.#io.push(this);
    task.session.submit(this.#io);
  }
}

let initiators = 0;

/** An initiator port with one session. */
export class TestInitiator {
  readonly target: ScsiTarget;
  readonly nexus: Nexus;
  #tags = 0;

  constructor(target: ScsiTarget, name?: string) {
    this.target = target;
    initiators += 1;
    const isid = initiators.toString(16).padStart(12, '0');
    const port = name ?? `iqn.2026-11.example:host${initiators},i,0x${isid}`;
    const initiator = { name: port, transportId: transportIdOf(port) };
    this.nexus = new Nexus(initiator, { resumable: false, key: port }, 1);
    let ready = false;
    target.openNexus(this.nexus, () => {
      ready = true;
    });
    assert.ok(ready, 'the nexus is not ready');
  }

  nextTag(): number {
    this.#tags += 1;
    return this.#tags;
  }

  send(cdb: readonly number[], options: SendOptions = {}): Sent {
    const sent = new Sent(this, cdb, options);
    this.target.submit(sent.task);
    return sent;
  }

  /** Sends a command that must end well at once. Returns its Data-In. */
  good(cdb: readonly number[], options: SendOptions = {}): Uint8Array {
    const sent = this.send(cdb, options);
    assert.ok(sent.done, 'the command has not ended');
    assert.equal(sent.status, STATUS.GOOD, `sense ${senseOf(sent)}`);
    return sent.data;
  }

  /** Sends a command that must end with CHECK CONDITION at once. */
  refused(cdb: readonly number[], options: SendOptions = {}): string {
    const sent = this.send(cdb, options);
    assert.ok(sent.done, 'the command has not ended');
    return senseOf(sent);
  }

  /** Takes all unit attentions. */
  attentions(lun = 0): string[] {
    const found: string[] = [];
    for (;;) {
      const sent = this.send([0, 0, 0, 0, 0, 0], { lun });
      assert.ok(sent.done);
      const sense = senseOf(sent);
      if (!sense.startsWith('6 ')) return found;
      found.push(sense.slice(2));
    }
  }
}

/** "key code": "5 2400", or "GOOD", "conflict". With a field pointer: "5 2400 C1.3" (byte 1, bit 3 of the CDB; P: parameters). */
export function senseOf({ task }: Sent): string {
  if (task.status === STATUS.GOOD) return 'GOOD';
  if (task.status === STATUS.RESERVATION_CONFLICT) return 'conflict';
  if (task.status !== STATUS.CHECK_CONDITION) return `status ${task.status}`;
  return describeSense(task.sense as Uint8Array);
}

/** The same from fixed format sense data. */
export function describeSense(sense: Uint8Array): string {
  const view = new DataView(sense.buffer, sense.byteOffset);
  const deferred = ((sense[0] as number) & 0x7f) === 0x71 ? 'deferred ' : '';
  const code = view.getUint16(12).toString(16).padStart(4, '0');
  const flags = sense[15] as number;
  let field = '';
  if ((flags & 0x80) !== 0 && ((sense[2] as number) & 0xf) === 5) {
    const bit = (flags & 0x08) === 0 ? '' : `.${flags & 7}`;
    field = ` ${(flags & 0x40) === 0 ? 'P' : 'C'}${view.getUint16(16)}${bit}`;
  }
  return `${deferred}${((sense[2] as number) & 0xf).toString(16)} ${code}${field}`;
}

/** [SPC-4 7.6.4.6] of an iSCSI initiator port, or of a device where the name has no ISID. */
export function transportIdOf(name: string): Uint8Array {
  const bytes = new TextEncoder().encode(`${name}\0`);
  const data = new Uint8Array(4 + Math.max(20, Math.ceil(bytes.length / 4) * 4));
  data[0] = name.includes(',i,') ? 0x45 : 0x05;
  data[3] = data.length - 4;
  data.set(bytes, 4);
  return data;
}

export interface BenchOptions {
  readonly store?: Partial<DeviceInfo>;
  readonly mode?: CacheMode;
  readonly unit?: Partial<LogicalUnitOptions>;
}

/** One target with LUN 0, and what it stands on. */
export interface Bench {
  readonly store: TestStore;
  readonly disk: Disk;
  readonly unit: LogicalUnit;
  readonly target: ScsiTarget;
  readonly timers: TestTimers;
  readonly lines: string[];
  /** One more initiator, which has taken its POWER ON and read the Caching page, as all do that use a disk. */
  initiator(name?: string): TestInitiator;
}

/** MODE SENSE (6) of the Caching page. */
const CACHING_PAGE = [0x1a, 8, 8, 0, 255, 0];

export function bench(options: BenchOptions = {}): Bench {
  const target = new ScsiTarget('iqn.2026-11.example:target');
  const made = addUnit(target, 0, options);
  return {
    ...made,
    target,
    initiator: (name) => {
      const initiator = new TestInitiator(target, name);
      for (const lun of target.units.keys()) {
        initiator.attentions(lun);
        initiator.send(CACHING_PAGE, { lun });
      }
      return initiator;
    },
  };
}

/** One more logical unit on the target of a bench. */
export function addUnit(
  target: ScsiTarget,
  lun: number,
  options: BenchOptions = {},
): Omit<Bench, 'target' | 'initiator'> {
  const store = new TestStore(options.store);
  const lines: string[] = [];
  const timers = new TestTimers();
  const log = (line: string): void => {
    lines.push(line);
  };
  const disk = new Disk({ store, mode: options.mode ?? 'writeback', domain: store.domain, log });
  const unit = new LogicalUnit({
    lun,
    disk,
    vendor: 'HOLDFAST',
    product: 'Test disk',
    revision: '1.0',
    serial: `serial-${lun}`,
    naa: Uint8Array.of(0x30, 1, 2, 3, 4, 5, 6, lun),
    removable: false,
    thin: false,
    reservations: new PersistentReservations({ store: null, log }),
    log,
    timers,
    ...options.unit,
  });
  target.addUnit(unit);
  return { store, disk, unit, timers, lines };
}

/** Big-endian numbers for CDBs. */
export function be16(value: number): [number, number] {
  return [(value >> 8) & 0xff, value & 0xff];
}

export function be32(value: number): [number, number, number, number] {
  return [(value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

export function be64(value: bigint | number): number[] {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return [...bytes];
}

export function read10(lba: number, blocks: number, flags = 0): number[] {
  return [0x28, flags, ...be32(lba), 0, ...be16(blocks), 0];
}

export function write10(lba: number, blocks: number, flags = 0): number[] {
  return [0x2a, flags, ...be32(lba), 0, ...be16(blocks), 0];
}

export function sync10(lba: number, blocks: number, flags = 0): number[] {
  return [0x35, flags, ...be32(lba), 0, ...be16(blocks), 0];
}

/** `blocks` blocks of one value. */
export function filled(value: number, blocks = 1): Uint8Array {
  return new Uint8Array(512 * blocks).fill(value);
}
