/** One run of a fuzz target: everything it does follows from the seed. Throws when something is wrong. */
export type FuzzTarget = (seed: number) => void;

export function fail(text: string): never {
  throw new Error(text);
}
