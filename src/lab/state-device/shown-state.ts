import { assert } from '../../base/assert.ts';
import type { CrashModel, CutView, StateSpec } from '../model/types.ts';

/**
 * The state that the devices of one worker show: which version each unit holds, and what was read of it. Units that are
 * not open at a cut hold the same in all its states, and are looked up when they are first read there.
 */
export class ShownState {
  readonly model: CrashModel;
  readonly logsReads: boolean;
  readonly #current: Int32Array;
  /** `#current` of a unit is right when this is `#cutStamp`. */
  readonly #stamps: Int32Array;
  #cutStamp = 0;
  #view: CutView | null = null;
  #chosen = new Int32Array(0);
  #runs = 0;
  /** The run in which a unit was last logged. */
  readonly #loggedIn: Int32Array;
  #log = new Int32Array(256);
  #logged = 0;

  constructor(model: CrashModel, logReads: boolean) {
    this.model = model;
    this.#current = new Int32Array(model.unitCount);
    this.#stamps = new Int32Array(model.unitCount);
    this.logsReads = logReads;
    this.#loggedIn = new Int32Array(logReads ? model.unitCount : 0);
  }

  /** Rises with each state that is shown. What was written for an earlier one is void. */
  get runs(): number {
    return this.#runs;
  }

  /** Shows another state. Cheap for the same cut again. */
  show(state: StateSpec): void {
    if (this.#view?.cut.index !== state.cut) {
      this.#view = this.model.view(state.cut);
      this.#cutStamp += 1;
    }
    const { units } = this.#view;
    if (this.#chosen.length !== units.length) this.#chosen = new Int32Array(units.length);
    this.model.choose(this.#view, state.rule, this.#chosen);
    for (let i = 0; i < units.length; i += 1) {
      const unit = units[i] as number;
      this.#current[unit] = this.#chosen[i] as number;
      this.#stamps[unit] = this.#cutStamp;
    }
    this.#runs += 1;
    this.#logged = 0;
  }

  versionOf(unit: number): number {
    if (this.#stamps[unit] === this.#cutStamp) return this.#current[unit] as number;
    assert(this.#view !== null, 'a state is shown before it is read');
    const version = this.model.versionIn(
      { cut: this.#view.cut.index, rule: { kind: 'all' } },
      unit,
    );
    this.#current[unit] = version;
    this.#stamps[unit] = this.#cutStamp;
    return version;
  }

  /** Notes that a unit was read. Only where `logsReads`. */
  logRead(unit: number): void {
    if (this.#loggedIn[unit] === this.#runs) return;
    this.#loggedIn[unit] = this.#runs;
    if (this.#logged === this.#log.length) {
      const longer = new Int32Array(this.#log.length * 2);
      longer.set(this.#log);
      this.#log = longer;
    }
    this.#log[this.#logged] = unit;
    this.#logged += 1;
  }

  /** Units in the order in which they were first read since `show`, before they were written. Null: not logged. */
  reads(): Int32Array | null {
    return this.logsReads ? this.#log.slice(0, this.#logged) : null;
  }
}
