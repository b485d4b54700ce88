import { assert } from '../../base/assert.ts';
import type { Contents } from './contents.ts';
import type { OpenView, ViewMaker } from './open-view.ts';
import type { ModelTables } from './tables.ts';
import type { CrashModel } from './types.ts';

/** A model with its parts, for those that stand beside it: counting, listing, keys. */
export interface BuiltModel extends CrashModel {
  readonly tables: ModelTables;
  readonly contents: Contents;
  readonly maker: ViewMaker;
  view(cut: number): OpenView;
}

export function builtModel(model: CrashModel): BuiltModel {
  assert('tables' in model && 'maker' in model, 'a model that was not built from a trace');
  return model as BuiltModel;
}
