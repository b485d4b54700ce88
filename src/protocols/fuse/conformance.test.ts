import { unreachable } from '../../base/assert.ts';
import { VolatileDisk } from '../../../test/support/volatile-disk.ts';
import { conformance, type ConformanceTarget } from '../../block/conformance.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import { BlockError, type BlockErrorCode } from '../../block/errors.ts';
import { EXTENT } from '../../block/extents.ts';
import { FLAG, type Io, OP } from '../../block/io.ts';
import { Disk } from '../../durability/disk.ts';
import type { DiskSession } from '../../durability/disk-session.ts';
import { sourceOfDisk } from './source.ts';
import { FakeKernel, O_RDWR } from './testing.ts';
import { ERRNO, FALLOC, fuseErrno, O_DSYNC, SEEK } from './wire.ts';

// The device contract holds for what a program sees of the file: the same suite, through messages and back.

const O_RDONLY = 0;

/** A program that uses the file as a disk. */
class FileDevice implements BlockDevice {
  readonly info: DeviceInfo;
  readonly #kernel: FakeKernel;
  readonly #handle: number;
  /** O_DSYNC: fallocate(2) knows no other way to ask for it. */
  readonly #stable: number;
  #inFlight = 0;
  #closed = false;
  #quiet: () => void = () => {};
  readonly #end: () => Promise<void>;

  constructor(
    kernel: FakeKernel,
    handles: readonly [number, number],
    info: DeviceInfo,
    end: () => Promise<void>,
  ) {
    this.#kernel = kernel;
    [this.#handle, this.#stable] = handles;
    this.info = info;
    this.#end = end;
  }

  submit(io: Io): void {
    if (this.#closed) {
      io.complete('ESHUTDOWN');
      return;
    }
    this.#inFlight += 1;
    void this.#perform(io).then((errno) => {
      io.complete(errno === 0 ? null : codeOf(errno));
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#quiet();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#quiet = resolve;
      });
    }
    await this.#end();
  }

  async #perform(io: Io): Promise<number> {
    const { offset, length } = io;
    const stable = (io.flags & FLAG.FUA) !== 0;
    switch (io.op) {
      case OP.READ: {
        const { errno, body } = await this.#kernel.read(this.#handle, offset, length);
        if (errno === 0) io.segments.copyFrom(body);
        return errno;
      }
      case OP.WRITE:
        return this.#write(io, stable ? O_RDWR | O_DSYNC : O_RDWR);
      case OP.FLUSH:
        return (await this.#kernel.fsync(this.#handle)).errno;
      case OP.DISCARD:
      case OP.WRITE_ZEROES: {
        if ((io.flags & FLAG.FAST) !== 0) return ERRNO.EOPNOTSUPP;
        const how = (io.flags & FLAG.NO_HOLE) !== 0 ? FALLOC.ZERO_RANGE : FALLOC.PUNCH_HOLE;
        const handle = stable ? this.#stable : this.#handle;
        const mode = FALLOC.KEEP_SIZE | how;
        return (await this.#kernel.fallocate(handle, mode, offset, length)).errno;
      }
      case OP.EXTENTS:
        return this.#extents(io);
      case OP.CACHE:
        // A hint, and no system call that FUSE passes on.
        return 0;
      default:
        return unreachable(io.op);
    }
  }

  async #write(io: Io, flags: number): Promise<number> {
    const bytes = new Uint8Array(io.length);
    io.segments.copyTo(bytes);
    const { errno, view } = await this.#kernel.write(this.#handle, io.offset, bytes, flags);
    if (errno === 0 && view.getUint32(0, true) !== io.length) throw new Error('a short write');
    return errno;
  }

  async #extents(io: Io): Promise<number> {
    const end = io.offset + io.length;
    for (let at = io.offset; at < end;) {
      const found = await this.#kernel.seek(this.#handle, at, SEEK.DATA);
      if (found.errno !== 0 && found.errno !== ERRNO.ENXIO) return found.errno;
      const data =
        found.errno === 0 ? Math.min(end, Number(found.view.getBigUint64(0, true))) : end;
      io.extents.push(data - at, EXTENT.HOLE | EXTENT.ZERO);
      if (data === end || ((io.flags & FLAG.ONE) !== 0 && data > at)) break;
      const { errno, view } = await this.#kernel.seek(this.#handle, data, SEEK.HOLE);
      if (errno !== 0) return errno;
      at = Math.min(end, Number(view.getBigUint64(0, true)));
      io.extents.push(at - data, 0);
      if ((io.flags & FLAG.ONE) !== 0) break;
    }
    return 0;
  }
}

function codeOf(errno: number): BlockErrorCode {
  const found = Object.entries(fuseErrno).find(([, value]) => value === errno);
  return (found?.[0] ?? 'EIO') as BlockErrorCode;
}

/** A device that keeps barriers, which a program that uses a file has to make itself. */
async function withBarriers(file: FileDevice): Promise<BlockDevice> {
  const disk = new Disk({ store: file, mode: 'writeback' });
  const session = await new Promise<DiskSession>((resolve) => {
    disk.openSession({ flushes: true }, resolve);
  });
  return {
    get info() {
      return session.info;
    },
    submit: (io) => session.submit(io),
    close: () => closeWithoutFlush(disk),
  };
}

/** A disk whose sync has failed cannot be flushed at its end; that is not what is tested here. */
async function closeWithoutFlush(disk: Disk): Promise<void> {
  try {
    await disk.close();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}

let opened = 0;

/** A file in blocks of `fileBlock` bytes on a device in blocks of `deviceBlock`. */
async function open(
  deviceBlock: number,
  fileBlock: number,
  readOnly = false,
): Promise<ConformanceTarget> {
  opened += 1;
  const store = new VolatileDisk({ blocks: 512, blockBytes: deviceBlock, seed: opened, readOnly });
  const served = new Disk({ store, mode: 'writeback' });
  const kernel = await FakeKernel.mounted({ settings: { source: sourceOfDisk(served) } });
  const access = readOnly ? O_RDONLY : O_RDWR;
  const handles = [await kernel.open(access), await kernel.open(access | O_DSYNC)] as const;
  const { info } = served;
  const seen: DeviceInfo = Object.freeze({
    ...info,
    blockBytes: fileBlock,
    preferredBytes: Math.max(fileBlock, info.preferredBytes),
    maxTransferBytes: Math.min(info.maxTransferBytes, kernel.session.maxWriteBytes),
    fastZero: false,
    memoryAlignment: 1,
  });
  const file = new FileDevice(kernel, handles, seen, async () => {
    for (const handle of handles) await kernel.release(handle);
    await closeWithoutFlush(served);
  });
  return {
    device: await withBarriers(file),
    crash: async () => store.crash(),
    failNextSync: () => store.failNextSync(),
  };
}

conformance('a file in blocks of the device', () => open(512, 512), {
  openReadOnly: () => open(512, 512, true),
  canCrash: true,
  canFailSync: true,
  exactHoles: true,
});

// What a program writes is smaller than the device's blocks: parts of blocks are read, changed and written back. What a
// crash leaves is told block by block of the device, so the suite has nothing to say of it here.
conformance('a file in smaller blocks than the device', () => open(4096, 512), {
  openReadOnly: () => open(4096, 512, true),
  seed: 2,
});
