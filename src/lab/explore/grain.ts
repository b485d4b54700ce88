import type { ModelName, ModelOptions } from '../model/types.ts';

/** What a power cut keeps or loses by itself: a prefix of the requests, each request, or each unit. */
export type Grain = 'prefix' | 'request' | 'unit';

export const GRAIN: Readonly<Record<ModelName, Grain>> = {
  M0: 'prefix',
  M1: 'request',
  M2: 'unit',
  M3: 'unit',
  L: 'unit',
};

/**
 * Whether saying which requests are there says all. Not so where requests that were in flight together may have come in
 * any order, nor where a discarded unit may hold garbage.
 */
export function isByRequests({ model, overlap, poison }: ModelOptions): boolean {
  return GRAIN[model] !== 'unit' && overlap === 'issued' && !poison;
}
