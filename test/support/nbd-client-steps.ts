import { FLAG, OP, type Op } from '../../src/block/io.ts';

/** What our client does for a recording: one request after the other, so that every run says the same. */
export const STEPS: readonly (readonly [op: Op, offset: number, length: number, flags: number])[] =
  [
    [OP.WRITE, 512, 1024, 0],
    [OP.WRITE, 4096, 512, FLAG.FUA],
    [OP.READ, 0, 2048, 0],
    [OP.WRITE_ZEROES, 512, 512, FLAG.NO_HOLE],
    [OP.DISCARD, 8192, 4096, 0],
    [OP.CACHE, 0, 4096, 0],
    [OP.EXTENTS, 0, 65536, 0],
    [OP.EXTENTS, 0, 65536, FLAG.ONE],
    [OP.READ, 512, 1024, 0],
    [OP.FLUSH, 0, 0, 0],
  ];

/** What the n-th step writes. */
export function stepBytes(index: number, length: number): Uint8Array {
  return new Uint8Array(length).fill(0xa0 + index);
}
