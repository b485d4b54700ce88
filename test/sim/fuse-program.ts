import type { Prng } from '../../src/base/prng.ts';
import { viewOf } from '../../src/protocols/fuse/testing.ts';
import {
  ERRNO,
  FALLOC,
  FUSE_OP,
  O_DSYNC,
  readU32,
  readU64,
  SEEK,
} from '../../src/protocols/fuse/wire.ts';
import { bodies, type SimMount } from './fuse-mount.ts';
import type { ProgramTraits } from './fuse-scenario.ts';
import { fillSector, readSector, SECTOR_BYTES } from './media.ts';
import { type Kind, newSession, Op, type OracleSession } from './ops.ts';
import type { Oracle } from './oracle.ts';

// [open(2)]
const O_RDONLY = 0;
const O_RDWR = 2;
const O_SYNC = 0o4010000;

/** The kernel makes several requests of what is longer (max_write). */
const MAX_WRITE_SECTORS = (256 * 1024) / SECTOR_BYTES;

export interface ProgramHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  nextOp(): number;
  nextSession(): number;
  later(ms: number, callback: () => void): void;
  wantsMore(): boolean;
  /** Where the disk is mounted now; null: nowhere. */
  mount(program: Program): SimMount | null;
  /** It has ended. */
  over(program: Program): void;
}

/** One open of the file. */
class OpenedFile {
  readonly session: OracleSession;
  readonly mount: SimMount;
  readonly flags: number;
  readonly outstanding = new Map<number, Op>();
  handle = 0;
  opened = false;
  closing = false;
  released = false;

  constructor(mount: SimMount, session: OracleSession, flags: number) {
    this.mount = mount;
    this.session = session;
    this.flags = flags;
  }

  get writable(): boolean {
    return this.flags !== O_RDONLY;
  }

  get stable(): boolean {
    return (this.flags & O_DSYNC) !== 0;
  }
}

/** A program that opens the file, works with it, closes it, and begins again. It tells the oracle what it is told. */
export class Program {
  readonly #host: ProgramHost;
  readonly #traits: ProgramTraits;
  #file: OpenedFile | null = null;
  #pausing = false;

  constructor(host: ProgramHost, traits: ProgramTraits) {
    this.#host = host;
    this.#traits = traits;
  }

  /** It has nothing open. */
  get idle(): boolean {
    return this.#file === null;
  }

  open(): void {
    const host = this.#host;
    if (!host.wantsMore()) {
      host.over(this);
      return;
    }
    const mount = host.mount(this);
    if (mount === null || !mount.ready) {
      host.later(1 + host.prng.float() * 20, () => this.open());
      return;
    }
    const id = host.nextSession();
    const session = newSession({ id, peerKey: 'fuse', resumable: false, flushes: true });
    const file = new OpenedFile(mount, session, this.#flags());
    this.#file = file;
    host.oracle.opened(session);
    mount.ask({
      opcode: FUSE_OP.OPEN,
      body: bodies.open(file.flags),
      op: 0,
      taken: () => host.oracle.goArrived(session),
      told: (errno, body) => {
        if (errno !== 0) this.#fail(`an open failed: ${errno}`);
        file.handle = readU64(viewOf(body), 0);
        host.oracle.served(session);
      },
      heard: (errno) => {
        file.opened = true;
        if (errno === null) this.#dead();
        this.#goOn();
      },
    });
  }

  #flags(): number {
    const { prng } = this.#host;
    const { readOnlyOpens, stableOpens } = this.#traits;
    if (prng.chance(readOnlyOpens)) return O_RDONLY;
    return O_RDWR | (prng.chance(stableOpens) ? prng.pick([O_DSYNC, O_SYNC]) : 0);
  }

  #fail(text: string): never {
    return this.#host.oracle.fail(`session ${this.#file?.session.id}: ${text}`);
  }

  /** The mount is dead: what is under way there is not answered any more. */
  #dead(): void {
    const file = this.#file as OpenedFile;
    file.closing = true;
    file.released = true;
    this.#host.oracle.gone(file.session);
  }

  // Requests

  #goOn(): void {
    const { prng } = this.#host;
    const { depth, thinkMs } = this.#traits;
    const file = this.#file as OpenedFile;
    if (!file.opened) return;
    if (!this.#host.wantsMore()) file.closing = true;
    while (!file.closing && file.outstanding.size < depth && this.#host.wantsMore()) {
      this.#ask(file);
      if (prng.chance(0.3)) break;
    }
    if (file.closing) this.#close(file);
    else if (file.outstanding.size < depth && !this.#pausing) {
      this.#pausing = true;
      this.#host.later(prng.float() * thinkMs, () => {
        this.#pausing = false;
        if (this.#file !== null) this.#goOn();
      });
    }
  }

  /** close(2), after the last answer or before it, as when a process exits. */
  #close(file: OpenedFile): void {
    const { prng, oracle } = this.#host;
    const { outstanding, mount, handle } = file;
    if (file.released) {
      if (outstanding.size === 0 && this.#file === file) this.#over(file);
      return;
    }
    if (outstanding.size > 0 && !prng.chance(this.#traits.hasty)) return;
    file.released = true;
    // Until RELEASE is answered the open is there.
    outstanding.set(0, new Op(0, 'status', file.session, 0, 0, false));
    mount.ask({
      opcode: FUSE_OP.RELEASE,
      body: bodies.release(handle),
      op: 0,
      taken: () => {},
      told: (errno) => {
        if (errno !== 0) this.#fail(`a release failed: ${errno}`);
      },
      heard: (errno) => {
        outstanding.delete(0);
        if (errno === null) oracle.gone(file.session);
        this.#close(file);
      },
    });
  }

  #over(file: OpenedFile): void {
    const { prng, oracle } = this.#host;
    oracle.gone(file.session);
    this.#file = null;
    // Who opens at once is the one whose old requests may still be under way.
    this.#host.later(prng.chance(0.5) ? 0 : prng.float() * 50, () => this.open());
  }

  #ask(file: OpenedFile): void {
    const { prng, oracle } = this.#host;
    const op = this.#choose(file);
    op.streamed = true;
    oracle.asked(op);
    file.outstanding.set(op.id, op);
    const [opcode, body] = this.#message(file, op);
    file.mount.ask({
      opcode,
      body,
      op: op.id,
      taken: () => oracle.arrived(op),
      told: (errno, answer) => this.#told(op, body, errno, answer),
      heard: (errno) => this.#heard(file, op, errno),
    });
    if (!prng.chance(this.#traits.interrupts)) return;
    this.#host.later(prng.float() * 5, () => file.mount.interrupt(op.id));
  }

  #choose(file: OpenedFile): Op {
    const { prng, sectors: all } = this.#host;
    const traits = this.#traits;
    const make = (kind: Kind, first: number, sectors: number, fua = false): Op =>
      new Op(this.#host.nextOp(), kind, file.session, first, sectors, fua);
    if (prng.chance(traits.flushShare)) return make('flush', 0, 0);
    const first = prng.below(prng.chance(0.8) ? traits.hotSectors : all);
    const most = prng.chance(traits.huge) ? all : traits.maxSectors;
    const sectors = 1 + prng.below(Math.min(most, all - first));
    if (!file.writable || prng.chance(traits.readShare)) {
      if (prng.chance(traits.seekShare)) return make('status', first, all - first);
      return make('read', first, sectors);
    }
    if (prng.chance(traits.zeroShare)) {
      return make(prng.pick(['zeroes', 'trim']), first, sectors, file.stable);
    }
    const stable = file.stable || prng.chance(traits.stableWrites);
    return make('write', first, Math.min(sectors, MAX_WRITE_SECTORS), stable);
  }

  #message(file: OpenedFile, op: Op): readonly [opcode: number, body: Uint8Array] {
    const { prng } = this.#host;
    const { handle } = file;
    const offset = op.first * SECTOR_BYTES;
    const length = op.sectors * SECTOR_BYTES;
    switch (op.kind) {
      case 'flush':
        return [FUSE_OP.FSYNC, bodies.fsync(handle)];
      case 'read':
        return [FUSE_OP.READ, bodies.read(handle, offset, length)];
      case 'status':
        return [FUSE_OP.LSEEK, bodies.seek(handle, offset, prng.pick([SEEK.DATA, SEEK.HOLE]))];
      case 'write': {
        const payload = Buffer.alloc(length);
        for (let i = 0; i < op.sectors; i += 1) {
          fillSector(payload, i * SECTOR_BYTES, op.id, op.first + i);
        }
        const flags = file.flags | (op.fua && !file.stable ? prng.pick([O_DSYNC, O_SYNC]) : 0);
        return [FUSE_OP.WRITE, bodies.write(handle, offset, payload, flags)];
      }
      case 'zeroes':
      case 'trim': {
        const { PUNCH_HOLE, ZERO_RANGE, KEEP_SIZE } = FALLOC;
        const how = op.kind === 'trim' ? PUNCH_HOLE | KEEP_SIZE : ZERO_RANGE;
        return [FUSE_OP.FALLOCATE, bodies.fallocate(handle, offset, length, how)];
      }
      case 'cache':
        break;
    }
    return this.#fail('no system call asks for this');
  }

  // Answers

  #told(op: Op, body: Uint8Array, errno: number, answer: Uint8Array): void {
    const { oracle } = this.#host;
    oracle.programs += 1;
    if (op.kind === 'status') this.#judgeSeek(op, readU32(viewOf(body), 16), errno, answer);
    else if (errno !== 0 && errno !== ERRNO.EIO && errno !== ERRNO.ENOSPC) {
      this.#fail(`${op.text} failed with errno ${errno}`);
    } else if (errno === 0) this.#judge(op, answer);
    oracle.answered(op, errno);
  }

  #judge(op: Op, answer: Uint8Array): void {
    const length = op.sectors * SECTOR_BYTES;
    if (op.kind === 'write') {
      const written = readU32(viewOf(answer), 0);
      if (written !== length) this.#fail(`${op.text}: ${written} bytes were written`);
    }
    if (op.kind !== 'read') return;
    if (answer.length !== length) this.#fail(`${op.text}: ${answer.length} bytes were read`);
    const bytes = Buffer.from(answer.buffer, answer.byteOffset, answer.length);
    const contents = Array.from({ length: op.sectors }, (_, i) =>
      readSector(bytes, i * SECTOR_BYTES, op.first + i),
    );
    this.#host.oracle.readReturned(op, contents);
  }

  /** [lseek(2)] What lies before data, and where a hole begins, reads as zeroes. */
  #judgeSeek(op: Op, whence: number, errno: number, answer: Uint8Array): void {
    const { oracle, sectors } = this.#host;
    if (errno === ERRNO.ENXIO && whence === SEEK.DATA) {
      oracle.zeroReported(op, op.first, op.sectors);
      return;
    }
    if (errno !== 0) this.#fail(`${op.text}: a seek failed with errno ${errno}`);
    const at = readU64(viewOf(answer), 0) / SECTOR_BYTES;
    if (at < op.first || at > sectors) this.#fail(`${op.text}: a seek found sector ${at}`);
    if (whence === SEEK.DATA) oracle.zeroReported(op, op.first, at - op.first);
    else if (at < sectors) oracle.zeroReported(op, at, 1);
  }

  #heard(file: OpenedFile, op: Op, errno: number | null): void {
    const { prng, oracle } = this.#host;
    file.outstanding.delete(op.id);
    if (errno === null && !file.mount.dead) oracle.aborted(op);
    else if (errno === null && this.#file === file) this.#dead();
    if (prng.chance(this.#traits.closes)) file.closing = true;
    this.#goOn();
  }
}
