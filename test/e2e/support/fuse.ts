import { execFileSync } from 'node:child_process';
import { accessSync, constants, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

/** A private folder that goes with the test, whatever is still mounted in it then. */
export function mountFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'hf-'));
  t.after(() => {
    for (const path of mountsIn(folder)) execFileSync('umount', ['-l', path]);
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** Those on top first. */
function mountsIn(folder: string): string[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const points = lines.map((line) => (line.split(' ')[4] ?? '').replaceAll('\\040', ' '));
  return points.filter((point) => point.startsWith(`${folder}/`)).toReversed();
}
