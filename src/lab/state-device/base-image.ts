import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { assert } from '../../base/assert.ts';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import { basePath } from '../../trace/base.ts';
import type { Trace, TraceDisk } from '../../trace/trace.ts';

/** What a disk held before its recording. Reads go to the file each time; the kernel keeps its pages. */
export class BaseImage {
  /** Or -1: zeroes. */
  readonly #fd: number;
  readonly #name: string;

  constructor(fd: number, name: string) {
    this.#fd = fd;
    this.#name = name;
  }

  get isZeroes(): boolean {
    return this.#fd < 0;
  }

  /** Fills `length` bytes of `target` from `at` on. */
  read(offset: number, target: Uint8Array, at: number, length: number): void {
    if (this.#fd < 0) {
      target.fill(0, at, at + length);
      return;
    }
    for (let done = 0; done < length;) {
      const count = readSync(this.#fd, target, at + done, length - done, offset + done);
      assert(count > 0, `${this.#name} became shorter while it was used`);
      done += count;
    }
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
  }
}

/** Opens the base of one disk of a trace. Throws a ConfigError when it is not there, or too short. */
export function openBase(trace: Trace, disk: TraceDisk): BaseImage {
  const path = basePath(trace, disk.base);
  if (path === null) return new BaseImage(-1, disk.name);
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new ConfigError(
      `${disk.name}: its base image cannot be opened: ${messageOf(error)}`,
      'keep the base image where the trace says, as it was when the recording began',
      { cause: error },
    );
  }
  const { size } = fstatSync(fd);
  if (size < disk.sizeBytes) {
    closeSync(fd);
    throw new ConfigError(
      `${disk.name}: its base image ${path} has ${formatSize(size)}, the disk ${formatSize(disk.sizeBytes)}`,
      'keep the base image as it was when the recording began',
    );
  }
  return new BaseImage(fd, path);
}
