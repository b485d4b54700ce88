/**
 * The smallest part of `items` that still fails, in the sense that without any one of them it does not: delta debugging
 * [Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing Input, 2002]. `fails(items)` is known to hold; the
 * order of items is kept. When `exhausted` says so it stops with what it has.
 */
export async function ddmin<T>(
  items: readonly T[],
  fails: (part: readonly T[]) => Promise<boolean>,
  exhausted: () => boolean = () => false,
): Promise<readonly T[]> {
  if (items.length === 0 || (await fails([]))) return [];
  let current = items;
  let pieces = 2;
  while (current.length > 1 && !exhausted()) {
    const smaller = await reduce(current, pieces, fails, exhausted);
    if (smaller !== null) {
      current = smaller.items;
      pieces = smaller.pieces;
    } else if (pieces >= current.length) {
      break;
    } else {
      pieces = Math.min(current.length, pieces * 2);
    }
  }
  return current;
}

/** One of the pieces, or all but one of them, that still fails. */
async function reduce<T>(
  items: readonly T[],
  pieces: number,
  fails: (part: readonly T[]) => Promise<boolean>,
  exhausted: () => boolean,
): Promise<{ items: readonly T[]; pieces: number } | null> {
  const bounds = Array.from({ length: pieces + 1 }, (_, i) =>
    Math.floor((i * items.length) / pieces),
  );
  for (let i = 0; i < pieces && !exhausted(); i += 1) {
    const piece = items.slice(bounds[i], bounds[i + 1]);
    if (piece.length < items.length && (await fails(piece))) return { items: piece, pieces: 2 };
  }
  // With two pieces the rest of one is the other.
  if (pieces === 2) return null;
  for (let i = 0; i < pieces && !exhausted(); i += 1) {
    const rest = [...items.slice(0, bounds[i]), ...items.slice(bounds[i + 1])];
    if (await fails(rest)) return { items: rest, pieces: Math.max(2, pieces - 1) };
  }
  return null;
}
