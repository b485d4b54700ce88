import { FLAG, OP } from '../../../block/io.ts';
import { MiB } from '../../../base/units.ts';
import type { CommandSpec } from '../command.ts';
import { MAX_COMMAND_BYTES } from '../limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
import { inTurn, type Outcome, request, transfer } from '../unit-io.ts';
import { blocksField, blocksOf, inRange, lbaOf } from './block-range.ts';

// WRITE SAME (10), (16): one block over a range. Zeroes become WRITE_ZEROES, which file systems do without writing.
//
// UNMAP is for (16) alone (LBPWS, not LBPWS10), which initiators prefer. Blocks that are not zeroes are written also with
// UNMAP, for what is read is to be as if they had been [SBC-4 5.49]; libiscsi's suite sends such to (10) and expects zeroes.

const UNMAP = 0x08;
/** [SBC-4 5.50] (16) only: no data-out buffer, the block is zeroes. */
const NDOB = 0x01;

const PIECE_BYTES = 1 * MiB;

function plan(form: 10 | 16): CommandSpec['plan'] {
  return (unit, task) => {
    const lba = lbaOf(task.cdb, form);
    const asked = blocksOf(task.cdb, form);
    const flags = task.cdb[1] as number;
    if ((flags & UNMAP) !== 0 && (form === 10 || !unit.options.thin)) {
      return unit.refuseField(task, 1, 3);
    }
    // [SBC-4 5.49] 0 with WSNZ 0: to the last block.
    const blocks = asked === 0 ? Math.max(0, unit.blocks - lba) : asked;
    if (!inRange(unit, task, lba, blocks)) return false;
    // [SBC-4 6.6.4] MAXIMUM WRITE SAME LENGTH holds also for "to the last block".
    if (blocks * unit.blockBytes > MAX_COMMAND_BYTES) {
      return unit.refuseField(task, blocksField(form));
    }
    task.offset = lba * unit.blockBytes;
    task.transferBytes = blocks * unit.blockBytes;
    task.outBytes = form === 16 && (flags & NDOB) !== 0 ? 0 : unit.blockBytes;
    // One block, no more: more might have been meant for the others. libiscsi's suite wants it refused.
    if (task.expectedOutBytes !== task.outBytes) return unit.refuseField(task, blocksField(form));
    return unit.ranges.enter(task, false);
  };
}

function execute(unit: LogicalUnit, task: ScsiTask): void {
  const block = task.dataOut;
  const done: Outcome = (error, at) => {
    if (error === null) unit.finish(task);
    else unit.fail(task, error, at);
  };
  if (task.outBytes > 0 && (block === null || block.length < task.outBytes)) {
    // The initiator sent less than one block: what the rest should be, nobody knows.
    unit.refuseField(task, 1);
    return;
  }
  if (block === null || task.outBytes === 0 || block.every((byte) => byte === 0)) {
    // [SBC-4 5.49] Without UNMAP the blocks stay, or become, mapped.
    const flags = ((task.cdb[1] as number) & UNMAP) === 0 ? FLAG.NO_HOLE : 0;
    request(task.session, OP.WRITE_ZEROES, task.offset, task.transferBytes, flags, done);
    return;
  }
  writePattern(unit, task, block, done);
}

function writePattern(unit: LogicalUnit, task: ScsiTask, block: Uint8Array, done: Outcome): void {
  const { session, offset, transferBytes } = task;
  const piece = new Uint8Array(Math.min(transferBytes, PIECE_BYTES));
  for (let at = 0; at < piece.length; at += unit.blockBytes) {
    piece.set(block.subarray(0, unit.blockBytes), at);
  }
  inTurn(
    Math.ceil(transferBytes / piece.length),
    (index, next) => {
      const from = index * piece.length;
      const bytes = piece.subarray(0, Math.min(piece.length, transferBytes - from));
      transfer(session, OP.WRITE, offset + from, bytes, 0, next);
    },
    done,
  );
}

function command(form: 10 | 16, opcode: number, section: string): CommandSpec {
  const lba32 = [0xff, 0xff, 0xff, 0xff];
  const usage =
    form === 10
      ? // UNMAP is refused by the plan: a write-protected medium is told of first, as libiscsi's suite wants it.
        [opcode, UNMAP, ...lba32, 0x3f, 0xff, 0xff, 0x04]
      : [opcode, UNMAP | NDOB, ...lba32, ...lba32, ...lba32, 0x3f, 0x04];
  return {
    name: `WRITE SAME (${form})`,
    section,
    opcode,
    cdbBytes: form,
    usage,
    reservation: 'writes',
    needsMedium: true,
    writes: true,
    plan: plan(form),
    execute,
  };
}

export const WRITE_SAME_COMMANDS: readonly CommandSpec[] = [
  command(10, 0x41, 'SBC-4 5.49'),
  command(16, 0x93, 'SBC-4 5.50'),
];
