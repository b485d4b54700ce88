import type { ModuleHelp } from '../check/module.ts';
import type { Subject, Verdict } from '../check/types.ts';

// The checker of the rows with QEMU's I/O tester: block i of 4 KiB is full of byte i, or of zeroes. It is acknowledged
// with its offset.

const BLOCK = 4096;
const BLOCKS = 16;

export const name = 'blocks';

export async function check(
  { devices: [disk], acks }: Subject,
  help: ModuleHelp,
): Promise<Verdict> {
  if (disk === undefined) throw new Error('there is no disk');
  const owed = new Set(acks.map(({ text }) => Number(text) / BLOCK));
  const bytes = await help.readAll(disk, 0, BLOCKS * BLOCK);
  for (let i = 0; i < BLOCKS; i += 1) {
    const block = bytes.subarray(i * BLOCK, (i + 1) * BLOCK);
    const isNew = block.every((byte) => byte === i);
    if (!isNew && owed.has(i)) return help.fail('durability', 'an acknowledged block is lost');
    if (!isNew && block.some((byte) => byte !== 0)) {
      return help.fail('atomicity', 'a block is there in part');
    }
  }
  return help.pass();
}
