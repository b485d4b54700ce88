import { execFileSync } from 'node:child_process';
import { accessSync, constants, readFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { skipsFail } from './requires.ts';

function available(): string | false {
  if (process.getuid?.() !== 0) return 'needs root, to mount';
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return false;
  } catch {
    return 'needs /dev/fuse';
  }
}

const missing = available();
if (missing !== false && skipsFail()) {
  throw new Error(`with CI set no test may be skipped; those of FUSE: ${missing}`);
}

/** The options of a test that mounts. */
export const fuse: { readonly skip: string | false } = { skip: missing };

/** The line of the mount table of what is mounted there, or null. */
export function mountedAt(path: string): string | null {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return lines.find((line) => line.split(' ')[4] === path.replaceAll(' ', '\\040')) ?? null;
}

/** Whatever happens in the test, nothing stays mounted at `path`. */
export function unmountAtEnd(t: TestContext, path: string): void {
  t.after(() => {
    while (mountedAt(path) !== null) execFileSync('umount', ['-l', path]);
  });
}
