import { MiB } from '../../base/units.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { OP } from '../../block/io.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { ASC } from './scsi.ts';
import type { ScsiTask } from './task.ts';
import { inTurn, transfer } from './unit-io.ts';

const PIECE_BYTES = 1 * MiB;

/** One segment descriptor, understood: `bytes` from one place to another. Null: a CSCD that is not here. */
export interface CopySegment {
  readonly source: LogicalUnit | null;
  readonly target: LogicalUnit | null;
  readonly from: number;
  readonly to: number;
  readonly bytes: number;
}

/** Why a segment cannot be copied: an additional sense code for COPY ABORTED, or null. */
export function hindrance(segment: CopySegment, { nexus }: ScsiTask): number | null {
  const { source, target, from, to, bytes } = segment;
  if (source === null || target === null) return ASC.COPY_TARGET_DEVICE_NOT_REACHABLE;
  const misfits = [source, target].some((unit) => bytes % unit.blockBytes !== 0);
  if (misfits || from % source.blockBytes !== 0 || to % target.blockBytes !== 0) {
    return ASC.UNEXPECTED_INEXACT_SEGMENT;
  }
  // [SPC-4 6.4.4] The sense data of the device that failed would follow; a range needs none (libiscsi's suite wants no code).
  if (from + bytes > source.blocks * source.blockBytes) return ASC.NO_ADDITIONAL_SENSE_INFORMATION;
  if (to + bytes > target.blocks * target.blockBytes) return ASC.NO_ADDITIONAL_SENSE_INFORMATION;
  const refused =
    source.medium.obstacle !== null ||
    target.medium.obstacle !== null ||
    target.writeProtected ||
    source.reservations.conflicts(nexus, 'reads') ||
    target.reservations.conflicts(nexus, 'writes');
  return refused ? ASC.THIRD_PARTY_DEVICE_FAILURE : null;
}

/**
 * Copies one segment, piece by piece; other commands see it as a write of the range it changes. It stops early when the
 * task is aborted. `record` counts the bytes.
 */
export function copySegment(
  segment: CopySegment,
  task: ScsiTask,
  record: { bytes: number },
  done: (error: BlockErrorCode | null) => void,
): void {
  const { from, to, bytes } = segment;
  const source = segment.source as LogicalUnit;
  const target = segment.target as LogicalUnit;
  if (bytes === 0) {
    done(null);
    return;
  }
  const piece = new Uint8Array(Math.min(PIECE_BYTES, bytes));
  const reading = source.sessionOf(task.nexus);
  const writing = target.sessionOf(task.nexus);
  const stretch = { offset: to, transferBytes: bytes };
  target.ranges.hold(stretch, false, () => {
    inTurn(
      Math.ceil(bytes / piece.length),
      (index, next) => {
        const at = index * piece.length;
        const part = piece.subarray(0, Math.min(piece.length, bytes - at));
        if (task.aborted) {
          next('ECANCELED', at);
          return;
        }
        transfer(reading, OP.READ, from + at, part, 0, (unread, where) => {
          if (unread !== null) {
            next(unread, where);
            return;
          }
          transfer(writing, OP.WRITE, to + at, part, 0, (error, place) => {
            if (error === null) record.bytes += part.length;
            next(error, place);
          });
        });
      },
      (error) => {
        target.ranges.leave(stretch);
        done(error);
      },
    );
  });
}
