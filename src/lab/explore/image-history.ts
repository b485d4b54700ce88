import type { CrashModel, CutView } from '../model/types.ts';

// The image in which all issued is there, at each cut: what closed units hold. From cut to cut few units change, so
// that changes are kept and not images.

/** How many views are kept: who makes states and who takes answers in are a few cuts apart. */
const VIEWS_KEPT = 8;

export class ImageHistory {
  readonly model: CrashModel;
  /** Content of each unit before the first cut. */
  readonly base: Int32Array;
  /** For each cut, triples: a unit, its content at the cut before, its content at this one. */
  readonly #changes: Int32Array[] = [];
  readonly #views = new Map<number, CutView>();

  constructor(model: CrashModel) {
    this.model = model;
    this.base = new Int32Array(model.unitCount);
    // Just before the first thing becomes stable, the floor is what was there before all.
    const floor = { cut: 0, rule: { kind: 'floor' } } as const;
    for (let unit = 0; unit < model.unitCount; unit += 1) {
      this.base[unit] = model.contentOf(model.versionIn(floor, unit));
    }
    this.#record();
  }

  changes(cut: number): Int32Array {
    return this.#changes[cut] as Int32Array;
  }

  view(cut: number): CutView {
    const kept = this.#views.get(cut);
    if (kept !== undefined) return kept;
    const view = this.model.view(cut);
    const [oldest] = this.#views.keys();
    if (this.#views.size >= VIEWS_KEPT && oldest !== undefined) this.#views.delete(oldest);
    this.#views.set(cut, view);
    return view;
  }

  /** A version is open at a cut before it becomes stable, so that only open units can have a new newest content. */
  #record(): void {
    const { model } = this;
    const now = this.base.slice();
    let chosen = new Int32Array(0);
    for (const cut of model.cuts) {
      const view = this.view(cut.index);
      if (chosen.length !== view.units.length) chosen = new Int32Array(view.units.length);
      model.choose(view, { kind: 'all' }, chosen);
      const found: number[] = [];
      for (let i = 0; i < view.units.length; i += 1) {
        const unit = view.units[i] as number;
        const content = model.contentOf(chosen[i] as number);
        if (content === now[unit]) continue;
        found.push(unit, now[unit] as number, content);
        now[unit] = content;
      }
      this.#changes.push(Int32Array.from(found));
    }
  }
}
