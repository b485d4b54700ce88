import { FLAG, OP } from '../../../block/io.ts';
import { MiB } from '../../../base/units.ts';
import { type CommandSpec, GROUPED } from '../command.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { ASC, SENSE_KEY } from '../scsi.ts';
import { TRANSFER, type ScsiTask } from '../task.ts';
import { impliedFlush, inTurn, type Outcome, transfer } from '../unit-io.ts';
import { firstDifference } from './compare-and-write.ts';
import { groupField, planRange, rangeUsage } from './block-range.ts';

// VERIFY and WRITE AND VERIFY (10), (12), (16).

type Form = 10 | 12 | 16;

const DPO = 0x10;
/** [SBC-4 table 131] 00b: only whether it can be read; 01b: compare; 11b: compare one block with all. */
const BYTCHK = 0x06;
const PIECE_BYTES = 1 * MiB;

function bytchk(task: ScsiTask): number {
  return ((task.cdb[1] as number) & BYTCHK) >> 1;
}

function planVerify(form: Form): CommandSpec['plan'] {
  return (unit, task) => {
    const check = bytchk(task);
    if (check === 2) return unit.refuseField(task, 1, 2);
    if (!planRange(unit, task, form)) return false;
    if (check === 1) task.outBytes = task.transferBytes;
    if (check === 3 && task.transferBytes > 0) task.outBytes = unit.blockBytes;
    return true;
  };
}

function verify(unit: LogicalUnit, task: ScsiTask): void {
  if (task.outBytes > 0 && (task.dataOut?.length ?? 0) < task.outBytes) {
    unit.refuseField(task, 1, 2);
    return;
  }
  readBack(unit, task);
}

/** [SBC-4 5.37] What is verified is on the medium: what is only in the cache goes there first. */
function readBack(unit: LogicalUnit, task: ScsiTask): void {
  const { session, offset, transferBytes } = task;
  const done: Outcome = (error, at) => {
    if (error === null) unit.finish(task);
    else if (error !== 'EMISCOMPARE') unit.fail(task, error, at, true);
    else {
      const code = ASC.MISCOMPARE_DURING_VERIFY_OPERATION;
      unit.refuse(task, SENSE_KEY.MISCOMPARE, code, { information: at });
    }
  };
  if (transferBytes === 0) {
    done(null, 0);
    return;
  }
  impliedFlush(session, offset, transferBytes, (error, at) => {
    if (error !== null) {
      unit.fail(task, error, at, false);
      return;
    }
    const piece = new Uint8Array(Math.min(PIECE_BYTES, transferBytes));
    inTurn(
      Math.ceil(transferBytes / piece.length),
      (index, next) => {
        const from = index * piece.length;
        const bytes = piece.subarray(0, Math.min(piece.length, transferBytes - from));
        transfer(session, OP.READ, offset + from, bytes, 0, (failed, where) => {
          const differs = failed === null ? difference(unit, task, bytes, from) : -1;
          if (differs >= 0) next('EMISCOMPARE', differs);
          else next(failed, where);
        });
      },
      done,
    );
  });
}

/** The offset in the command's data where the medium differs from it, or -1. */
function difference(
  unit: LogicalUnit,
  { dataOut, outBytes, transferBytes }: ScsiTask,
  there: Uint8Array,
  from: number,
): number {
  if (outBytes === 0 || dataOut === null) return -1;
  if (outBytes === transferBytes) {
    const at = firstDifference(there, dataOut.subarray(from, from + there.length));
    return at < 0 ? -1 : from + at;
  }
  const block = dataOut.subarray(0, unit.blockBytes);
  for (let at = 0; at < there.length; at += block.length) {
    const differs = firstDifference(there.subarray(at, at + block.length), block);
    if (differs >= 0) return from + at + differs;
  }
  return -1;
}

/** The data is written through to the medium, then read back from there. */
function planWriteAndVerify(form: Form): CommandSpec['plan'] {
  return (unit, task) => {
    if (bytchk(task) >= 2) return unit.refuseField(task, 1, 2);
    task.transfer = TRANSFER.WRITE;
    task.ioFlags = FLAG.FUA;
    return planRange(unit, task, form) && unit.ranges.enter(task, false);
  };
}

function verifyCommand(form: Form, opcode: number, section: string): CommandSpec {
  return {
    name: `VERIFY (${form})`,
    section,
    opcode,
    cdbBytes: form,
    usage: rangeUsage(opcode, DPO | BYTCHK, form),
    reservation: 'reads',
    needsMedium: true,
    plan: planVerify(form),
    execute: verify,
  };
}

function writeAndVerifyCommand(form: Form, opcode: number, section: string): CommandSpec {
  return {
    name: `WRITE AND VERIFY (${form})`,
    section,
    opcode,
    cdbBytes: form,
    usage: rangeUsage(opcode, DPO | BYTCHK, form),
    reservation: 'writes',
    needsMedium: true,
    writes: true,
    grouped: GROUPED.WRITE,
    groupByte: groupField(form),
    plan: planWriteAndVerify(form),
    execute: readBack,
  };
}

export const VERIFY_COMMANDS: readonly CommandSpec[] = [
  verifyCommand(10, 0x2f, 'SBC-4 5.37'),
  verifyCommand(12, 0xaf, 'SBC-4 5.38'),
  verifyCommand(16, 0x8f, 'SBC-4 5.39'),
  writeAndVerifyCommand(10, 0x2e, 'SBC-4 5.45'),
  writeAndVerifyCommand(12, 0xae, 'SBC-4 5.46'),
  writeAndVerifyCommand(16, 0x8e, 'SBC-4 5.47'),
];
