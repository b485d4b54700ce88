import koffi from 'koffi';

// What node:fs cannot do. A failed call returns -errno, as the kernel itself does.

type Call = (...args: (number | Uint8Array | string)[]) => number;

interface Calls {
  readonly fcntl: Call;
  readonly ioctl: Call;
  readonly statx: Call;
  readonly fallocate: Call;
}

let loaded: Calls | null = null;

function calls(): Calls {
  if (loaded !== null) return loaded;
  const libc = koffi.load(null);
  const define = (prototype: string): Call => libc.func(prototype);
  // fcntl(2) and ioctl(2) are variadic in C; on every Linux ABI Node runs on, a pointer travels in the same register.
  loaded = {
    fcntl: define('int fcntl(int fd, int command, _Inout_ uint8_t *argument)'),
    ioctl: define('int ioctl(int fd, uint64_t request, _Inout_ uint8_t *argument)'),
    statx: define('int statx(int fd, str path, int flags, unsigned int mask, _Out_ uint8_t *out)'),
    fallocate: define('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
  };
  return loaded;
}

function checked(result: number): number {
  return result < 0 ? -koffi.errno() : result;
}

// [fcntl(2) "Open file description locks (non-POSIX)"], numbers of the Linux ABI.
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** struct flock on 64-bit Linux: short l_type, short l_whence, off_t l_start, off_t l_len, pid_t l_pid. */
const FLOCK_BYTES = 32;

function flockOf(type: number, byte: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(FLOCK_BYTES);
  const view = new DataView(bytes.buffer);
  view.setInt16(0, type, true);
  view.setUint32(8, byte, true);
  view.setUint32(16, 1, true);
  return { bytes, view };
}

/** Takes a shared lock on one byte for the open file description of `fd`. Returns 0 or -errno. */
export function lockByte(fd: number, byte: number): number {
  return checked(calls().fcntl(fd, F_OFD_SETLK, flockOf(F_RDLCK, byte).bytes));
}

export function unlockByte(fd: number, byte: number): number {
  return checked(calls().fcntl(fd, F_OFD_SETLK, flockOf(F_UNLCK, byte).bytes));
}

/** Whether another open file description holds a lock on the byte: 1 or 0, or -errno. */
export function byteIsLocked(fd: number, byte: number): number {
  const { bytes, view } = flockOf(F_WRLCK, byte);
  const result = checked(calls().fcntl(fd, F_OFD_GETLK, bytes));
  if (result < 0) return result;
  return view.getInt16(0, true) === F_UNLCK ? 0 : 1;
}

// [ioctl_blk(2)], <linux/fs.h>
const BLKROGET = 0x125e;
const BLKSSZGET = 0x1268;
const BLKPBSZGET = 0x127b;
const BLKGETSIZE64 = 0x80081272;

export interface BlockDeviceFacts {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
}

/** What a block device says of itself, or -errno. */
export function blockDeviceFacts(fd: number): BlockDeviceFacts | number {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  const ask = (request: number): number => {
    bytes.fill(0);
    return checked(calls().ioctl(fd, request, bytes));
  };
  const sized = ask(BLKGETSIZE64);
  if (sized < 0) return sized;
  const sizeBytes = Number(view.getBigUint64(0, true));
  const asked = ask(BLKSSZGET);
  const logicalBlockBytes = asked < 0 ? 512 : view.getUint32(0, true);
  const physical = ask(BLKPBSZGET);
  const physicalBlockBytes = physical < 0 ? logicalBlockBytes : view.getUint32(0, true);
  const readOnly = ask(BLKROGET) >= 0 && view.getUint32(0, true) !== 0;
  return { sizeBytes, readOnly, logicalBlockBytes, physicalBlockBytes };
}

// [statx(2)]
const AT_EMPTY_PATH = 0x1000;
const STATX_DIOALIGN = 0x2000;
const STATX_BYTES = 256;
const STX_DIO_MEM_ALIGN = 152;
const STX_DIO_OFFSET_ALIGN = 156;

export interface DirectAlignment {
  readonly memoryBytes: number;
  readonly offsetBytes: number;
}

/** What O_DIRECT asks for on this file, in bytes; null where the kernel (before 6.1) or file system does not say. */
export function directAlignment(fd: number): DirectAlignment | null {
  const out = new Uint8Array(STATX_BYTES);
  const result = calls().statx(fd, '', AT_EMPTY_PATH, STATX_DIOALIGN, out);
  const view = new DataView(out.buffer);
  if (result < 0 || (view.getUint32(0, true) & STATX_DIOALIGN) === 0) return null;
  const memoryBytes = view.getUint32(STX_DIO_MEM_ALIGN, true);
  const offsetBytes = view.getUint32(STX_DIO_OFFSET_ALIGN, true);
  return memoryBytes === 0 || offsetBytes === 0 ? null : { memoryBytes, offsetBytes };
}

/** fallocate(2) with mode 0: reserves space for the first `length` bytes and makes the file that long. 0 or -errno. */
export function allocateSpace(fd: number, length: number): number {
  return checked(calls().fallocate(fd, 0, 0, length));
}

/** fallocate(2) FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE */
const PUNCH_HOLE = 3;

/**
 * Whether space can be given back inside the file: asked for one byte behind its end, where there is nothing to give
 * back and nothing changes.
 */
export function canPunchHoles(fd: number, sizeBytes: number): boolean {
  return checked(calls().fallocate(fd, PUNCH_HOLE, sizeBytes, 1)) === 0;
}
