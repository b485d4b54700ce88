import { OP } from '../../../block/io.ts';
import { type CommandSpec, GROUPED } from '../command.ts';
import { MAX_PARAMETER_BYTES } from '../limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { ASC, SENSE_KEY } from '../scsi.ts';
import type { ScsiTask } from '../task.ts';
import { inTurn, request } from '../unit-io.ts';
import { u16, u32, u64 } from './block-range.ts';

const HEADER_BYTES = 8;
const DESCRIPTOR_BYTES = 16;

/** MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT of the Block Limits page: what a parameter list holds. */
export const MAX_UNMAP_DESCRIPTORS: number =
  (MAX_PARAMETER_BYTES - HEADER_BYTES) / DESCRIPTOR_BYTES;

function planUnmap(unit: LogicalUnit, task: ScsiTask): boolean {
  task.outBytes = u16(task.cdb, 7);
  // The ranges are known only from the parameter list: they enter the range gate then, one by one.
  return true;
}

function unmap(unit: LogicalUnit, task: ScsiTask): void {
  const list = task.dataOut;
  // [SBC-4 5.35] A parameter list length of 0 is not an error.
  if (list === null || task.outBytes === 0) {
    unit.finish(task);
    return;
  }
  if (list.length < HEADER_BYTES) {
    unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.PARAMETER_LIST_LENGTH_ERROR);
    return;
  }
  const ranges: [number, number][] = [];
  // A descriptor that did not come whole is not looked at [SBC-4 5.35.2].
  const bytes = Math.min(u16(list, 2), list.length - HEADER_BYTES);
  for (
    let at = HEADER_BYTES;
    at + DESCRIPTOR_BYTES <= HEADER_BYTES + bytes;
    at += DESCRIPTOR_BYTES
  ) {
    const lba = u64(list, at);
    const blocks = u32(list, at + 8);
    // [SBC-4 5.35.2] Zero blocks are no error, also right behind the last one.
    if (lba + blocks > unit.blocks) {
      unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
      return;
    }
    if (blocks > 0) ranges.push([lba * unit.blockBytes, blocks * unit.blockBytes]);
  }
  inTurn(
    ranges.length,
    (index, next) => {
      const [offset, transferBytes] = ranges[index] as [number, number];
      const stretch = { offset, transferBytes };
      unit.ranges.hold(stretch, false, () => {
        request(task.session, OP.DISCARD, offset, transferBytes, 0, (error, at) => {
          unit.ranges.leave(stretch);
          next(error, at);
        });
      });
    },
    (error, at) => {
      if (error === null) unit.finish(task);
      else unit.fail(task, error, at);
    },
  );
}

export const UNMAP_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'UNMAP',
    section: 'SBC-4 5.35',
    opcode: 0x42,
    cdbBytes: 10,
    // ANCHOR must be 0: nothing is anchored here.
    usage: [0x42, 0, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0x04],
    reservation: 'writes',
    needsMedium: true,
    writes: true,
    grouped: GROUPED.WRITE,
    groupByte: 6,
    offered: (unit) => unit.options.thin,
    plan: planUnmap,
    execute: unmap,
  },
];
