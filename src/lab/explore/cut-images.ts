import { assert } from '../../base/assert.ts';
import type { CutView, Rule } from '../model/types.ts';
import type { ImageHistory } from './image-history.ts';
import { laneHash } from './key-table.ts';

/** One state after another, as contents of all units and as a key, at the cost of what is open at its cut. */
export class CutImages {
  /** The content number of each unit in the state at hand. */
  readonly contents: Int32Array;
  /** Key of the state at hand, the same for the same image at any cut. */
  keyA = 0;
  keyB = 0;
  keyC = 0;
  /** The place of a unit in `view.units`, plus 1; 0: it is not open at this cut. */
  readonly placeOf: Int32Array;

  readonly #history: ImageHistory;
  /** What all units hold if all issued is there. */
  readonly #all: Int32Array;
  #allA = 0;
  #allB = 0;
  #allC = 0;
  #cut = -1;
  #view: CutView | null = null;
  #chosen: Int32Array = new Int32Array(0);
  /** For each candidate: its content, and what choosing it adds to the three lanes of the key. */
  #candidates: Int32Array = new Int32Array(0);

  constructor(history: ImageHistory) {
    this.#history = history;
    this.#all = history.base.slice();
    this.contents = history.base.slice();
    this.placeOf = new Int32Array(this.#all.length);
    for (let unit = 0; unit < this.#all.length; unit += 1) {
      this.#add(unit, this.#all[unit] as number, 1);
    }
  }

  /** -1 before the first `moveTo`. */
  get cut(): number {
    return this.#cut;
  }

  get view(): CutView {
    return this.#view as CutView;
  }

  moveTo(cut: number): CutView {
    if (cut === this.#cut) return this.view;
    if (this.#view !== null) {
      for (const unit of this.#view.units) {
        this.contents[unit] = this.#all[unit] as number;
        this.placeOf[unit] = 0;
      }
    }
    while (this.#cut < cut) {
      this.#cut += 1;
      this.#step(this.#history.changes(this.#cut), 1, 2);
    }
    while (this.#cut > cut) {
      this.#step(this.#history.changes(this.#cut), 2, 1);
      this.#cut -= 1;
    }
    this.#open(this.#history.view(cut));
    return this.view;
  }

  /** Makes the state that a rule gives at this cut the one at hand. */
  apply(rule: Rule): void {
    const view = this.view;
    const { units, first, versions } = view;
    this.#history.model.choose(view, rule, this.#chosen);
    let [a, b, c] = [this.#allA, this.#allB, this.#allC];
    for (let i = 0; i < units.length; i += 1) {
      const version = this.#chosen[i] as number;
      const end = first[i + 1] as number;
      let candidate = first[i] as number;
      while (candidate < end && versions[candidate] !== version) candidate += 1;
      if (candidate === end) candidate = this.#sameContent(version, first[i] as number, end);
      const at = 4 * candidate;
      this.contents[units[i] as number] = this.#candidates[at] as number;
      a += this.#candidates[at + 1] as number;
      b += this.#candidates[at + 2] as number;
      c += this.#candidates[at + 3] as number;
      // Sums stay whole only below 2^53: back into 32 bits each time.
      a |= 0;
      b |= 0;
      c |= 0;
    }
    this.keyA = a;
    this.keyB = b;
    this.keyC = c;
  }

  /** A version that was merged into another one with the same content. */
  #sameContent(version: number, from: number, end: number): number {
    const content = this.#history.model.contentOf(version);
    let candidate = from;
    while (candidate < end && this.#candidates[4 * candidate] !== content) candidate += 1;
    assert(candidate < end, `version ${version} is no candidate of its unit at cut ${this.#cut}`);
    return candidate;
  }

  /** Applies a cut's changes forwards (from 1 to 2) or backwards (from 2 to 1). */
  #step(changes: Int32Array, from: 1 | 2, to: 1 | 2): void {
    for (let i = 0; i < changes.length; i += 3) {
      const unit = changes[i] as number;
      const content = changes[i + to] as number;
      this.#add(unit, changes[i + from] as number, -1);
      this.#add(unit, content, 1);
      this.#all[unit] = content;
      this.contents[unit] = content;
    }
  }

  #add(unit: number, content: number, sign: 1 | -1): void {
    this.#allA = (this.#allA + sign * laneHash(unit, content, 0)) | 0;
    this.#allB = (this.#allB + sign * laneHash(unit, content, 1)) | 0;
    this.#allC = (this.#allC + sign * laneHash(unit, content, 2)) | 0;
  }

  #open(view: CutView): void {
    this.#view = view;
    const { units, first, versions } = view;
    if (this.#chosen.length !== units.length) this.#chosen = new Int32Array(units.length);
    if (this.#candidates.length < 4 * versions.length) {
      this.#candidates = new Int32Array(4 * versions.length);
    }
    for (let i = 0; i < units.length; i += 1) {
      const unit = units[i] as number;
      const newest = this.#all[unit] as number;
      this.placeOf[unit] = i + 1;
      for (let at = first[i] as number; at < (first[i + 1] as number); at += 1) {
        const content = this.#history.model.contentOf(versions[at] as number);
        this.#candidates[4 * at] = content;
        for (let lane = 0; lane < 3; lane += 1) {
          this.#candidates[4 * at + 1 + lane] =
            laneHash(unit, content, lane) - laneHash(unit, newest, lane);
        }
      }
    }
  }
}
