import type { ScsiTask } from './task.ts';

/** A stretch of the medium, in bytes: that of a task, or of a part of what a command does. */
export interface Stretch {
  readonly offset: number;
  readonly transferBytes: number;
}

interface Waiting {
  readonly stretch: Stretch;
  readonly exclusive: boolean;
  readonly go: () => void;
}

/**
 * Keeps commands that read and then write the same blocks (COMPARE AND WRITE, ORWRITE) apart from every other change of these
 * blocks [SBC-4 5.3 "uninterrupted sequence"]. Writes pass each other freely; who waits is served in order.
 */
export class RangeGate {
  readonly #writes = new Set<Stretch>();
  readonly #exclusive = new Set<Stretch>();
  readonly #waiting: Waiting[] = [];
  readonly #go: (task: ScsiTask) => void;

  /** `go` is told of every task that had to wait and now may. */
  constructor(go: (task: ScsiTask) => void) {
    this.#go = go;
  }

  /**
   * The task is going to change [offset, offset + transferBytes). True: now. False: it is told when it may. Either way
   * `leave` follows when it is done.
   */
  enter(task: ScsiTask, exclusive: boolean): boolean {
    if (this.#enterNow(task, exclusive)) return true;
    this.#waiting.push({ stretch: task, exclusive, go: () => this.#go(task) });
    return false;
  }

  /** The same for a part of a command, whose task is not in the gate: `go` when it may, perhaps at once. */
  hold(stretch: Stretch, exclusive: boolean, go: () => void): void {
    if (this.#enterNow(stretch, exclusive)) go();
    else this.#waiting.push({ stretch, exclusive, go });
  }

  leave(stretch: Stretch): void {
    if (!this.#writes.delete(stretch) && !this.#exclusive.delete(stretch)) {
      const at = this.#waiting.findIndex((waiting) => waiting.stretch === stretch);
      if (at < 0) return;
      this.#waiting.splice(at, 1);
    }
    for (let i = 0; i < this.#waiting.length; i += 1) {
      const { stretch: next, exclusive, go } = this.#waiting[i] as Waiting;
      if (!this.#mayGo(next, exclusive, i)) continue;
      this.#waiting.splice(i, 1);
      (exclusive ? this.#exclusive : this.#writes).add(next);
      go();
      i = -1;
    }
  }

  #enterNow(stretch: Stretch, exclusive: boolean): boolean {
    const alone = this.#exclusive.size === 0 && this.#waiting.length === 0 && !exclusive;
    if (!alone && !this.#mayGo(stretch, exclusive, this.#waiting.length)) return false;
    (exclusive ? this.#exclusive : this.#writes).add(stretch);
    return true;
  }

  /** Nothing that is inside stands against it, nor anything that waits before it. */
  #mayGo(stretch: Stretch, exclusive: boolean, before: number): boolean {
    for (const other of this.#exclusive) if (overlaps(stretch, other)) return false;
    if (exclusive) for (const other of this.#writes) if (overlaps(stretch, other)) return false;
    for (let i = 0; i < before; i += 1) {
      const waiting = this.#waiting[i] as Waiting;
      if ((exclusive || waiting.exclusive) && overlaps(stretch, waiting.stretch)) return false;
    }
    return true;
  }
}

function overlaps(a: Stretch, b: Stretch): boolean {
  return a.offset < b.offset + b.transferBytes && b.offset < a.offset + a.transferBytes;
}
