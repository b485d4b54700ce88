import { MAX_DISK_BYTES } from '../block/limits.ts';
import { MAX_BLOCK_BYTES, MAX_NAME_LENGTH } from './limits.ts';
import type { TraceBase, TraceDisk } from './trace.ts';

// A disk's description, as it stands in a trace.

export function diskToJson(disk: TraceDisk): string {
  return JSON.stringify(disk);
}

/** The disk, or what is wrong with its description. Whatever it holds beyond what is known is left out. */
export function diskOfJson(text: string): TraceDisk | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'it is no JSON';
  }
  if (!isObject(value)) return 'it is no object';
  const { number, name, sizeBytes, blockBytes, discard, flushCovers, ignoresFlush } = value;
  const base = baseOf(value['base']);
  if (!isCount(number)) return 'its number is none';
  if (!isName(name)) return 'its name is none';
  if (!isCount(blockBytes) || blockBytes > MAX_BLOCK_BYTES || !isPowerOfTwo(blockBytes)) {
    return 'its block size is none';
  }
  if (!isCount(sizeBytes) || sizeBytes > MAX_DISK_BYTES || sizeBytes % blockBytes !== 0) {
    return 'its size is none';
  }
  if (base === null) return 'its base is none';
  if (discard !== 'zeroes' && discard !== 'undefined') return "its 'discard' is unknown";
  if (flushCovers !== 'everyone' && flushCovers !== 'source') {
    return "its 'flushCovers' is unknown";
  }
  if (ignoresFlush !== undefined && typeof ignoresFlush !== 'boolean') {
    return "its 'ignoresFlush' is unknown";
  }
  return Object.freeze({
    number,
    name,
    sizeBytes,
    blockBytes,
    base,
    discard,
    flushCovers,
    ...(ignoresFlush === undefined ? {} : { ignoresFlush }),
  });
}

function baseOf(value: unknown): TraceBase | null {
  if (!isObject(value)) return null;
  const { kind, path, crc32 } = value;
  if (kind === 'zeroes') return Object.freeze({ kind });
  if (kind !== 'file' || !isName(path) || path === '' || path.includes('\0')) return null;
  if (!isCount(crc32) || crc32 > 0xffff_ffff) return null;
  return Object.freeze({ kind, path, crc32 });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length <= MAX_NAME_LENGTH;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}
