/** A 32-bit finaliser (MurmurHash3, Austin Appleby, public domain): every bit of the input moves every bit of the output. */
export function mix32(value: number): number {
  let hash = value | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** Two numbers to one, in their order. */
export function mixPair(one: number, other: number): number {
  return mix32(Math.imul(mix32(one ^ 0x9e3779b9), 0x85ebca6b) ^ other);
}

/** A hash of `words` 32-bit words; 0 if and only if all are zero. */
export function hashWords(words: Int32Array, start: number, count: number): number {
  let hash = 0x2545f491;
  let any = 0;
  for (let at = start; at < start + count; at += 1) {
    const word = words[at] as number;
    any |= word;
    hash = Math.imul((hash << 13) | (hash >>> 19), 0x1b873593) ^ Math.imul(word, 0xcc9e2d51);
  }
  return any === 0 ? 0 : mix32(hash) || 1;
}
