import { execFile } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, statSync } from 'node:fs';
import { promisify } from 'node:util';
import { ConfigError, messageOf } from '../../base/errors.ts';

const run = promisify(execFile);

/** Makes the file that a workload works on: a sparse copy of `image`, or zeroes. The image itself is not touched. */
export async function makeRecordingDisk(
  path: string,
  image: string | null,
  sizeBytes: number,
): Promise<void> {
  try {
    if (image === null) {
      const fd = openSync(path, 'wx', 0o600);
      try {
        ftruncateSync(fd, sizeBytes);
      } finally {
        closeSync(fd);
      }
      return;
    }
    if (!statSync(image).isFile()) throw new Error('it is no regular file');
    // The system's cp clones where the file system can, and keeps holes.
    await run('cp', ['--reflink=auto', '--sparse=always', '--', image, path]);
  } catch (error) {
    throw new ConfigError(
      `cannot make the disk for the recording${image === null ? '' : ` from ${image}`}: ${messageOf(error)}`,
      'it stands beside the trace while the workload runs, and takes as much space as the workload writes',
      { cause: error },
    );
  }
}
