import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

// What a block of ext2, ext3 or ext4 belongs to, asked of debugfs [debugfs(8)].

const run = promisify(execFile);

/** [ext4 "Super Block"] s_magic at byte 56 of the superblock, which is at byte 1024; s_log_block_size at 24. */
const SUPER_OFFSET = 1024;
export const EXT_SUPER_BYTES: number = SUPER_OFFSET + 1024;
const MAGIC_OFFSET = SUPER_OFFSET + 56;
const MAGIC = 0xef53;
const LOG_BLOCK_SIZE_OFFSET = SUPER_OFFSET + 24;

/** [ext4 "Special inodes"] */
const SPECIAL_INODES: Readonly<Record<number, string>> = {
  1: 'list of bad blocks',
  2: 'root directory',
  7: 'reserved group descriptors',
  8: 'journal',
};

const OUTPUT_BYTES = 16 * 2 ** 20;

/** Bytes of a block, or null: these first bytes of a disk are of no such file system. */
export function extBlockBytes(start: Uint8Array): number | null {
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  if (start.length < EXT_SUPER_BYTES || view.getUint16(MAGIC_OFFSET, true) !== MAGIC) return null;
  const shift = view.getUint32(LOG_BLOCK_SIZE_OFFSET, true);
  return shift > 6 ? null : 1024 << shift;
}

interface Range {
  readonly first: number;
  readonly last: number;
  readonly name: string;
}

/** Names the blocks of one file system. `path` shows it, and does not change. */
export class ExtPlaces {
  readonly #path: string;
  readonly #blockBytes: number;
  #metadata: Promise<readonly Range[]> | null = null;

  constructor(path: string, blockBytes: number) {
    this.#path = path;
    this.#blockBytes = blockBytes;
  }

  /** Null where debugfs has nothing to say. */
  async describe(offset: number): Promise<string | null> {
    const block = Math.floor(offset / this.#blockBytes);
    if (block * this.#blockBytes <= SUPER_OFFSET && offset < EXT_SUPER_BYTES) return 'superblock';
    const inode = await this.#inodeOf(block);
    if (inode !== null) return SPECIAL_INODES[inode] ?? (await this.#fileOf(inode));
    this.#metadata ??= this.#readMetadata();
    const found = (await this.#metadata).find(({ first, last }) => block >= first && block <= last);
    return found?.name ?? null;
  }

  async #inodeOf(block: number): Promise<number | null> {
    const match = new RegExp(`^${block}\\s+(\\d+)$`, 'm').exec(await this.#ask(`icheck ${block}`));
    return match === null ? null : Number(match[1]);
  }

  async #fileOf(inode: number): Promise<string> {
    const match = new RegExp(`^${inode}\\s+(.+)$`, 'm').exec(await this.#ask(`ncheck ${inode}`));
    return match === null ? `inode ${inode}` : `file ${(match[1] ?? '').trim()}`;
  }

  /** Bitmaps, inode tables and group descriptors. */
  async #readMetadata(): Promise<readonly Range[]> {
    const text = await this.#ask('stats');
    const inodesPerGroup = numberAfter(text, /Inodes per group:\s+(\d+)/);
    const inodeBytes = numberAfter(text, /Inode size:\s+(\d+)/);
    const tableBlocks = Math.ceil((inodesPerGroup * inodeBytes) / this.#blockBytes);
    const ranges: Range[] = [];
    const groups =
      /Group\s+(\d+): block bitmap at (\d+), inode bitmap at (\d+), inode table at (\d+)/g;
    for (const [, group = '', blocks, inodes, table] of text.matchAll(groups)) {
      const at = (value: string | undefined, name: string, count = 1): void => {
        const first = Number(value);
        ranges.push({ first, last: first + count - 1, name: `${name} of group ${group}` });
      };
      at(blocks, 'block bitmap');
      at(inodes, 'inode bitmap');
      at(table, 'inode table', tableBlocks);
    }
    const firstBitmap = Math.min(...ranges.map(({ first }) => first));
    ranges.push({ first: 1, last: firstBitmap - 1, name: 'group descriptors' });
    return ranges;
  }

  async #ask(request: string): Promise<string> {
    const { stdout } = await run('debugfs', ['-R', request, this.#path], {
      maxBuffer: OUTPUT_BYTES,
    });
    return stdout;
  }
}

function numberAfter(text: string, pattern: RegExp): number {
  return Number(pattern.exec(text)?.[1] ?? 0);
}
