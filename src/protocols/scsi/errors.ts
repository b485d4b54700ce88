import type { BlockErrorCode } from '../../block/errors.ts';
import { ASC, SENSE_KEY, STATUS } from './scsi.ts';

/** How a device's error is told: a status, and with CHECK CONDITION a sense key and code. */
export interface Told {
  readonly status: number;
  readonly key: number;
  readonly code: number;
}

function sense(key: number, code: number): Told {
  return { status: STATUS.CHECK_CONDITION, key, code };
}

const MEDIUM_READ = sense(SENSE_KEY.MEDIUM_ERROR, ASC.UNRECOVERED_READ_ERROR);
const MEDIUM_WRITE = sense(SENSE_KEY.MEDIUM_ERROR, ASC.WRITE_ERROR);
const BUSY: Told = { status: STATUS.BUSY, key: 0, code: 0 };
const PROTECTED = sense(SENSE_KEY.DATA_PROTECT, ASC.WRITE_PROTECTED);
const FAILURE = sense(SENSE_KEY.HARDWARE_ERROR, ASC.INTERNAL_TARGET_FAILURE);

/** [SBC-4 4.17 and table 34]; the rest by what makes initiators do the right thing: retry BUSY, report the others. */
const TABLE: Readonly<Record<BlockErrorCode, Told | null>> = {
  EIO: null,
  ECORRUPT: MEDIUM_READ,
  // [SBC-4 4.7.3.6] resource exhaustion
  ENOSPC: sense(SENSE_KEY.DATA_PROTECT, ASC.SPACE_ALLOCATION_FAILED_WRITE_PROTECT),
  EROFS: PROTECTED,
  EPERM: PROTECTED,
  EINVAL: sense(SENSE_KEY.ILLEGAL_REQUEST, ASC.INVALID_FIELD_IN_CDB),
  ERANGE: sense(SENSE_KEY.ILLEGAL_REQUEST, ASC.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
  EOPNOTSUPP: sense(SENSE_KEY.ILLEGAL_REQUEST, ASC.INVALID_FIELD_IN_CDB),
  EMISCOMPARE: sense(SENSE_KEY.MISCOMPARE, ASC.MISCOMPARE_DURING_VERIFY_OPERATION),
  ETIMEDOUT: FAILURE,
  ECANCELED: FAILURE,
  ESHUTDOWN: FAILURE,
  EBUSY: BUSY,
  ENOMEM: BUSY,
};

/** What an initiator is told when the disk has failed a request of its command. */
export function toldOf(error: BlockErrorCode, reading: boolean): Told {
  return TABLE[error] ?? (reading ? MEDIUM_READ : MEDIUM_WRITE);
}
