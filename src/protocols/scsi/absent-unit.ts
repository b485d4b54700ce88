import { reportLuns } from './commands/report-luns.ts';
import { ASC, SENSE_KEY, STATUS } from './scsi.ts';
import { senseData } from './sense.ts';
import type { ScsiTarget } from './target.ts';
import type { ScsiTask } from './task.ts';

const INQUIRY = 0x12;
const REQUEST_SENSE = 0x03;
const REPORT_LUNS = 0xa0;

/** A command for a LUN that has no logical unit [SAM-5 5.11]: INQUIRY, REPORT LUNS and REQUEST SENSE still say something. */
export function absentUnit(target: ScsiTarget, task: ScsiTask): void {
  const { LOGICAL_UNIT_NOT_SUPPORTED } = ASC;
  const { cdb } = task;
  switch (cdb[0] as number) {
    case INQUIRY: {
      // [SPC-4 6.6.2] peripheral qualifier 011b, device type 1Fh: no device can be there.
      const data = new Uint8Array(36);
      data.set([0x7f, 0, 6, 2, 31]);
      task.dataIn = data.subarray(0, (cdb[3] as number) * 256 + (cdb[4] as number));
      break;
    }
    case REQUEST_SENSE:
      task.dataIn = senseData(
        ((cdb[1] as number) & 1) !== 0,
        SENSE_KEY.ILLEGAL_REQUEST,
        LOGICAL_UNIT_NOT_SUPPORTED,
      ).subarray(0, cdb[4]);
      break;
    case REPORT_LUNS:
      task.dataIn = reportLuns(target, cdb);
      break;
    default:
      break;
  }
  if (task.dataIn === null) {
    task.status = STATUS.CHECK_CONDITION;
    task.sense = senseData(false, SENSE_KEY.ILLEGAL_REQUEST, LOGICAL_UNIT_NOT_SUPPORTED);
  }
  task.owner.taskDone(task);
}
