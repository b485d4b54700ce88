/** Serial numbers of 32 bits, which wrap around: CmdSN, StatSN, DataSN [RFC 7143 4.2.2.1, RFC 1982]. */

/** a < b: b is at most 2^31 - 1 steps ahead. */
export function serialLess(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

export function serialLessOrEqual(a: number, b: number): boolean {
  return ((a - b) | 0) <= 0;
}

export function serialAdd(a: number, n: number): number {
  return (a + n) >>> 0;
}

/** How many steps from `from` to `to`: negative when `to` lies before. */
export function serialDistance(from: number, to: number): number {
  return (to - from) | 0;
}
