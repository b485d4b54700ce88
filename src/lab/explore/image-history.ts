import type { CrashModel, CutView } from '../model/types.ts';

// The image in which all issued is there, at each cut: what closed units hold. From cut to cut few units change, so
// that changes are kept and not images.

/** Views are kept up to so many numbers in them, 64 MiB: each rung looks at all cuts again. */
const KEPT_NUMBERS = 1 << 24;

export class ImageHistory {
  readonly model: CrashModel;
  /** Content of each unit before the first cut. */
  readonly base: Int32Array;
  /** For each cut, triples: a unit, its content at the cut before, its content at this one. */
  readonly #changes: Int32Array[] = [];
  /** By cut, the one made first first. */
  readonly #views = new Map<number, CutView>();
  #kept = 0;

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
    this.#kept += sizeOf(view);
    for (const [other, old] of this.#views) {
      if (this.#kept <= KEPT_NUMBERS) break;
      this.#kept -= sizeOf(old);
      this.#views.delete(other);
    }
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

/** About how many numbers a view has; a model keeps some beside those that we see. */
function sizeOf({ units, versions, requests }: CutView): number {
  return 3 * units.length + 3 * versions.length + 2 * requests.length;
}
