import { FLAG } from '../../../block/io.ts';
import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { type ScsiTask, TRANSFER } from '../task.ts';
import { inRange, u16, u64 } from './block-range.ts';

// WRITE ATOMIC (16) [SBC-4 5.48].

/** A single block is all that a disk promises to be old or new after power was lost (P12). */
export const MAX_ATOMIC_BLOCKS = 1;

const FUA = 0x08;
const DPO = 0x10;

function plan(unit: LogicalUnit, task: ScsiTask): boolean {
  const { cdb } = task;
  const lba = u64(cdb, 2);
  const blocks = u16(cdb, 12);
  if (!inRange(unit, task, lba, blocks)) return false;
  // [SBC-4 6.6.4] MAXIMUM ATOMIC BOUNDARY SIZE 0: there are no boundaries.
  if (u16(cdb, 10) !== 0) return unit.refuseField(task, 10);
  if (blocks > MAX_ATOMIC_BLOCKS) return unit.refuseField(task, 12);
  task.transfer = TRANSFER.WRITE;
  task.offset = lba * unit.blockBytes;
  task.transferBytes = blocks * unit.blockBytes;
  if (((cdb[1] as number) & FUA) !== 0) task.ioFlags = FLAG.FUA;
  // Alone in its range: nobody's write is mixed with it.
  return unit.ranges.enter(task, true);
}

export const WRITE_ATOMIC_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'WRITE ATOMIC (16)',
    section: 'SBC-4 5.48',
    opcode: 0x9c,
    cdbBytes: 16,
    usage: [0x9c, DPO | FUA, ...Array<number>(12).fill(0xff), 0x3f, 0x04],
    reservation: 'writes',
    needsMedium: true,
    writes: true,
    plan,
  },
];
