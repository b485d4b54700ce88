import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { ConfigError, messageOf } from '../base/errors.ts';
import { MiB } from '../base/units.ts';

const BUFFER_BYTES = 1 * MiB;

/** A new file that is written from beginning to end, for those who have time. */
export class FileSink {
  readonly #path: string;
  readonly #fd: number;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #used = 0;

  /** Throws ConfigError when the file is there already or cannot be made. */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#fd = openSync(path, 'wx');
    } catch (error) {
      throw new ConfigError(
        `${path} cannot be written: ${messageOf(error)}`,
        'name a file that is not there yet, in a directory that is',
        { cause: error },
      );
    }
  }

  /** `bytes` may be reused afterwards. */
  put(bytes: Uint8Array): void {
    if (this.#used + bytes.length > this.#buffer.length) this.#flush();
    if (bytes.length > this.#buffer.length) {
      writeAll(this.#fd, bytes);
    } else {
      this.#buffer.set(bytes, this.#used);
      this.#used += bytes.length;
    }
  }

  putAll(parts: readonly Uint8Array[]): void {
    for (const part of parts) this.put(part);
  }

  /** Ends the file; `first` then takes the place of its first bytes. */
  end(first?: Uint8Array): void {
    this.#flush();
    if (first !== undefined) writeSync(this.#fd, first, 0, first.length, 0);
    closeSync(this.#fd);
  }

  /** Removes it. */
  abandon(): void {
    closeSync(this.#fd);
    rmSync(this.#path, { force: true });
  }

  #flush(): void {
    writeAll(this.#fd, this.#buffer.subarray(0, this.#used));
    this.#used = 0;
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
}
