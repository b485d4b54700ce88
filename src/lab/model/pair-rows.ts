import { assert } from '../../base/assert.ts';

// A covering array of strength 2: few rows of zeroes and ones in which any two columns show all four pairs. Columns are
// subsets of the rows: all those of half the rows that contain row 0. Two of them share row 0, neither is within the
// other, and together they leave a row out. No array with as many columns has fewer rows (Kleitman and Spencer 1973,
// Katona 1973).

/** Rows are bits of a column, and 31 rows are enough for 77 million columns. */
const MOST_ROWS = 31;

/** How many rows `columns` columns need: none for none. */
export function pairRows(columns: number): number {
  if (columns === 0) return 0;
  let rows = 2;
  while (choose(rows - 1, Math.ceil(rows / 2)) < columns) rows += 1;
  assert(rows <= MOST_ROWS, `a covering array of ${columns} columns is too wide`);
  return rows;
}

/** The columns, each as bits: bit r is what row r says of it. */
export function pairColumns(columns: number): Int32Array {
  const found = new Int32Array(columns);
  if (columns === 0) return found;
  const rows = pairRows(columns);
  // Subsets of the other rows, ascending as numbers (Gosper's way to the next one with as many bits).
  let others = 2 ** (Math.floor(rows / 2) - 1) - 1;
  for (let column = 0; column < columns; column += 1) {
    found[column] = others * 2 + 1;
    if (others === 0) break;
    const low = others & -others;
    const carried = others + low;
    others = carried | (((others ^ carried) >>> 2) / low);
  }
  return found;
}

/** Binomial coefficient. */
function choose(of: number, take: number): number {
  let result = 1;
  for (let i = 1; i <= take; i += 1) result = (result * (of - take + i)) / i;
  return Math.round(result);
}
