import { Io, OP } from '../../../block/io.ts';
import { EXTENT, type ExtentList } from '../../../block/extents.ts';
import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
import { inTurn } from '../unit-io.ts';
import { inRange, u32, u64 } from './block-range.ts';

// READ CAPACITY (10), (16) and GET LBA STATUS (16).

/** [SBC-4 5.20] Larger disks say FFFFFFFFh: ask READ CAPACITY (16). */
function readCapacity10(unit: LogicalUnit, task: ScsiTask): void {
  const data = new Uint8Array(8);
  const view = new DataView(data.buffer);
  view.setUint32(0, Math.min(unit.blocks - 1, 0xffff_ffff));
  view.setUint32(4, unit.blockBytes);
  task.dataIn = data;
  unit.finish(task);
}

function readCapacity16(unit: LogicalUnit, task: ScsiTask): void {
  const data = new Uint8Array(32);
  const view = new DataView(data.buffer);
  const last = unit.blocks - 1;
  view.setUint32(0, Math.floor(last / 2 ** 32));
  view.setUint32(4, last % 2 ** 32);
  view.setUint32(8, unit.blockBytes);
  // LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT
  data[13] = Math.log2(Math.max(1, unit.disk.info.preferredBytes / unit.blockBytes)) & 0x0f;
  // LBPME; LBPRZ as in the Logical Block Provisioning page: what is unmapped reads as zeroes.
  if (unit.options.thin) data[14] = 0x80 | 0x40;
  task.dataIn = data.subarray(0, u32(task.cdb, 10));
  unit.finish(task);
}

/** [SBC-4 5.5.2] PROVISIONING STATUS: 0 mapped or unknown, 1 deallocated, 2 anchored. */
const MAPPED = 0;
const DEALLOCATED = 1;
const DESCRIPTOR_BYTES = 16;
/** Of one answer; an initiator asks on from where it ends. */
const MOST_DESCRIPTORS = 1024;
/** EXTENTS for one answer: a device may tell of a part at a time. */
const MOST_SCANS = 64;

interface Run {
  readonly start: number;
  length: number;
  readonly kind: number;
}

function planLbaStatus(unit: LogicalUnit, task: ScsiTask): boolean {
  const lba = u64(task.cdb, 2);
  if (!inRange(unit, task, lba, 1)) return false;
  task.offset = lba * unit.blockBytes;
  return true;
}

function lbaStatus(unit: LogicalUnit, task: ScsiTask): void {
  const allocated = u32(task.cdb, 10);
  const most = Math.min(MOST_DESCRIPTORS, Math.floor((allocated - 8) / DESCRIPTOR_BYTES));
  const end = unit.blocks * unit.blockBytes;
  const runs: Run[] = [];
  let at = task.offset;
  inTurn(
    MOST_SCANS,
    (_, next) => {
      // One run more than fits: the last one that does is known to end there.
      if (at >= end || runs.length > Math.max(1, most)) {
        next(null, 0);
        return;
      }
      const io = new Io();
      io.reset(OP.EXTENTS, at, end - at, 0);
      io.push({
        ioDone: ({ error, extents }) => {
          if (error === null) at = addRuns(unit, runs, extents, at, end);
          next(error, at);
        },
      });
      task.session.submit(io);
    },
    (error, where) => {
      if (error !== null) {
        unit.fail(task, error, where, true);
        return;
      }
      task.dataIn = describeRuns(unit, runs.slice(0, Math.max(1, most))).subarray(0, allocated);
      unit.finish(task);
    },
  );
}

/** Adds what EXTENTS told of [at, …), joined where it is the same. Returns where it ends. */
function addRuns(
  unit: LogicalUnit,
  runs: Run[],
  extents: ExtentList,
  at: number,
  end: number,
): number {
  const { blockBytes } = unit;
  const add = (length: number, kind: number): void => {
    if (length === 0) return;
    const last = runs.at(-1);
    if (last?.kind === kind) last.length += length;
    else runs.push({ start: at, length, kind });
    at += length;
  };
  for (let i = 0; i < extents.count; i += 1) {
    const length = extents.lengths[i] as number;
    const hole = unit.options.thin && ((extents.flags[i] as number) & EXTENT.HOLE) !== 0;
    // A block is deallocated when all of it is: the file system's blocks may be smaller.
    const from = Math.ceil(at / blockBytes) * blockBytes;
    const to = Math.floor((at + length) / blockBytes) * blockBytes;
    const stop = at + length;
    if (hole && to > from) {
      add(from - at, MAPPED);
      add(to - from, DEALLOCATED);
    }
    add(stop - at, MAPPED);
  }
  if (extents.count === 0) add(end - at, MAPPED);
  return at;
}

/** [SBC-4 5.5.2] */
function describeRuns(unit: LogicalUnit, runs: readonly Run[]): Uint8Array {
  const { blockBytes } = unit;
  const data = new Uint8Array(8 + runs.length * DESCRIPTOR_BYTES);
  const view = new DataView(data.buffer);
  let described = 0;
  for (const { start, length, kind } of runs) {
    const place = 8 + described * DESCRIPTOR_BYTES;
    const blocks = length / blockBytes;
    view.setBigUint64(place, BigInt(start / blockBytes));
    view.setUint32(place + 8, Math.min(0xffff_ffff, blocks));
    data[place + 12] = kind;
    described += 1;
    // What follows would not begin where this one ends: the initiator asks on.
    if (blocks > 0xffff_ffff) break;
  }
  // PARAMETER DATA LENGTH: without the field itself.
  view.setUint32(0, 4 + described * DESCRIPTOR_BYTES);
  return data.subarray(0, 8 + described * DESCRIPTOR_BYTES);
}

export const CAPACITY_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'READ CAPACITY (10)',
    section: 'SBC-4 5.20',
    opcode: 0x25,
    cdbBytes: 10,
    // PMI and its LBA are obsolete: they must be 0 [SBC-4 5.20].
    usage: [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0x04],
    reservation: 'allowed',
    needsMedium: true,
    duringSanitize: () => true,
    plan: () => true,
    execute: readCapacity10,
  },
  {
    name: 'READ CAPACITY (16)',
    section: 'SBC-4 5.21',
    opcode: 0x9e,
    serviceAction: 0x10,
    cdbBytes: 16,
    usage: [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
    reservation: 'allowed',
    needsMedium: true,
    duringSanitize: () => true,
    plan: () => true,
    execute: readCapacity16,
  },
  {
    name: 'GET LBA STATUS (16)',
    section: 'SBC-4 5.5',
    opcode: 0x9e,
    serviceAction: 0x12,
    cdbBytes: 16,
    usage: [0x9e, 0x12, ...Array<number>(12).fill(0xff), 0, 0x04],
    reservation: 'reads',
    needsMedium: true,
    plan: planLbaStatus,
    execute: lbaStatus,
  },
];
