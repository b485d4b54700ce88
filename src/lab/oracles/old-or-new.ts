import type { Checker } from '../check/types.ts';
import type { CrashModel } from '../model/types.ts';

export function openOldOrNew(model: CrashModel): Checker {
  throw new Error(String(model));
}
