import koffi from 'koffi';

// Starting processes without fork(2). Node forks, which copies the page tables of a process with all of its caches:
// 10 ms at 200 MiB, when the checker itself takes 3. posix_spawn(3) shares the memory until the program runs.

const libc = koffi.load(null);
const actionsInit = libc.func('int posix_spawn_file_actions_init(void *actions)');
const actionsDup = libc.func(
  'int posix_spawn_file_actions_adddup2(void *actions, int from, int to)',
);
const actionsOpen = libc.func(
  'int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags, uint32_t mode)',
);
const actionsDestroy = libc.func('int posix_spawn_file_actions_destroy(void *actions)');
const attributesInit = libc.func('int posix_spawnattr_init(void *attributes)');
const setFlags = libc.func('int posix_spawnattr_setflags(void *attributes, short flags)');
const setGroup = libc.func('int posix_spawnattr_setpgroup(void *attributes, int group)');
const setMask = libc.func('int posix_spawnattr_setsigmask(void *attributes, const void *mask)');
const setDefault = libc.func(
  'int posix_spawnattr_setsigdefault(void *attributes, const void *mask)',
);
const attributesDestroy = libc.func('int posix_spawnattr_destroy(void *attributes)');
const spawnp = libc.func(
  'int posix_spawnp(_Out_ int *pid, const char *file, void *actions, void *attributes, ' +
    'const char **arguments, const char **environment)',
);
const waitid = libc.func('int waitid(int type, uint32_t id, void *info, int options)');
const killCall = libc.func('int kill(int pid, int signal)');
const closeCall = libc.func('int close(int fd)');
const syscall = libc.func('int64_t syscall(int64_t number, int64_t a, int64_t b)');

/** posix_spawn_file_actions_t, posix_spawnattr_t and sigset_t are 80, 336 and 128 bytes, in glibc and musl. */
const STRUCT_BYTES = 512;
/** [posix_spawn(3)], as in glibc and musl. */
const SPAWN_SETPGROUP = 2;
const SPAWN_SETSIGDEF = 4;
const SPAWN_SETSIGMASK = 8;
/** [pidfd_open(2)]: the same number on all architectures. */
const SYS_PIDFD_OPEN = 434;
/** [waitid(2)] */
const P_PID = 1;
const WNOHANG = 1;
const WEXITED = 4;
const WNOWAIT = 0x0100_0000;
const CLD_EXITED = 1;

export interface Spawned {
  /** Also the process group's number. 0: it was not started. */
  readonly pid: number;
  /** Why not, as posix_spawnp(3) returns it. */
  readonly errno: number;
}

/**
 * Starts a program, found in PATH, as the leader of a process group of its own. It reads nothing, and writes stdout and
 * stderr to `output`; all signals are as a shell would leave them.
 */
export function spawn(
  argv: readonly string[],
  environment: readonly string[],
  output: number,
): Spawned {
  const actions = Buffer.alloc(STRUCT_BYTES);
  const attributes = Buffer.alloc(STRUCT_BYTES);
  const pid = [0];
  actionsInit(actions);
  attributesInit(attributes);
  actionsOpen(actions, 0, '/dev/null', 0, 0);
  actionsDup(actions, output, 1);
  actionsDup(actions, output, 2);
  setFlags(attributes, SPAWN_SETPGROUP | SPAWN_SETSIGDEF | SPAWN_SETSIGMASK);
  setGroup(attributes, 0);
  setMask(attributes, Buffer.alloc(STRUCT_BYTES));
  setDefault(attributes, Buffer.alloc(STRUCT_BYTES, 0xff));
  const file = argv[0];
  const errno: unknown = spawnp(
    pid,
    file,
    actions,
    attributes,
    [...argv, null],
    [...environment, null],
  );
  actionsDestroy(actions);
  attributesDestroy(attributes);
  return errno === 0 ? { pid: pid[0] as number, errno: 0 } : { pid: 0, errno: errno as number };
}

/** A descriptor that can be read when the process has ended, closed on exec; or -1. */
export function pidfdOpen(pid: number): number {
  return Number(syscall(SYS_PIDFD_OPEN, pid, 0));
}

export interface ExitStatus {
  /** Null: a signal ended it. */
  readonly code: number | null;
  readonly signal: number;
}

/** How a child of ours ended; null: it has not. `keep`: its number stays taken, and it can be asked again. */
export function exitStatus(pid: number, keep: boolean): ExitStatus | null {
  const info = Buffer.alloc(128);
  const options = WEXITED | WNOHANG | (keep ? WNOWAIT : 0);
  if (waitid(P_PID, pid, info, options) !== 0) return null;
  // siginfo_t on 64 bits: si_code at 8, si_pid at 16 (0: nothing to tell), si_status at 24.
  if (info.readInt32LE(16) !== pid) return null;
  const status = info.readInt32LE(24);
  return info.readInt32LE(8) === CLD_EXITED
    ? { code: status, signal: 0 }
    : { code: null, signal: status };
}

/** SIGKILL to all of a process group; one that is gone is no error. */
export function killGroup(group: number): void {
  killCall(-group, 9);
}

export function closeDescriptor(fd: number): void {
  closeCall(fd);
}
