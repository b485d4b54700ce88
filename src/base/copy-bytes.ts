const bufferCopy = Buffer.prototype.copy;

/** Buffer's copy takes ranges of both sides, so that no view is made; it works on any Uint8Array. */
export function copyBytes(
  source: Uint8Array,
  from: number,
  target: Uint8Array,
  to: number,
  length: number,
): void {
  bufferCopy.call(source, target, to, from, from + length);
}
