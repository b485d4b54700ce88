import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Guest } from '../guest.ts';
import { until } from './command.ts';

/** The load of test/e2e/guest-programs/stamps.pl, seen from outside of the guest. */
export const STAMPS_FILES = {
  '/stamps.pl': resolve(import.meta.dirname, '../guest-programs/stamps.pl'),
};
/** Programs of the guest that it needs. */
export const STAMPS_PROGRAMS = ['perl'] as const;

const BLOCK_BYTES = 4096;
const WORKERS = 4;
const BLOCKS_EACH = 8;

export async function startStamps(guest: Guest, device = '/dev/vda'): Promise<void> {
  await guest.succeed(
    `rm -f /tmp/stop; perl /stamps.pl ${device} ${WORKERS} ${BLOCKS_EACH} /tmp/stop </dev/null >/dev/console 2>&1 &`,
  );
}

/** Ends the load, waits for every worker's last look at its blocks, and asserts that none found anything wrong. */
export async function endStamps(guest: Guest): Promise<void> {
  await guest.succeed('touch /tmp/stop');
  for (let worker = 0; worker < WORKERS; worker += 1) {
    await guest.mark(new RegExp(`^=${worker}\\.\\d+\\n`, 'm'));
  }
  assert.doesNotMatch(guest.marks, /!/, 'a worker found its block wrong, or got an error');
}

/** How many writes were reported stable so far. */
export function stampsDone(guest: Guest): number {
  return (guest.marks.match(/^\+/gm) ?? []).length;
}

/** Waits until this many more writes were reported stable. */
export async function moreStamps(guest: Guest, count: number, limitMs = 40_000): Promise<void> {
  const wanted = stampsDone(guest) + count;
  await until(`${count} more stable writes`, limitMs, () =>
    stampsDone(guest) >= wanted ? true : null,
  );
}

/**
 * Asserts that the image holds what was reported stable: each block whole, and not older than its last mark. It may be
 * one newer, the write that was not reported yet.
 */
export function assertStampsIn(image: string, guest: Guest): void {
  const bytes = readFileSync(image);
  const stable = new Map<number, number>();
  for (const match of guest.marks.matchAll(/^\+\d+\.(\d+)\.(\d+)\n/gm)) {
    stable.set(Number(match[1]), Number(match[2]));
  }
  assert.ok(stable.size > 0, 'the load reported nothing');
  for (const [block, number] of stable) {
    const at = block * BLOCK_BYTES;
    const found = bytes.readUInt32LE(at + 4);
    assert.ok(
      found === number || found === number + 1,
      `block ${block} has ${found}; ${number} was reported stable`,
    );
    for (let i = at; i < at + BLOCK_BYTES; i += 8) {
      assert.equal(bytes.readUInt32LE(i), block, `block ${block} is torn at ${i - at}`);
      assert.equal(bytes.readUInt32LE(i + 4), found, `block ${block} is torn at ${i - at}`);
    }
  }
}
