import type { CommandSpec } from '../command.ts';
import type { CopyRecord } from '../copy-records.ts';
import {
  BLOCK_TO_BLOCK,
  BLOCK_TO_BLOCK_OFFSET,
  COPY_LIMITS,
  IDENTIFICATION,
} from '../copy-limits.ts';
import { type CopySegment, copySegment, hindrance } from '../copy-segments.ts';
import { MAX_PARAMETER_BYTES } from '../limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { ASC, SENSE_KEY, STATUS } from '../scsi.ts';
import { senseData } from '../sense.ts';
import type { ScsiTask } from '../task.ts';
import { inTurn } from '../unit-io.ts';
import { u16, u32, u64 } from './block-range.ts';
import { RECEIVE_COPY_RESULTS_COMMANDS } from './receive-copy-results.ts';

// EXTENDED COPY (LID1) [SPC-4 6.4, SPC-3 6.3]: between logical units of this target, from block device to block device. What
// became of it is told by RECEIVE COPY RESULTS (receive-copy-results.ts).

const HEADER_BYTES = 16;
/** LIST ID USAGE [SPC-4 table 92]; 00b keeps the results. */
const USAGE_RESERVED = 1;
const USAGE_DISCARD = 2;
const USAGE_NONE = 3;
const CSCD_BYTES = 32;
/** In CSCD descriptors of NAA designators [SPC-4 7.8.6]: code set binary, of the logical unit, type NAA. */
const BINARY = 1;
const NAA = 3;

function plan(unit: LogicalUnit, task: ScsiTask): boolean {
  task.outBytes = u32(task.cdb, 10);
  if (task.outBytes > MAX_PARAMETER_BYTES) return unit.refuseField(task, 10);
  return task.outBytes === 0 || task.outBytes >= HEADER_BYTES || wrongLength(unit, task);
}

function wrongLength(unit: LogicalUnit, task: ScsiTask): false {
  return unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.PARAMETER_LIST_LENGTH_ERROR);
}

function illegal(unit: LogicalUnit, task: ScsiTask, code: number): null {
  unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, code);
  return null;
}

function badParameter(unit: LogicalUnit, task: ScsiTask, byte: number): null {
  unit.refuseParameter(task, byte);
  return null;
}

function execute(unit: LogicalUnit, task: ScsiTask): void {
  const list = task.dataOut;
  // [SPC-4 6.4.1] No parameter list is not an error.
  if (task.outBytes === 0) {
    unit.finish(task);
    return;
  }
  if (list === null || list.length < task.outBytes) {
    wrongLength(unit, task);
    return;
  }
  const cscdBytes = u16(list, 2);
  const segmentBytes = u32(list, 8);
  const inlineBytes = u32(list, 12);
  if (HEADER_BYTES + cscdBytes + segmentBytes + inlineBytes > list.length) {
    wrongLength(unit, task);
    return;
  }
  if (cscdBytes + segmentBytes > COPY_LIMITS.listBytes || inlineBytes > 0) {
    wrongLength(unit, task);
    return;
  }
  const cscds = readCscds(unit, task, list, HEADER_BYTES + cscdBytes);
  if (cscds === null) return;
  const start = HEADER_BYTES + cscdBytes;
  const segments = readSegments(unit, task, list, start, start + segmentBytes, cscds);
  if (segments === null) return;
  const record = recordOf(unit, task, list);
  if (record === null) return;
  if (unit.copies.running >= COPY_LIMITS.copies) {
    unit.finish(task, STATUS.BUSY);
    return;
  }
  run(unit, task, segments, record);
}

/** The logical units that CSCD descriptors name; null in it: one that is not here. Null: it has been refused. */
function readCscds(
  unit: LogicalUnit,
  task: ScsiTask,
  list: Uint8Array,
  end: number,
): (LogicalUnit | null)[] | null {
  const found: (LogicalUnit | null)[] = [];
  for (let at = HEADER_BYTES; at < end; at += CSCD_BYTES) {
    if (list[at] !== IDENTIFICATION) {
      return illegal(unit, task, ASC.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE);
    }
    if (at + CSCD_BYTES > end) return badParameter(unit, task, 2);
    if (found.length === COPY_LIMITS.cscdDescriptors) {
      return illegal(unit, task, ASC.TOO_MANY_TARGET_DESCRIPTORS);
    }
    // LU ID TYPE is ignored, and NUL obsolete [SPC-4 6.4.5.1]; the device type is a block device's.
    if (((list[at + 1] as number) & 0x1f) !== 0) return badParameter(unit, task, at + 1);
    const named = unitNamed(unit, list.subarray(at, at + CSCD_BYTES));
    const blockBytes = u32(list, at + 28) % 2 ** 24;
    if (named !== null && blockBytes !== named.blockBytes) {
      return badParameter(unit, task, at + 29);
    }
    found.push(named);
  }
  return found;
}

function unitNamed(unit: LogicalUnit, descriptor: Uint8Array): LogicalUnit | null {
  const codeSet = (descriptor[4] as number) & 0x0f;
  // ASSOCIATION 0: the logical unit.
  if (codeSet !== BINARY || ((descriptor[5] as number) & 0x3f) !== NAA) return null;
  const name = Buffer.from(descriptor.subarray(8, 8 + Math.min(20, descriptor[7] as number)));
  for (const other of unit.target.units.values()) {
    if (name.equals(other.options.naa)) return other;
  }
  return null;
}

function readSegments(
  unit: LogicalUnit,
  task: ScsiTask,
  list: Uint8Array,
  start: number,
  end: number,
  cscds: readonly (LogicalUnit | null)[],
): CopySegment[] | null {
  const segments: CopySegment[] = [];
  for (let at = start; at < end;) {
    const type = list[at] as number;
    const withOffset = type === BLOCK_TO_BLOCK_OFFSET;
    if (!withOffset && type !== BLOCK_TO_BLOCK) {
      return illegal(unit, task, ASC.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE);
    }
    const length = withOffset ? 32 : 28;
    if (at + length > end || u16(list, at + 2) !== length - 4) {
      return badParameter(unit, task, at + 2);
    }
    if (segments.length === COPY_LIMITS.segmentDescriptors) {
      return illegal(unit, task, ASC.TOO_MANY_SEGMENT_DESCRIPTORS);
    }
    const segment = readSegment(list, at, cscds);
    if (segment.bytes > COPY_LIMITS.segmentBytes) {
      return badParameter(unit, task, withOffset ? at + 8 : at + 10);
    }
    segments.push(segment);
    at += length;
  }
  return segments;
}

/** [SPC-4 6.4.6.4, 6.4.6.14] */
function readSegment(
  list: Uint8Array,
  at: number,
  cscds: readonly (LogicalUnit | null)[],
): CopySegment {
  const source = cscds[u16(list, at + 4)] ?? null;
  const target = cscds[u16(list, at + 6)] ?? null;
  const sourceBlock = source?.blockBytes ?? 512;
  const targetBlock = target?.blockBytes ?? 512;
  let from = u64(list, at + 12) * sourceBlock;
  let to = u64(list, at + 20) * targetBlock;
  if (list[at] === BLOCK_TO_BLOCK_OFFSET) {
    from += u16(list, at + 28);
    to += u16(list, at + 30);
    return { source, target, from, to, bytes: u32(list, at + 8) };
  }
  // DC: the blocks are counted as the destination's.
  const dc = ((list[at + 1] as number) & 2) !== 0;
  return { source, target, from, to, bytes: u16(list, at + 10) * (dc ? targetBlock : sourceBlock) };
}

/** A record that is kept, one that is not, or null: it has been refused. */
function recordOf(unit: LogicalUnit, task: ScsiTask, list: Uint8Array): CopyRecord | null {
  const listId = list[0] as number;
  const usage = ((list[1] as number) >> 3) & 3;
  const record: CopyRecord = {
    listId,
    status: 'under way',
    segments: 0,
    bytes: 0,
    sense: new Uint8Array(0),
    // The identifier is free again once the copy is done well; results of failed ones are always kept.
    discards: usage === USAGE_DISCARD,
  };
  if (usage === USAGE_NONE && listId === 0) return record;
  if (usage === USAGE_RESERVED || usage === USAGE_NONE)
    return badParameter(unit, task, usage === USAGE_NONE ? 0 : 1);
  if (unit.copies.find(task.nexus, listId)?.status === 'under way') {
    return illegal(unit, task, ASC.OPERATION_IN_PROGRESS);
  }
  unit.copies.keep(task.nexus, record);
  return record;
}

/** Segments in their order; the first that fails ends it, and what was copied before stays copied. */
function run(
  unit: LogicalUnit,
  task: ScsiTask,
  segments: readonly CopySegment[],
  record: CopyRecord,
): void {
  let reason: number = ASC.THIRD_PARTY_DEVICE_FAILURE;
  unit.copies.running += 1;
  inTurn(
    segments.length,
    (index, next) => {
      const segment = segments[index] as CopySegment;
      const wrong = hindrance(segment, task);
      if (wrong !== null) {
        reason = wrong;
        next('EIO', 0);
        return;
      }
      copySegment(segment, task, record, (error) => {
        if (error === null) record.segments += 1;
        next(error, 0);
      });
    },
    (error) => {
      unit.copies.running -= 1;
      record.status = error === null ? 'done' : 'failed';
      if (record.discards && error === null) unit.copies.forget(task.nexus, record.listId);
      if (error === null) {
        unit.finish(task);
        return;
      }
      record.sense = senseData(unit.modes.descriptorSense, SENSE_KEY.COPY_ABORTED, reason);
      unit.refuse(task, SENSE_KEY.COPY_ABORTED, reason);
    },
  );
}

export const EXTENDED_COPY_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'EXTENDED COPY (LID1)',
    section: 'SPC-4 6.4',
    opcode: 0x83,
    serviceAction: 0x00,
    cdbBytes: 16,
    usage: [0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
    reservation: 'writes',
    plan,
    execute,
  },
  ...RECEIVE_COPY_RESULTS_COMMANDS,
];
