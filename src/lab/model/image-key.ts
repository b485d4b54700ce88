import { type BuiltModel, builtModel } from './built-model.ts';
import { mix32 } from './mix.ts';
import type { OpenView } from './open-view.ts';
import type { CrashModel, CutView, StateSpec } from './types.ts';

// The key of an image is the sum, in four lanes of 32 bits, of a hash of each unit's content (Zobrist hashing, with a
// sum in place of exclusive or). So it costs what differs from an image whose key is known, and it is the same for the
// same image at any cut.

const LANES = 4;
const LANE_SEEDS = Int32Array.of(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344);

/** Keys of images: of all disks, as far as the trace writes them. Equal images have equal keys, under one model. */
export class ImageKeys {
  readonly #model: BuiltModel;
  /** The key of the image in which all issued is there, for each cut up to `#known`. */
  readonly #allNew: Int32Array;
  /** What all units hold in it at cut `#known`. */
  readonly #newest: Int32Array;
  #known = -1;
  readonly #sum = new Int32Array(LANES);
  #view: CutView | null = null;
  #chosen = new Int32Array(0);

  constructor(model: CrashModel) {
    this.#model = builtModel(model);
    this.#allNew = new Int32Array(LANES * model.cuts.length);
    this.#newest = this.#model.tables.versions.firstOf.slice(0, -1);
  }

  /** 32 hex digits. */
  key({ cut, rule }: StateSpec): string {
    const view = this.#model.view(cut);
    if (this.#view !== view) this.#chosen = new Int32Array(view.units.length);
    this.#view = view;
    this.#model.choose(view, rule, this.#chosen);
    return this.keyOf(view, this.#chosen);
  }

  /** The key of the image in which `view.units[i]` holds chosen[i], and all other units what they hold at this cut. */
  keyOf(view: CutView, chosen: Int32Array): string {
    this.#reach(view.cut.index);
    const sum = this.#sum;
    sum.set(this.#allNew.subarray(LANES * view.cut.index, LANES * view.cut.index + LANES));
    const { first, versions } = view as OpenView;
    for (let at = 0; at < chosen.length; at += 1) {
      const newest = versions[first[at] as number] as number;
      if (newest === chosen[at]) continue;
      this.#add(sum, newest, -1);
      this.#add(sum, chosen[at] as number, 1);
    }
    return hexOf(sum);
  }

  /** Goes on to a cut, by what was issued on the way. */
  #reach(cut: number): void {
    const { requests, versions } = this.#model.tables;
    const now = new Int32Array(LANES);
    if (this.#known >= 0)
      now.set(this.#allNew.subarray(LANES * this.#known, LANES * this.#known + LANES));
    while (this.#known < cut) {
      this.#known += 1;
      const end = requests.bornFirst[this.#known + 1] as number;
      for (let at = requests.bornFirst[this.#known] as number; at < end; at += 1) {
        const request = requests.born[at] as number;
        const last = requests.unitTo[request] as number;
        for (let unit = requests.unitFrom[request] as number; unit < last; unit += 1) {
          this.#renew(unit, request, versions.firstOf[unit + 1] as number, now);
        }
      }
      this.#allNew.set(now, LANES * this.#known);
    }
  }

  /** A request was issued: it is what a unit holds, unless one issued after it began before it. */
  #renew(unit: number, request: number, end: number, sum: Int32Array): void {
    const { writer } = this.#model.tables.versions;
    const before = this.#newest[unit] as number;
    let version = before + 1;
    while (version < end && writer[version] !== request) version += 1;
    if (version === end) return;
    this.#add(sum, before, -1);
    this.#add(sum, version, 1);
    this.#newest[unit] = version;
  }

  #add(sum: Int32Array, version: number, sign: 1 | -1): void {
    const content = mix32(this.#model.contents.contentOf(version) ^ 0x5bd1e995);
    for (let lane = 0; lane < LANES; lane += 1) {
      const value = mix32(content ^ (LANE_SEEDS[lane] as number));
      sum[lane] = (sum[lane] as number) + sign * value;
    }
  }
}

function hexOf(sum: Int32Array): string {
  let text = '';
  for (const lane of sum) text += (lane >>> 0).toString(16).padStart(8, '0');
  return text;
}
