import type { Family } from './family.ts';

/** All that was issued, and only what is stable. */
export const ends: Family = {
  rung: 'ends',
  grains: ['prefix', 'request', 'unit'],
  rules: () => [{ kind: 'all' }, { kind: 'floor' }],
  coversAll: ({ view }) => view.units.length === 0,
};
