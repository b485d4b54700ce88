import type { CommandSpec } from '../command.ts';
import { COPY_DESCRIPTORS, COPY_GRANULARITY_EXPONENT, COPY_LIMITS } from '../copy-limits.ts';
import type { CopyRecord } from '../copy-records.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { ScsiTask } from '../task.ts';
import { u32 } from './block-range.ts';

// RECEIVE COPY RESULTS [SPC-3 6.17; SPC-4 6.18 RECEIVE COPY STATUS (LID1) and its kin].

/** COPY MANAGER STATUS [SPC-4 table 237] */
const STATUS_CODE = { 'under way': 0x00, done: 0x01, failed: 0x02 } as const;

/** [SPC-4 6.18] What is done is told once. */
function copyStatus(unit: LogicalUnit, task: ScsiTask): Uint8Array | null {
  const record = recordOf(unit, task);
  if (record === null) return null;
  const data = new Uint8Array(12);
  const view = new DataView(data.buffer);
  view.setUint32(0, 8);
  data[4] = STATUS_CODE[record.status];
  view.setUint16(5, record.segments);
  // TRANSFER COUNT UNITS: bytes, or KiB or MiB where the count would not fit.
  let units = 0;
  let count = record.bytes;
  for (; count > 0xffff_ffff; units += 1) count = Math.floor(count / 1024);
  data[7] = units;
  view.setUint32(8, count);
  if (record.status === 'done') unit.copies.forget(task.nexus, record.listId);
  return data;
}

/** [SPC-4 6.17] No segment descriptor that is taken holds data for the initiator. */
function receiveData(unit: LogicalUnit, task: ScsiTask): Uint8Array | null {
  return recordOf(unit, task) === null ? null : new Uint8Array(4);
}

/** [SPC-3 6.17.4] */
function operatingParameters(): Uint8Array {
  const data = new Uint8Array(44 + COPY_DESCRIPTORS.length);
  const view = new DataView(data.buffer);
  view.setUint32(0, data.length - 4);
  data[4] = 0x01; // SNLID: no list identifier is needed
  view.setUint16(8, COPY_LIMITS.cscdDescriptors);
  view.setUint16(10, COPY_LIMITS.segmentDescriptors);
  view.setUint32(12, COPY_LIMITS.listBytes);
  view.setUint32(16, COPY_LIMITS.segmentBytes);
  // No inline data, no held data, no stream devices.
  view.setUint16(34, COPY_LIMITS.copies);
  data[36] = COPY_LIMITS.copies;
  data[37] = COPY_GRANULARITY_EXPONENT;
  data[43] = COPY_DESCRIPTORS.length;
  data.set(COPY_DESCRIPTORS, 44);
  return data;
}

/** [SPC-4 6.19] The sense data of a copy that failed; nothing for others. */
function failedSegment(unit: LogicalUnit, task: ScsiTask): Uint8Array | null {
  const record = recordOf(unit, task);
  if (record === null) return null;
  if (record.status !== 'failed') return new Uint8Array(4);
  const { sense } = record;
  const data = new Uint8Array(60 + sense.length);
  const view = new DataView(data.buffer);
  view.setUint32(0, data.length - 4);
  data[56] = 0x02; // EXTENDED COPY COMMAND STATUS: CHECK CONDITION
  view.setUint16(58, sense.length);
  data.set(sense, 60);
  unit.copies.forget(task.nexus, record.listId);
  return data;
}

function recordOf(unit: LogicalUnit, task: ScsiTask): CopyRecord | null {
  return unit.copies.find(task.nexus, task.cdb[2] as number);
}

function command(
  serviceAction: number,
  name: string,
  section: string,
  make: (unit: LogicalUnit, task: ScsiTask) => Uint8Array | null,
): CommandSpec {
  return {
    name: `RECEIVE COPY RESULTS (${name})`,
    section,
    opcode: 0x84,
    serviceAction,
    cdbBytes: 16,
    usage: [0x84, serviceAction, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
    reservation: 'writes',
    plan: () => true,
    execute: (unit, task) => {
      const data = make(unit, task);
      if (data === null) {
        unit.refuseField(task, 2);
        return;
      }
      task.dataIn = data.subarray(0, u32(task.cdb, 10));
      unit.finish(task);
    },
  };
}

export const RECEIVE_COPY_RESULTS_COMMANDS: readonly CommandSpec[] = [
  command(0x00, 'COPY STATUS', 'SPC-4 6.18', copyStatus),
  command(0x01, 'RECEIVE DATA', 'SPC-4 6.17', receiveData),
  command(0x03, 'OPERATING PARAMETERS', 'SPC-4 6.16', operatingParameters),
  command(0x04, 'FAILED SEGMENT DETAILS', 'SPC-4 6.19', failedSegment),
];
