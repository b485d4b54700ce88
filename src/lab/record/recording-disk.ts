import { execFile } from 'node:child_process';
import { closeSync, openSync, statSync, truncateSync } from 'node:fs';
import { promisify } from 'node:util';
import { ConfigError, messageOf } from '../../base/errors.ts';

const run = promisify(execFile);

/** Makes the file that a workload works on, empty at first: nobody else's is taken. Throws ConfigError. */
export function reserveRecordingDisk(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600));
  } catch (error) {
    throw new ConfigError(
      `cannot make the disk for the recording: ${messageOf(error)}`,
      (error as NodeJS.ErrnoException).code === 'EEXIST'
        ? 'another recording to this trace is under way; if not, remove the file'
        : 'it stands beside the trace while the workload runs',
      { cause: error },
    );
  }
}

/** Makes it a sparse copy of `image`, or zeroes. The image itself is not touched. Throws ConfigError. */
export async function fillRecordingDisk(
  path: string,
  image: string | null,
  sizeBytes: number,
): Promise<void> {
  try {
    if (image === null) {
      truncateSync(path, sizeBytes);
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
