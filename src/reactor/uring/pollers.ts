import type { Poller } from '../sharing.ts';

/**
 * The pollers of a reactor. Any of them may be added or ended inside any call; one that was ended is not called again,
 * one that was added is called from the next round on.
 */
export class Pollers {
  /** Never changed in place: who walks it walks what it was. */
  #all: readonly Poller[] = [];
  #armed: readonly Poller[] = [];
  #armedCount = 0;

  get none(): boolean {
    return this.#all.length === 0;
  }

  add(poller: Poller): () => void {
    this.#all = [...this.#all, poller];
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      this.#all = this.#all.filter((other) => other !== poller);
    };
  }

  get ready(): boolean {
    const all = this.#all;
    for (let i = 0; i < all.length; i += 1) if ((all[i] as Poller).ready()) return true;
    return false;
  }

  poll(): void {
    const all = this.#all;
    for (let i = 0; i < all.length; i += 1) {
      const poller = all[i] as Poller;
      if (this.#has(all, poller) && poller.ready()) poller.poll();
    }
  }

  /** Before a sleep. False: work has come, nobody is armed, and there must be no sleep. */
  arm(): boolean {
    const all = this.#all;
    let come = false;
    let count = 0;
    for (; count < all.length && !come; count += 1) {
      const poller = all[count] as Poller;
      if (this.#has(all, poller)) come = poller.arm();
    }
    this.#armed = all;
    this.#armedCount = count;
    if (come) this.disarm();
    return !come;
  }

  /** After it. */
  disarm(): void {
    const armed = this.#armed;
    const count = this.#armedCount;
    this.#armedCount = 0;
    for (let i = 0; i < count; i += 1) {
      const poller = armed[i] as Poller;
      if (this.#has(armed, poller)) poller.disarm();
    }
  }

  #has(walked: readonly Poller[], poller: Poller): boolean {
    return walked === this.#all || this.#all.includes(poller);
  }
}
