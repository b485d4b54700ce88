import { MiB } from '../../base/units.ts';

/** What EXTENDED COPY takes: RECEIVE COPY RESULTS (OPERATING PARAMETERS) and the Third-party Copy page say so. */
export const COPY_LIMITS = {
  cscdDescriptors: 16,
  segmentDescriptors: 64,
  /** Bytes of both lists together. */
  listBytes: 16 * 32 + 64 * 32,
  /** Bytes of one segment. */
  segmentBytes: 64 * MiB,
  /** Under way together. */
  copies: 16,
} as const;

/** CSCD descriptor: Identification Descriptor [SPC-4 6.4.5.3]. */
export const IDENTIFICATION = 0xe4;
/** Segment descriptors [SPC-4 6.4.6]: block device to block device, and the same counted in bytes. */
export const BLOCK_TO_BLOCK = 0x02;
export const BLOCK_TO_BLOCK_OFFSET = 0x0a;
/** All of them, as they are listed: in ascending order. */
export const COPY_DESCRIPTORS: readonly number[] = [
  BLOCK_TO_BLOCK,
  BLOCK_TO_BLOCK_OFFSET,
  IDENTIFICATION,
];
/** DATA SEGMENT GRANULARITY: a power of two, as its exponent: 512 bytes. */
export const COPY_GRANULARITY_EXPONENT = 9;
