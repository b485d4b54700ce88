import { COUNT_ROWS } from './counts.ts';
import { PATH_ROWS } from './path-rows.ts';
import type { Row } from './types.ts';
import { WORKLOAD_ROWS } from './workload-rows.ts';

/** All known answers, the quick ones first. */
export const ROWS: readonly Row[] = [...COUNT_ROWS, ...PATH_ROWS, ...WORKLOAD_ROWS];
