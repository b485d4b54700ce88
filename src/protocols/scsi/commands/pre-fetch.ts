import { OP } from '../../../block/io.ts';
import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
import { request } from '../unit-io.ts';
import { blocksOf, inRange, lbaOf } from './block-range.ts';

// PRE-FETCH (10), (16): the blocks will be read soon. GOOD, not CONDITION MET: whether all of them fit and stay in the
// page cache is the host's to decide, and it does not say [SBC-4 5.12].

const IMMED = 0x02;

function plan(form: 10 | 16): CommandSpec['plan'] {
  return (unit, task) => {
    const lba = lbaOf(task.cdb, form);
    const asked = blocksOf(task.cdb, form);
    if (!inRange(unit, task, lba, asked)) return false;
    // [SBC-4 5.12] 0: to the last logical block.
    const blocks = asked === 0 ? unit.blocks - lba : asked;
    task.offset = lba * unit.blockBytes;
    task.transferBytes = blocks * unit.blockBytes;
    return true;
  };
}

function execute(unit: LogicalUnit, task: ScsiTask): void {
  const { session, offset, transferBytes } = task;
  request(session, OP.CACHE, offset, transferBytes, 0, (error, at) => {
    // Whoever serves no hints has not failed.
    if (error === null || error === 'EOPNOTSUPP') unit.finish(task);
    else unit.fail(task, error, at);
  });
}

export const PRE_FETCH_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'PRE-FETCH (10)',
    section: 'SBC-4 5.12',
    opcode: 0x34,
    cdbBytes: 10,
    usage: [0x34, IMMED, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04],
    reservation: 'reads',
    needsMedium: true,
    plan: plan(10),
    execute,
  },
  {
    name: 'PRE-FETCH (16)',
    section: 'SBC-4 5.13',
    opcode: 0x90,
    cdbBytes: 16,
    usage: [0x90, IMMED, ...Array<number>(12).fill(0xff), 0x3f, 0x04],
    reservation: 'reads',
    needsMedium: true,
    plan: plan(16),
    execute,
  },
];
