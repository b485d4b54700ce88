import { Io, OP } from '../../../block/io.ts';
import type { BlockErrorCode } from '../../../block/errors.ts';
import type { CommandSpec } from '../command.ts';
import { toldOf } from '../errors.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
import { blocksOf, inRange, lbaOf } from './block-range.ts';

// SYNCHRONIZE CACHE (10), (16): FLUSH of a range. Blocks of which nothing is unstable cost no sync.

const IMMED = 0x02;
/** Obsolete: a cache that is not volatile would do [SBC-3 5.22]. There is none, so it asks for no less. */
const SYNC_NV = 0x04;

function plan(form: 10 | 16): CommandSpec['plan'] {
  return (unit, task) => {
    const lba = lbaOf(task.cdb, form);
    const blocks = blocksOf(task.cdb, form);
    if (!inRange(unit, task, lba, blocks)) return false;
    task.offset = lba * unit.blockBytes;
    // [SBC-4 5.33] 0: to the last logical block.
    const last = blocks === 0 ? unit.blocks : lba + blocks;
    const whole = lba === 0 && last === unit.blocks;
    task.transferBytes = whole ? 0 : last * unit.blockBytes - task.offset;
    return true;
  };
}

function execute(unit: LogicalUnit, task: ScsiTask): void {
  const immediate = ((task.cdb[1] as number) & IMMED) !== 0;
  const { nexus } = task;
  const io = new Io();
  io.reset(OP.FLUSH, task.transferBytes === 0 ? 0 : task.offset, task.transferBytes, 0);
  io.push({
    ioDone: ({ error }) => {
      if (!immediate) {
        if (error === null) unit.finish(task);
        else unit.fail(task, error, task.offset);
      } else if (error !== null) {
        deferError(unit, nexus, error);
      }
    },
  });
  // The session outlives the task's own record, which is the transport's again once it has ended.
  const { session } = task;
  if (immediate) unit.finish(task);
  session.submit(io);
}

/** [SPC-4 4.5.5] GOOD was said already: the error is reported with a later command of the same nexus. */
function deferError(unit: LogicalUnit, nexus: ScsiTask['nexus'], error: BlockErrorCode): void {
  const { key, code } = toldOf(error, false);
  unit.options.log(`LUN ${unit.lun}: an immediate SYNCHRONIZE CACHE failed with ${error}`);
  unit.attentions.defer(nexus, { key, code });
}

export const SYNCHRONIZE_CACHE_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'SYNCHRONIZE CACHE (10)',
    section: 'SBC-4 5.33',
    opcode: 0x35,
    cdbBytes: 10,
    usage: [0x35, IMMED | SYNC_NV, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04],
    reservation: 'writes',
    needsMedium: true,
    plan: plan(10),
    execute,
  },
  {
    name: 'SYNCHRONIZE CACHE (16)',
    section: 'SBC-4 5.34',
    opcode: 0x91,
    cdbBytes: 16,
    usage: [0x91, IMMED | SYNC_NV, ...Array<number>(12).fill(0xff), 0x3f, 0x04],
    reservation: 'writes',
    needsMedium: true,
    plan: plan(16),
    execute,
  },
];
