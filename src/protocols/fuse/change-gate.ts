/** A stretch of the file that is being changed, in bytes, whole blocks. */
export interface Change {
  readonly gateStart: number;
  readonly gateEnd: number;
  /** It reads blocks, changes a part of them and writes them back. */
  readonly gateAlone: boolean;
  /** It waited, and now may begin. */
  mayBegin(): void;
}

/**
 * Keeps changes of parts of a block apart from every other change of the same block: what was read must not be older than
 * what it is written over. Changes of whole blocks pass each other freely. Who waits is served in order.
 */
export class ChangeGate {
  readonly #inside: Change[] = [];
  readonly #waiting: Change[] = [];

  /** True: begin. False: `mayBegin` says when. Either way `leave` follows. */
  enter(change: Change): boolean {
    if (!this.#free(change, this.#waiting.length)) {
      this.#waiting.push(change);
      return false;
    }
    this.#inside.push(change);
    return true;
  }

  leave(change: Change): void {
    const at = this.#inside.indexOf(change);
    const last = this.#inside.pop() as Change;
    if (last !== change) this.#inside[at] = last;
    for (let i = 0; i < this.#waiting.length; i += 1) {
      const next = this.#waiting[i] as Change;
      if (!this.#free(next, i)) continue;
      this.#waiting.splice(i, 1);
      this.#inside.push(next);
      next.mayBegin();
      // It may have ended at once, and others with it.
      i = -1;
    }
  }

  /** Nothing stands against it that is inside, nor of those that wait the first `before`. */
  #free(change: Change, before: number): boolean {
    for (const other of this.#inside) if (collides(change, other)) return false;
    for (let i = 0; i < before; i += 1) {
      if (collides(change, this.#waiting[i] as Change)) return false;
    }
    return true;
  }
}

function collides(a: Change, b: Change): boolean {
  return (a.gateAlone || b.gateAlone) && a.gateStart < b.gateEnd && b.gateStart < a.gateEnd;
}
