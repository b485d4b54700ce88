/**
 * Why a device failed one request. A closed set: every protocol has one table from these to its own codes, complete
 * at compile time.
 */
export type BlockErrorCode =
  | 'EIO'
  | 'ENOSPC'
  | 'EROFS'
  | 'EINVAL'
  | 'ERANGE'
  | 'EOPNOTSUPP'
  | 'ETIMEDOUT'
  | 'ECANCELED'
  | 'ESHUTDOWN'
  | 'EBUSY'
  | 'ENOMEM'
  | 'EPERM'
  | 'EMISCOMPARE'
  | 'ECORRUPT';

/** The same as an exception, for callers that await. Match on `code`. */
export class BlockError extends Error {
  override readonly name = 'BlockError';
  readonly code: BlockErrorCode;

  constructor(code: BlockErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

// Linux errno(3) numbers of what a disk's system calls return; anything else is an EIO.
const BY_ERRNO: Readonly<Record<number, BlockErrorCode>> = {
  1: 'EPERM',
  5: 'EIO',
  12: 'ENOMEM',
  16: 'EBUSY',
  22: 'EINVAL',
  27: 'ENOSPC', // EFBIG: the host file system cannot hold a file of that size
  28: 'ENOSPC',
  30: 'EROFS',
  84: 'ECORRUPT', // EILSEQ, as file systems with checksums return it
  95: 'EOPNOTSUPP',
  110: 'ETIMEDOUT',
  122: 'ENOSPC', // EDQUOT
  125: 'ECANCELED',
};

/** The code for a positive Linux errno. */
export function codeOfErrno(errno: number): BlockErrorCode {
  return BY_ERRNO[errno] ?? 'EIO';
}
