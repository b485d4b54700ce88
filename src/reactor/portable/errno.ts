// Linux errno(3) numbers, which Completion and StreamOwner speak on every platform.
const LINUX_ERRNO: Readonly<Record<string, number>> = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EISDIR: 21,
  EINVAL: 22,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EPIPE: 32,
  EPROTO: 71,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  ENOTSUP: 95,
  EADDRINUSE: 98,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EDQUOT: 122,
  ECANCELED: 125,
  // Node's own: a write to a stream that was destroyed or ended.
  ERR_STREAM_DESTROYED: 32,
  ERR_STREAM_WRITE_AFTER_END: 32,
};

/** The negated Linux errno of an error from node:fs, node:net or node:tls; -EIO for what has none. */
export function negatedErrno(error: Error): number {
  const { code, errno } = error as NodeJS.ErrnoException;
  const known = LINUX_ERRNO[code ?? ''];
  if (known !== undefined) return -known;
  // libuv numbers its own errors from -4095 on; on other systems the host's numbers are not Linux's.
  if (process.platform === 'linux' && errno !== undefined && errno < 0 && errno > -3000)
    return errno;
  return code?.startsWith('ERR_SSL_') === true ? -71 : -5;
}
