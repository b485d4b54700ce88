import { closeSync, openSync, realpathSync, statSync } from 'node:fs';
import { ConfigError } from '../../base/errors.ts';
import { clearPoison, readStateFile } from '../../durability/state-file.ts';
import { ImageLock } from '../../stores/file/lock.ts';
import { stateFilePath } from '../../stores/file/open.ts';
import { openRefused, wrongKind } from '../../stores/file/refusals.ts';
import { EXIT } from '../exit-codes.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { switchOption } from '../serve/options.ts';

/** `holdfast clear DISK`: removes the mark of a failed sync. The disk's own bytes are not touched. */
export function runClear(
  operands: readonly string[],
  options: OptionValues,
  output: Output,
): number {
  const [disk = ''] = operands;
  const path = statePath(disk);
  const poisoned = readStateFile(path)?.poisoned ?? null;
  if (poisoned === null) {
    output.info(`${disk} is not poisoned; there is nothing to clear`);
    return EXIT.OK;
  }
  const what = `a sync of ${disk} failed with ${poisoned.error} at ${poisoned.when}`;
  if (!switchOption(options, 'yes')) {
    output.warn(`${what}; --yes says that what was lost is repaired or given up`);
    return EXIT.FAILED;
  }
  whileLocked(disk, () => clearPoison(path));
  output.info(`${what}; the mark is cleared`);
  return EXIT.OK;
}

function statePath(disk: string): string {
  if (disk.startsWith('memory:')) {
    throw new ConfigError(`${disk} is forgotten when its server ends`, 'there is nothing to clear');
  }
  try {
    const stats = statSync(disk);
    if (stats.isFile() || stats.isBlockDevice()) {
      return stateFilePath({}, realpathSync(disk), stats);
    }
  } catch (error) {
    throw openRefused({ path: disk, direct: false, readOnly: false }, error);
  }
  throw wrongKind(disk, 'neither a file nor a block device');
}

/** Keeps servers away from the disk meanwhile. */
function whileLocked(disk: string, action: () => void): void {
  let fd: number;
  try {
    fd = openSync(disk, 'r+');
  } catch (error) {
    throw openRefused({ path: disk, direct: false, readOnly: false }, error);
  }
  try {
    new ImageLock(fd, disk).acquire(true);
    action();
  } finally {
    closeSync(fd);
  }
}
