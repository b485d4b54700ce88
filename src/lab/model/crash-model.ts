import { assert } from '../../base/assert.ts';
import { ConfigError } from '../../base/errors.ts';
import type { Trace } from '../../trace/trace.ts';
import type { BuiltModel } from './built-model.ts';
import { Chooser, placeOf } from './chooser.ts';
import { Contents } from './contents.ts';
import { countStates } from './count-states.ts';
import { Legality, whyNoRule } from './legality.ts';
import { VIEWS_KEPT } from './limits.ts';
import { type OpenView, openView, ViewMaker } from './open-view.ts';
import { Stability } from './stability.ts';
import type { ModelTables } from './tables.ts';
import type {
  CrashModel,
  Cut,
  CutView,
  ModelOptions,
  Rule,
  StateSpec,
  UnitPlace,
} from './types.ts';
import { findUnits, UnitMap } from './unit-map.ts';
import { findVersions } from './versions.ts';

/** A built model for other threads: send it by postMessage. Its arrays are shared, not copied. */
export interface SharedModel {
  readonly fingerprint: string;
  readonly options: ModelOptions;
  readonly tables: ModelTables;
}

/**
 * Builds the model of a trace. Reads all its data once, and the base where it is overwritten. Throws ConfigError when
 * the options do not fit the trace, or a base image is not there.
 */
export function openCrashModel(trace: Trace, options: ModelOptions): CrashModel {
  checkOptions(trace, options);
  const units = findUnits(trace, options.unitBytes);
  const map = new UnitMap(units);
  const found = findVersions(trace, units);
  const { cuts, requests } = new Stability(trace, options, map, found).run();
  const tables = { units, requests, versions: found.versions, cuts };
  const contents = new Contents(trace, map, found.versions);
  contents.hashAll(found.unitFrom, found.unitTo);
  return new TraceModel(trace, options, tables, contents);
}

/** What another thread needs to have the same model. */
export function shareModel(model: CrashModel): SharedModel {
  assert(model instanceof TraceModel, 'only a model of a trace can be shared');
  return model.shared();
}

/** The model that another thread built, over this thread's own opening of the same trace. Builds nothing. */
export function attachCrashModel(trace: Trace, shared: SharedModel): CrashModel {
  assert(trace.fingerprint === shared.fingerprint, 'a model of another trace');
  const { tables, options } = shared;
  const contents = new Contents(trace, new UnitMap(tables.units), tables.versions);
  return new TraceModel(trace, options, tables, contents);
}

function checkOptions(trace: Trace, { unitBytes }: ModelOptions): void {
  const least = Math.max(512, ...trace.disks.map(({ blockBytes }) => blockBytes));
  if (Number.isInteger(Math.log2(unitBytes)) && unitBytes >= least) return;
  throw new ConfigError(
    `a unit of ${unitBytes} bytes does not fit ${trace.path}`,
    `take a power of two, ${least} or more`,
  );
}

class TraceModel implements BuiltModel {
  readonly trace: Trace;
  readonly options: ModelOptions;
  readonly maker: ViewMaker;
  readonly contents: Contents;
  readonly tables: ModelTables;
  readonly #map: UnitMap;
  readonly #chooser: Chooser;
  readonly #legality: Legality;
  /** By cut, the least recently used first. */
  readonly #views = new Map<number, OpenView>();

  constructor(trace: Trace, options: ModelOptions, tables: ModelTables, contents: Contents) {
    this.trace = trace;
    this.options = options;
    this.tables = tables;
    this.contents = contents;
    this.#map = new UnitMap(tables.units);
    this.maker = new ViewMaker(trace, options, tables, contents);
    this.#chooser = new Chooser(trace, tables.requests, tables.versions);
    this.#legality = new Legality(trace, options, tables, contents);
  }

  get cuts(): readonly Cut[] {
    return this.tables.cuts;
  }

  get unitCount(): number {
    return this.tables.units.unitCount;
  }

  place(unit: number): UnitPlace {
    return this.#map.place(unit);
  }

  unitAt(disk: number, offset: number): number {
    return this.#map.unitAt(disk, offset);
  }

  view(cut: number): OpenView {
    let view = this.#views.get(cut);
    if (view === undefined) {
      const what = this.cuts[cut];
      assert(what !== undefined, `the trace has no cut ${cut}`);
      view = this.maker.make(what, this.#views.get(cut - 1) ?? null);
      const [oldest] = this.#views.keys();
      if (this.#views.size >= VIEWS_KEPT && oldest !== undefined) this.#views.delete(oldest);
    } else {
      this.#views.delete(cut);
    }
    this.#views.set(cut, view);
    return view;
  }

  requestOf(version: number): number {
    return this.contents.requestOf(version);
  }

  contentOf(version: number): number {
    return this.contents.contentOf(version);
  }

  versionIn({ cut, rule }: StateSpec, unit: number): number {
    assert(unit >= 0 && unit < this.unitCount, 'a unit that the trace does not write');
    const view = this.view(cut);
    const at = placeOf(view.units, unit);
    if (at < 0) return this.maker.newest(unit, cut);
    this.#chooser.prepare(view, rule);
    return this.#chooser.versionAt(at);
  }

  choose(view: CutView, rule: Rule, into: Int32Array): void {
    this.#chooser.prepare(openView(view), rule);
    for (let at = 0; at < view.units.length; at += 1) into[at] = this.#chooser.versionAt(at);
  }

  readVersion(version: number, skip: number, into: Uint8Array): void {
    this.contents.readVersion(version, skip, into);
  }

  whyIllegal({ cut, rule }: StateSpec): string | null {
    if (this.cuts[cut] === undefined) return `the trace has no cut ${cut}`;
    const view = this.view(cut);
    const wrong = whyNoRule(view, rule);
    if (wrong !== null) return wrong;
    const { model } = this.options;
    if (model !== 'M0' && model !== 'M1') return null;
    const isOfUnits = rule.kind === 'tear' || rule.kind === 'stale';
    if (isOfUnits || (rule.kind === 'random' && rule.by === 'unit')) {
      return `under ${model} a write is there as a whole or not at all; '${rule.kind}' chooses units`;
    }
    const chosen = new Int32Array(view.units.length);
    this.choose(view, rule, chosen);
    if (this.#legality.isImage(view, chosen)) return null;
    return model === 'M0'
      ? 'under M0 what is there is a prefix of the writes'
      : 'under M1 a write is there as a whole or not at all; no set of writes leaves this';
  }

  countStates(limit: number): bigint | null {
    return countStates(this, limit);
  }

  close(): void {
    this.contents.close();
  }

  shared(): SharedModel {
    return { fingerprint: this.trace.fingerprint, options: this.options, tables: this.tables };
  }
}
