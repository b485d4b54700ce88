import { FLAG, OP } from '../../../block/io.ts';
import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
import { transfer } from '../unit-io.ts';
import { inRange, u16, u64 } from './block-range.ts';

// WRITE ATOMIC (16) [SBC-4 5.48]: all blocks or none of them, also when power is lost (P12). So it is there only where whoever
// has made the unit knows that to be true: of a disk in memory, say, of which nothing is left then.

const FUA = 0x08;
const DPO = 0x10;

/** MAXIMUM ATOMIC TRANSFER LENGTH: what is true of the disk, and one request takes. */
export function atomicBlocks({ options, disk, blockBytes }: LogicalUnit): number {
  return Math.min(options.atomicBlocks ?? 0, Math.floor(disk.info.maxTransferBytes / blockBytes));
}

function plan(unit: LogicalUnit, task: ScsiTask): boolean {
  const { cdb } = task;
  const lba = u64(cdb, 2);
  const blocks = u16(cdb, 12);
  if (!inRange(unit, task, lba, blocks)) return false;
  // [SBC-4 6.6.4] MAXIMUM ATOMIC BOUNDARY SIZE 0: there are no boundaries.
  if (u16(cdb, 10) !== 0) return unit.refuseField(task, 10);
  if (blocks > atomicBlocks(unit)) return unit.refuseField(task, 12);
  task.offset = lba * unit.blockBytes;
  task.transferBytes = blocks * unit.blockBytes;
  // All of it is collected first: what is cut off changes nothing.
  task.outBytes = task.transferBytes;
  if (((cdb[1] as number) & FUA) !== 0) task.ioFlags = FLAG.FUA;
  // Alone in its range: nobody's write is mixed with it.
  return unit.ranges.enter(task, true);
}

function execute(unit: LogicalUnit, task: ScsiTask): void {
  const { dataOut, outBytes } = task;
  if (outBytes === 0) {
    unit.finish(task);
    return;
  }
  if (dataOut === null || dataOut.length < outBytes) {
    unit.refuseField(task, 12);
    return;
  }
  transfer(task.session, OP.WRITE, task.offset, dataOut, task.ioFlags, (error, at) => {
    if (error === null) unit.finish(task);
    else unit.fail(task, error, at);
  });
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
    offered: (unit) => atomicBlocks(unit) > 0,
    plan,
    execute,
  },
];
