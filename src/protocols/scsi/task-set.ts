import type { Nexus } from './nexus.ts';
import { TASK_ATTRIBUTE } from './scsi.ts';
import type { ScsiTask } from './task.ts';

/**
 * Which commands of one logical unit may run [SAM-5 8]: SIMPLE ones together, in any order; an ORDERED one after all
 * that came before it and before all that come after it; a HEAD OF QUEUE one at once, and SIMPLE and ORDERED ones not
 * before it has ended. One task set for all nexuses (TST 000b, the Control mode page says so).
 *
 * Order is all that ORDERED means: it does not make anything stable. The queue is drained for it, and only for it.
 */
export class TaskSet {
  readonly #begin: (task: ScsiTask) => void;
  /** Enabled and not ended. */
  readonly #enabled = new Set<ScsiTask>();
  /** Dormant, in order of arrival. */
  readonly #waiting: ScsiTask[] = [];
  /** Of the enabled: how many are ORDERED or HEAD OF QUEUE. */
  #exclusive = 0;
  readonly #ends: { readonly tasks: Set<ScsiTask>; readonly done: () => void }[] = [];
  #advancing = false;

  /** `begin` is called once for each task that becomes enabled. */
  constructor(begin: (task: ScsiTask) => void) {
    this.#begin = begin;
  }

  get count(): number {
    return this.#enabled.size + this.#waiting.length;
  }

  add(task: ScsiTask): void {
    const { attribute } = task;
    if (attribute === TASK_ATTRIBUTE.HEAD_OF_QUEUE) {
      this.#enable(task);
    } else if (this.#waiting.length === 0 && this.#may(task)) {
      this.#enable(task);
    } else {
      this.#waiting.push(task);
    }
  }

  /**
   * The task has ended; whoever waited for it goes on. `tell` comes in between: its end is told before that of any task that
   * waited for it, for of two settings of the unit the one that was told last is believed.
   */
  ended(task: ScsiTask, tell: (task: ScsiTask) => void = nobodyToTell): void {
    const enabled = this.#enabled.delete(task);
    if (enabled && isExclusive(task)) this.#exclusive -= 1;
    tell(task);
    if (!enabled) return;
    if (this.#ends.length > 0) this.#settle(task);
    if (this.#waiting.length > 0) this.#advance();
  }

  find(nexus: Nexus, tag: number): ScsiTask | null {
    for (const task of this.#enabled) if (task.nexus === nexus && task.tag === tag) return task;
    return this.#waiting.find((task) => task.nexus === nexus && task.tag === tag) ?? null;
  }

  has(nexus: Nexus): boolean {
    for (const task of this.#enabled) if (task.nexus === nexus) return true;
    return this.#waiting.some((task) => task.nexus === nexus);
  }

  /**
   * Marks tasks as aborted. Those that had not begun end at once, through `end`; `abort` is told of the others, which end
   * when nothing of them is under way. `done`, perhaps at once, when all have ended: from then on none of
   * them touches the medium.
   */
  abort(
    fits: (task: ScsiTask) => boolean,
    tell: { end(task: ScsiTask): void; abort(task: ScsiTask): void },
    done: () => void,
  ): void {
    const dormant = this.#waiting.filter((task) => fits(task));
    const running = [...this.#enabled].filter((task) => fits(task));
    for (const task of dormant) this.#waiting.splice(this.#waiting.indexOf(task), 1);
    for (const task of [...dormant, ...running]) task.aborted = true;
    const left = new Set(running);
    this.#ends.push({ tasks: left, done });
    for (const task of dormant) tell.end(task);
    for (const task of running) tell.abort(task);
    this.#settle(null);
    this.#advance();
  }

  #settle(ended: ScsiTask | null): void {
    for (let i = this.#ends.length - 1; i >= 0; i -= 1) {
      const end = this.#ends[i];
      if (end === undefined) continue;
      if (ended !== null) end.tasks.delete(ended);
      for (const task of end.tasks) if (!this.#enabled.has(task)) end.tasks.delete(task);
      if (end.tasks.size > 0) continue;
      this.#ends.splice(i, 1);
      end.done();
    }
  }

  #may(task: ScsiTask): boolean {
    if (task.attribute === TASK_ATTRIBUTE.ORDERED) return this.#enabled.size === 0;
    return this.#exclusive === 0;
  }

  #enable(task: ScsiTask): void {
    this.#enabled.add(task);
    if (isExclusive(task)) this.#exclusive += 1;
    this.#begin(task);
  }

  /** A loop with a guard: a task may end inside `begin`, which comes back here. */
  #advance(): void {
    if (this.#advancing) return;
    this.#advancing = true;
    for (;;) {
      const next = this.#waiting[0];
      if (next === undefined || !this.#may(next)) break;
      this.#waiting.shift();
      this.#enable(next);
    }
    this.#advancing = false;
  }
}

function nobodyToTell(): void {}

function isExclusive({ attribute }: ScsiTask): boolean {
  return attribute === TASK_ATTRIBUTE.ORDERED || attribute === TASK_ATTRIBUTE.HEAD_OF_QUEUE;
}
