import { ConfigError } from '../../base/errors.ts';
import * as sys from './sys.ts';

// QEMU's image locking [QEMU block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE;
// include/block/block-common.h BLK_PERM_*]: whoever uses an image holds shared locks on single bytes of it. Byte 100
// + n says "I use permission n", byte
// 200 + n says "nobody else may use permission n". A conflict is found by testing the counterpart bytes after that.
const RAW_LOCK_PERM_BASE = 100;
const RAW_LOCK_SHARED_BASE = 200;

/** The bit numbers of QEMU's permissions. BLK_PERM_ALL is these four. */
const PERM = { CONSISTENT_READ: 0, WRITE: 1, WRITE_UNCHANGED: 2, RESIZE: 3 } as const;

interface Claim {
  readonly uses: readonly number[];
  readonly refuses: readonly number[];
}

const READER: Claim = {
  uses: [PERM.CONSISTENT_READ],
  refuses: [PERM.WRITE, PERM.RESIZE],
};
const WRITER: Claim = {
  uses: [PERM.CONSISTENT_READ, PERM.WRITE],
  refuses: [PERM.WRITE, PERM.WRITE_UNCHANGED, PERM.RESIZE],
};

/** [errno(3)] of a lock that the file system does not offer. */
const NO_LOCKS: ReadonlySet<number> = new Set([22, 37, 38, 95]); // EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP

/**
 * The lock on one image, held by one open file description until `release` or until that is closed. It keeps other
 * writers out: QEMU, its tools, and other Holdfasts.
 */
export class ImageLock {
  readonly #fd: number;
  readonly #name: string;
  #writer = false;
  readonly #held = new Set<number>();

  /** `name` is the disk as the operator calls it. */
  constructor(fd: number, name: string) {
    this.#fd = fd;
    this.#name = name;
  }

  get writer(): boolean {
    return this.#writer;
  }

  /**
   * Takes the lock for reading or writing, or raises it from the one to the other. Throws a ConfigError when somebody
   * else is in the way or locks cannot be had; what was held before is then still held.
   */
  acquire(writer: boolean): void {
    const claim = writer || this.#writer ? WRITER : READER;
    const before = new Set(this.#held);
    const refusal = this.#take(claim);
    if (refusal !== null) {
      for (const byte of this.#held) if (!before.has(byte)) this.#drop(byte);
      throw refusal;
    }
    this.#writer ||= writer;
  }

  release(): void {
    for (const byte of this.#held) this.#drop(byte);
    this.#writer = false;
  }

  #take(claim: Claim): ConfigError | null {
    const bytes = [
      ...claim.uses.map((bit) => RAW_LOCK_PERM_BASE + bit),
      ...claim.refuses.map((bit) => RAW_LOCK_SHARED_BASE + bit),
    ];
    for (const byte of bytes) {
      const result = sys.lockByte(this.#fd, byte);
      if (result < 0) return this.#failed(-result);
      this.#held.add(byte);
    }
    for (const bit of claim.uses) {
      const result = sys.byteIsLocked(this.#fd, RAW_LOCK_SHARED_BASE + bit);
      if (result !== 0) return this.#conflict(result, claim);
    }
    for (const bit of claim.refuses) {
      const result = sys.byteIsLocked(this.#fd, RAW_LOCK_PERM_BASE + bit);
      if (result !== 0) return this.#conflict(result, claim);
    }
    return null;
  }

  #drop(byte: number): void {
    sys.unlockByte(this.#fd, byte);
    this.#held.delete(byte);
  }

  #conflict(result: number, claim: Claim): ConfigError {
    if (result < 0) return this.#failed(-result);
    const why =
      claim === WRITER ? 'another process has it open' : 'another process may write to it';
    // A cause that says "not now": the command ends with the exit code for what is busy.
    const cause = Object.assign(new Error('locked'), { code: 'EBUSY' });
    return new ConfigError(
      `disk '${this.#name}' is in use: ${why}`,
      'stop the other user (QEMU, qemu-nbd, qemu-img, another holdfast) first, or serve a snapshot or a copy',
      { cause },
    );
  }

  #failed(errno: number): ConfigError {
    if (NO_LOCKS.has(errno)) {
      return new ConfigError(
        `disk '${this.#name}' is on a file system without byte-range locks (errno ${errno})`,
        'a second writer could not be kept out: mount it with locking (NFS: without nolock), or move the disk',
      );
    }
    return new ConfigError(
      `disk '${this.#name}' cannot be locked (errno ${errno})`,
      'somebody else holds an exclusive lock on it, or the system is out of locks: see /proc/locks',
      { cause: Object.assign(new Error('locked'), { code: 'EBUSY' }) },
    );
  }
}
