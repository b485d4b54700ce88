import { Io, OP } from '../../../block/io.ts';
import { EXTENT } from '../../../block/extents.ts';
import type { CommandSpec } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
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

function planLbaStatus(unit: LogicalUnit, task: ScsiTask): boolean {
  const lba = u64(task.cdb, 2);
  if (!inRange(unit, task, lba, 1)) return false;
  task.offset = lba * unit.blockBytes;
  return true;
}

function lbaStatus(unit: LogicalUnit, task: ScsiTask): void {
  const { offset } = task;
  const { sizeBytes } = unit.disk.info;
  const io = new Io();
  io.reset(OP.EXTENTS, offset, unit.blocks * unit.blockBytes - offset, 0);
  io.push({
    ioDone: ({ error, extents }) => {
      if (error !== null) {
        unit.fail(task, error, offset);
        return;
      }
      const most = Math.floor(Math.max(0, u32(task.cdb, 10) - 8) / DESCRIPTOR_BYTES);
      const count = Math.max(1, Math.min(extents.count, most, MOST_DESCRIPTORS));
      const data = new Uint8Array(8 + count * DESCRIPTOR_BYTES);
      const view = new DataView(data.buffer);
      // [SBC-4 5.5.2] PARAMETER DATA LENGTH: without the field itself.
      view.setUint32(0, data.length - 4);
      let at = offset;
      for (let i = 0; i < count; i += 1) {
        const length = extents.count === 0 ? sizeBytes - at : (extents.lengths[i] as number);
        const start = at / unit.blockBytes;
        const place = 8 + i * DESCRIPTOR_BYTES;
        view.setUint32(place, Math.floor(start / 2 ** 32));
        view.setUint32(place + 4, start % 2 ** 32);
        view.setUint32(place + 8, Math.min(0xffff_ffff, length / unit.blockBytes));
        const hole = unit.options.thin && ((extents.flags[i] ?? 0) & EXTENT.HOLE) !== 0;
        data[place + 12] = hole ? DEALLOCATED : MAPPED;
        at += length;
      }
      task.dataIn = data.subarray(0, u32(task.cdb, 10));
      unit.finish(task);
    },
  });
  task.session.submit(io);
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
