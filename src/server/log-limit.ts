/** Lines in a burst, and how often one more is earned: peers must not be able to fill the operator's disk. */
const BURST_LINES = 50;
const LINE_EARNED_MS = 100;

/** Passes lines on, a bounded number of them per time, and says how many it has left out. */
export class LogLimit {
  readonly #nowMs: () => number;
  readonly #write: (line: string) => void;
  #credit = BURST_LINES;
  #lastMs: number;
  #leftOut = 0;

  constructor(nowMs: () => number, write: (line: string) => void) {
    this.#nowMs = nowMs;
    this.#write = write;
    this.#lastMs = nowMs();
  }

  log(line: string): void {
    const now = this.#nowMs();
    this.#credit = Math.min(BURST_LINES, this.#credit + (now - this.#lastMs) / LINE_EARNED_MS);
    this.#lastMs = now;
    if (this.#credit < 1) {
      this.#leftOut += 1;
      return;
    }
    this.#credit -= 1;
    if (this.#leftOut > 0) this.#write(`${this.#leftOut} lines left out`);
    this.#leftOut = 0;
    this.#write(line);
  }
}
