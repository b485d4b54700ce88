import { ConfigError } from '../../base/errors.ts';

/** [sd_listen_fds(3)] passed descriptors start at 3. */
const SD_LISTEN_FDS_START = 3;

/** More listening sockets than any socket unit has; a larger number is a broken environment. */
const MOST_FDS = 64;

export interface ActivatedSocket {
  readonly fd: number;
  /** FileDescriptorName= of the socket unit, or ''. */
  readonly name: string;
}

/**
 * The sockets that systemd, or whoever speaks its protocol, left open for this process. Removes the variables, so that
 * commands started from here do not take them for theirs. [sd_listen_fds(3)]
 */
export function takeActivatedSockets(
  env: Record<string, string | undefined>,
  pid: number,
): ActivatedSocket[] {
  const forPid = env['LISTEN_PID'];
  const fds = env['LISTEN_FDS'];
  const names = env['LISTEN_FDNAMES'];
  delete env['LISTEN_PID'];
  delete env['LISTEN_FDS'];
  delete env['LISTEN_FDNAMES'];
  // Meant for another process, for example our parent.
  if (fds === undefined || forPid !== String(pid)) return [];
  const count = /^\d{1,4}$/.test(fds) ? Number(fds) : NaN;
  if (!(count <= MOST_FDS)) {
    throw new ConfigError(
      `LISTEN_FDS is '${fds}'`,
      `it must be a number up to ${MOST_FDS}; see sd_listen_fds(3)`,
    );
  }
  const split = names === undefined ? [] : names.split(':');
  return Array.from({ length: count }, (_, i) => ({
    fd: SD_LISTEN_FDS_START + i,
    name: split[i] ?? '',
  }));
}
