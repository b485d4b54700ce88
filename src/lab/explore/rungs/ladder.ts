import { ends } from './ends.ts';
import { exhaustive } from './exhaustive.ts';
import type { Family } from './family.ts';
import { oneMissing, onePresent, twoMissing, twoPresent } from './missing.ts';
import { pairs } from './pairs.ts';
import { prefixes } from './prefixes.ts';
import { stale } from './stale.ts';
import { tears } from './tears.ts';

/** Between two of these stands read-guided exploration, which looks at verdicts; random states come after all. */
export const LADDER: readonly (Family | 'read-guided')[] = [
  prefixes,
  exhaustive,
  'read-guided',
  oneMissing,
  onePresent,
  twoMissing,
  twoPresent,
  pairs,
  tears,
  stale,
];

/** The first rung stands apart: it comes for all cuts before anything else. */
export const FIRST: Family = ends;
