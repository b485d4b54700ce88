import { Ints } from './ints.ts';
import { KeyTable, type KeyTableParts } from './key-table.ts';
import { MAX_TRIE_PAIRS } from './limits.ts';

// What runs have read, and what came of it. A run is a path of pairs (unit, content), in the order in which the units were
// read; at its end is its verdict. A state that agrees with a path on all its units gives the same verdict, at whatever
// cut, so that most states are decided by walking here. It is a decision diagram: each node asks for the content of one
// unit, and stretches without a branch are one node.

/** What a ReadTrie is made of, as it goes to a file. */
export interface ReadTrieParts {
  readonly start: Int32Array;
  readonly length: Int32Array;
  readonly end: Int32Array;
  readonly pairs: Int32Array;
  readonly children: KeyTableParts;
  readonly roots: readonly (readonly [number, number])[];
}

export class ReadTrie {
  /** The units on the path of the last successful `walk`. */
  readonly path: Ints = new Ints();

  /** Of each node: where its pairs begin (in pairs), and how many there are. */
  #start = new Ints();
  #length = new Ints();
  /** After them: the verdict, or -1 - the unit whose content decides where to go on. */
  #end = new Ints();
  /** Unit, content, unit, content… of all nodes. */
  #pairs = new Ints();
  /** From a node and a content to the next node. */
  #children = new KeyTable();
  /** The first node of each obligation: what is owed is part of the question. */
  readonly #roots = new Map<number, number>();
  /** Of each unit: `#now` if it is among the reads at hand and was not asked for yet. */
  readonly #stamp: Int32Array;
  #now = 0;

  constructor(units: number) {
    this.#stamp = new Int32Array(units);
  }

  /** The verdict of a run that read what it would read of these contents; -1: there was none. */
  walk(owed: number, contents: Int32Array): number {
    const { path } = this;
    path.length = 0;
    let node = this.#roots.get(owed) ?? -1;
    while (node >= 0) {
      let at = 2 * this.#start.at(node);
      const stop = at + 2 * this.#length.at(node);
      for (; at < stop; at += 2) {
        const unit = this.#pairs.at(at);
        if (contents[unit] !== this.#pairs.at(at + 1)) return -1;
        path.push(unit);
      }
      const end = this.#end.at(node);
      if (end >= 0) return end;
      const unit = -1 - end;
      path.push(unit);
      const child = this.#children.find(node, contents[unit] as number, 0);
      node = child < 0 ? -1 : this.#children.value(child);
    }
    return -1;
  }

  /**
   * Adds a run: the units that it read, of a state with these contents. 'left-out': it does not fit, since the checker
   * read other units before although all it had read was the same, or memory is used up; nothing is lost by that but
   * speed. 'contradiction': a run that read the same had another verdict.
   */
  insert(
    owed: number,
    reads: Int32Array,
    contents: Int32Array,
    verdict: number,
  ): 'added' | 'left-out' | 'contradiction' {
    if (this.#pairs.length / 2 + reads.length > MAX_TRIE_PAIRS) return 'left-out';
    this.#stampAll(reads);
    let left = reads.length;
    let [parent, by] = [-1, owed];
    let node = this.#roots.get(owed) ?? -1;
    while (node >= 0) {
      const first = this.#start.at(node);
      const length = this.#length.at(node);
      for (let i = 0; i < length; i += 1) {
        const unit = this.#pairs.at(2 * (first + i));
        if (!this.#take(unit)) return 'left-out';
        left -= 1;
        if (contents[unit] !== this.#pairs.at(2 * (first + i) + 1)) {
          const head = this.#split(parent, by, node, i);
          const tail = this.#append(reads, contents, verdict);
          this.#link(head, contents[unit] as number, tail);
          return 'added';
        }
      }
      const end = this.#end.at(node);
      if (end >= 0) {
        if (left > 0) return 'left-out';
        return end === verdict ? 'added' : 'contradiction';
      }
      if (!this.#take(-1 - end)) return 'left-out';
      left -= 1;
      [parent, by] = [node, contents[-1 - end] as number];
      const child = this.#children.find(parent, by, 0);
      node = child < 0 ? -1 : this.#children.value(child);
    }
    this.#link(parent, by, this.#append(reads, contents, verdict));
    return 'added';
  }

  parts(): ReadTrieParts {
    return {
      start: this.#start.used(),
      length: this.#length.used(),
      end: this.#end.used(),
      pairs: this.#pairs.used(),
      children: this.#children.parts(),
      roots: [...this.#roots],
    };
  }

  restore(parts: ReadTrieParts): void {
    this.#start = new Ints(parts.start, parts.start.length);
    this.#length = new Ints(parts.length, parts.length.length);
    this.#end = new Ints(parts.end, parts.end.length);
    this.#pairs = new Ints(parts.pairs, parts.pairs.length);
    this.#children.restore(parts.children);
    this.#roots.clear();
    for (const [owed, node] of parts.roots) this.#roots.set(owed, node);
  }

  get #nodeCount(): number {
    return this.#start.length;
  }

  #stampAll(reads: Int32Array): void {
    this.#now += 1;
    for (const unit of reads) this.#stamp[unit] = this.#now;
  }

  /** Whether a unit is among the reads and has not been asked for yet. */
  #take(unit: number): boolean {
    if (this.#stamp[unit] !== this.#now) return false;
    this.#stamp[unit] = 0;
    return true;
  }

  /** A node for what of the reads is left, in their order. */
  #append(reads: Int32Array, contents: Int32Array, verdict: number): number {
    const start = this.#pairs.length / 2;
    for (const unit of reads) {
      if (!this.#take(unit)) continue;
      this.#pairs.push(unit);
      this.#pairs.push(contents[unit] as number);
    }
    return this.#add(start, this.#pairs.length / 2 - start, verdict);
  }

  #add(start: number, length: number, end: number): number {
    this.#start.push(start);
    this.#length.push(length);
    this.#end.push(end);
    return this.#nodeCount - 1;
  }

  /** Node `node` keeps what comes after pair `i`; a new node before it ends with the question for that pair's unit. */
  #split(parent: number, by: number, node: number, i: number): number {
    const start = this.#start.at(node);
    const unit = this.#pairs.at(2 * (start + i));
    const content = this.#pairs.at(2 * (start + i) + 1);
    const head = this.#add(start, i, -1 - unit);
    this.#start.array[node] = start + i + 1;
    this.#length.array[node] = this.#length.at(node) - i - 1;
    this.#link(head, content, node);
    this.#link(parent, by, head);
    return head;
  }

  #link(parent: number, by: number, node: number): void {
    if (parent < 0) this.#roots.set(by, node);
    else this.#children.put(parent, by, 0, node, 0);
  }
}
