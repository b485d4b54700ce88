import { UsageError } from './errors.ts';

export const KiB: number = 1024;
export const MiB: number = 1024 * KiB;
export const GiB: number = 1024 * MiB;

const SUFFIXES = ['', 'k', 'm', 'g', 't', 'p'];

/** Parses a size as QEMU's tools write it: bytes, or a number with k, M, G, T or P (1024-based). Returns bytes. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmgtp]?)(?:i?b)?$/i.exec(text.trim());
  const power = SUFFIXES.indexOf((match?.[2] ?? '').toLowerCase());
  const bytes = Number(match?.[1]) * 1024 ** power;
  if (match === null || !Number.isSafeInteger(bytes)) {
    throw new UsageError(`not a size: '${text}' (examples: 512, 4k, 1M, 10G)`);
  }
  return bytes;
}

const DURATION_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };

/** Parses a time as in 500ms, 5s or 2m; a plain number is seconds. Returns milliseconds. */
export function parseDuration(text: string): number {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m)?$/.exec(text.trim());
  if (match === null) throw new UsageError(`not a time: '${text}' (examples: 500ms, 5s, 2m)`);
  return Math.round(Number(match[1]) * (DURATION_MS[match[2] ?? 's'] as number));
}

/** The largest exact binary unit, for people: 1073741824 is "1 GiB". */
export function formatSize(bytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < names.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${names[unit] ?? ''}`;
}
