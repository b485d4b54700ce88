import type { Rule } from '../../model/types.ts';
import type { Family, Scene } from './family.ts';

// One or two requests that fared unlike all others: few writes suffice for most bugs.

export const oneMissing: Family = {
  rung: 'one-missing',
  grains: ['request', 'unit'],
  rules: (scene) => ones(scene, 'lost'),
  coversAll: () => false,
};

export const onePresent: Family = {
  rung: 'one-present',
  grains: ['request', 'unit'],
  rules: (scene) => ones(scene, 'kept'),
  coversAll: () => false,
};

export const twoMissing: Family = {
  rung: 'two-missing',
  grains: ['request', 'unit'],
  rules: (scene) => twos(scene, 'lost'),
  coversAll: () => false,
};

export const twoPresent: Family = {
  rung: 'two-present',
  grains: ['request', 'unit'],
  rules: (scene) => twos(scene, 'kept'),
  coversAll: () => false,
};

function* ones({ view }: Scene, kind: 'lost' | 'kept'): Generator<Rule> {
  for (const request of view.requests) yield { kind, requests: [request] };
}

/** Neighbours first: what belongs together was issued together. */
function* twos({ view: { requests } }: Scene, kind: 'lost' | 'kept'): Generator<Rule> {
  for (let apart = 1; apart < requests.length; apart += 1) {
    for (let i = 0; i + apart < requests.length; i += 1) {
      yield { kind, requests: [requests[i] as number, requests[i + apart] as number] };
    }
  }
}
