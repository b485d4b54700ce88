import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface PrivateSocket {
  readonly path: string;
  remove(): void;
}

/** A path for a socket in a new directory that only this user can enter: what `-k -` means. */
export function makePrivateSocket(): PrivateSocket {
  // mkdtemp(3) makes it with mode 0700.
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-'));
  return {
    path: join(directory, 'nbd.sock'),
    remove: () => rmSync(directory, { recursive: true, force: true }),
  };
}
