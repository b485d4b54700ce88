import { AssertionError } from '../base/assert.ts';
import { ConfigError, UsageError } from '../base/errors.ts';

/** How Holdfast's commands end. Numbers above 63 are those of sysexits(3), 130 and 143 the shell's 128 + signal. */
export const EXIT = {
  OK: 0,
  /** The operation failed, or the answer is no. */
  FAILED: 1,
  /** The command line is wrong. */
  USAGE: 2,
  /** Something needed is busy or not there now: a port, a lock, a server. */
  UNAVAILABLE: 69,
  /** A bug in Holdfast. */
  INTERNAL: 70,
  /** The disk, the host or a file named on the command line is not as it must be. */
  CONFIG: 78,
  /** A second SIGINT while draining. */
  SIGINT: 130,
  /** A second SIGTERM while draining. */
  SIGTERM: 143,
} as const;

/** The same in words, for the pages. */
export const EXIT_TEXTS: readonly (readonly [number, string])[] = [
  [EXIT.OK, 'Success; for a server: stopped when told to, with everything made stable.'],
  [EXIT.FAILED, 'The operation failed, or the answer is no.'],
  [EXIT.USAGE, 'The command line is wrong, or Node is older than 22.18.'],
  [EXIT.UNAVAILABLE, 'Something needed is busy or not there now: a port, a lock, a server.'],
  [EXIT.INTERNAL, 'A bug in Holdfast.'],
  [EXIT.CONFIG, 'A disk, a file or the host is not as it must be.'],
  [EXIT.SIGINT, 'Ended at once by a second SIGINT.'],
  [EXIT.SIGTERM, 'Ended at once by a second SIGTERM.'],
];

/** What an operator asked for is not there now; trying again later may help. */
export class UnavailableError extends ConfigError {}

// Errno names that mean "not now" rather than "wrong".
const BUSY: ReadonlySet<string> = new Set([
  'EADDRINUSE',
  'EAGAIN',
  'EBUSY',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
]);

/** The exit code for anything thrown. The class decides, except that a busy cause anywhere below means 69. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return EXIT.USAGE;
  if (error instanceof UnavailableError) return EXIT.UNAVAILABLE;
  if (error instanceof AssertionError) return EXIT.INTERNAL;
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code !== undefined && BUSY.has(code)) return EXIT.UNAVAILABLE;
  }
  if (error instanceof ConfigError) return EXIT.CONFIG;
  // A TypeError or RangeError without an errno is nobody's mistake but ours.
  if (error instanceof TypeError || error instanceof RangeError || !(error instanceof Error)) {
    return (error as NodeJS.ErrnoException | null)?.code === undefined
      ? EXIT.INTERNAL
      : EXIT.FAILED;
  }
  return EXIT.FAILED;
}

/** The one line on stderr for anything thrown: what happened, then what to do about it. */
export function errorLine(error: unknown): string {
  const what = error instanceof Error ? error.message : String(error);
  const hint = error instanceof ConfigError && error.hint !== '' ? `: ${error.hint}` : '';
  return `holdfast: ${what}${hint}`.replaceAll(/\s*\n\s*/g, ' ');
}
