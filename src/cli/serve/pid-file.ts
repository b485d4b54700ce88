import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { ConfigError, messageOf } from '../../base/errors.ts';

/** Writes our process id, whole or not at all, and returns what removes the file again if it is still ours. */
export function writePidFile(path: string, pid: number): () => void {
  const text = `${pid}\n`;
  const fresh = `${path}.${pid}`;
  try {
    writeFileSync(fresh, text, { flag: 'wx' });
    renameSync(fresh, path);
  } catch (error) {
    rmSync(fresh, { force: true });
    throw new ConfigError(`cannot write the pid file ${path}`, messageOf(error), { cause: error });
  }
  return () => {
    try {
      if (readFileSync(path, 'utf8') === text) rmSync(path);
    } catch {
      // Somebody else has removed it, which is what was wanted.
    }
  };
}
