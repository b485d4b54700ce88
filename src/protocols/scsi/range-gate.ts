import type { ScsiTask } from './task.ts';

interface Waiting {
  readonly task: ScsiTask;
  readonly exclusive: boolean;
}

/**
 * Keeps commands that read and then write the same blocks (COMPARE AND WRITE, ORWRITE) apart from every other change of these
 * blocks [SBC-4 5.3 "uninterrupted sequence"]. Writes pass each other freely; who waits is served in order.
 */
export class RangeGate {
  readonly #writes = new Set<ScsiTask>();
  readonly #exclusive = new Set<ScsiTask>();
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
    if (this.#exclusive.size === 0 && this.#waiting.length === 0 && !exclusive) {
      this.#writes.add(task);
      return true;
    }
    if (this.#mayGo(task, exclusive, this.#waiting.length)) {
      (exclusive ? this.#exclusive : this.#writes).add(task);
      return true;
    }
    this.#waiting.push({ task, exclusive });
    return false;
  }

  leave(task: ScsiTask): void {
    if (!this.#writes.delete(task) && !this.#exclusive.delete(task)) {
      const at = this.#waiting.findIndex((waiting) => waiting.task === task);
      if (at >= 0) this.#waiting.splice(at, 1);
    }
    for (let i = 0; i < this.#waiting.length; i += 1) {
      const { task: next, exclusive } = this.#waiting[i] as Waiting;
      if (!this.#mayGo(next, exclusive, i)) continue;
      this.#waiting.splice(i, 1);
      (exclusive ? this.#exclusive : this.#writes).add(next);
      this.#go(next);
      i = -1;
    }
  }

  /** Nothing that is inside stands against it, nor anything that waits before it. */
  #mayGo(task: ScsiTask, exclusive: boolean, before: number): boolean {
    for (const other of this.#exclusive) if (overlaps(task, other)) return false;
    if (exclusive) for (const other of this.#writes) if (overlaps(task, other)) return false;
    for (let i = 0; i < before; i += 1) {
      const waiting = this.#waiting[i] as Waiting;
      if ((exclusive || waiting.exclusive) && overlaps(task, waiting.task)) return false;
    }
    return true;
  }
}

function overlaps(a: ScsiTask, b: ScsiTask): boolean {
  return a.offset < b.offset + b.transferBytes && b.offset < a.offset + a.transferBytes;
}
