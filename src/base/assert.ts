/** Our own mistake, as opposed to a peer's, an operator's or a device's. Never caught on the data path. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

/** States what must hold. A failure is a bug in Holdfast: the process stops with exit code 70. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** The end of an exhaustive switch: fails to compile when a case is missing. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${String(value)}`);
}
