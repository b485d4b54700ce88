import { Buffer } from 'node:buffer';

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** Builds an initramfs: a cpio archive in the "newc" format [kernel buffer-format.rst, cpio(5)]. */
export class Cpio {
  readonly #parts: Buffer[] = [];
  readonly #folders = new Set<string>();
  #inode = 1;

  /** Adds a regular file, and its folders. Paths have no leading slash. */
  file(path: string, content: Buffer, mode = 0o755): void {
    this.#parents(path);
    this.#entry(path, S_IFREG | mode, content);
  }

  link(path: string, target: string): void {
    this.#parents(path);
    this.#entry(path, S_IFLNK | 0o777, Buffer.from(target));
  }

  folder(path: string): void {
    if (path === '' || path === '.' || this.#folders.has(path)) return;
    this.#parents(path);
    this.#folders.add(path);
    this.#entry(path, S_IFDIR | 0o755, Buffer.alloc(0));
  }

  finish(): Buffer {
    this.#entry('TRAILER!!!', 0, Buffer.alloc(0));
    return Buffer.concat(this.#parts);
  }

  #parents(path: string): void {
    const slash = path.lastIndexOf('/');
    if (slash > 0) this.folder(path.slice(0, slash));
  }

  #entry(path: string, mode: number, content: Buffer): void {
    const name = Buffer.from(`${path}\0`);
    // c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, four device numbers, c_namesize, c_check
    const fields = [this.#inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
    this.#inode += 1;
    const text = fields.map((field) => field.toString(16).padStart(8, '0')).join('');
    this.#push(Buffer.concat([Buffer.from(`070701${text}`), name]));
    this.#push(content);
  }

  #push(bytes: Buffer): void {
    this.#parts.push(bytes);
    const rest = bytes.length % 4;
    if (rest !== 0) this.#parts.push(Buffer.alloc(4 - rest));
  }
}
