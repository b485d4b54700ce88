import { assert } from '../base/assert.ts';
import type { FlushDomain } from './flush-domain.ts';

/**
 * I7: one flush domain for all exports of one inode, however many paths lead to it. What is shared is whatever the
 * caller makes (an open file with its sync descriptor and its domain, say), because the domain lives as long as the
 * descriptor that syncs it.
 */
export class DomainRegistry<T extends { readonly domain: FlushDomain }> {
  readonly #entries = new Map<string, { readonly value: T; holders: number }>();

  /** What `key` stands for, made at first use. Each call is paired with one `release`. */
  acquire(key: string, make: () => T): T {
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = { value: make(), holders: 0 };
      this.#entries.set(key, entry);
    }
    entry.holders += 1;
    return entry.value;
  }

  /** Gives one hold back. Returns the value to the last holder, who closes it, and null to the others. */
  release(key: string): T | null {
    const entry = this.#entries.get(key);
    assert(entry !== undefined, 'a flush domain is released more often than acquired');
    entry.holders -= 1;
    if (entry.holders > 0) return null;
    this.#entries.delete(key);
    return entry.value;
  }
}

/** The key of a file or block device: its inode, not its path (fstat(2) st_dev, st_ino; st_rdev for block devices). */
export function inodeKey(dev: number | bigint, ino: number | bigint): string {
  return `${dev}:${ino}`;
}
