import type { BlockDevice } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import type { Disk } from '../../durability/disk.ts';
import type { DiskSession } from '../../durability/disk-session.ts';

/** What one open of the file reads and writes: one `open(2)`, whatever descriptors are duplicated from it. */
export interface FuseFile {
  /** The same for all of the open's life. Every request of the open goes to it, and to nothing else. */
  readonly device: BlockDevice;
  /**
   * The last descriptor is closed, or the mount has ended: nothing more is asked for. Where it was ended in haste (`cut`, or
   * a device that does not answer), requests may still be in flight, and the device may get the rest of one.
   */
  close(): void;
}

/** Told what an open got, or why there is nothing for it: null and the code that the opener sees. */
export type Opened = (file: FuseFile | null, refused: BlockErrorCode | null) => void;

/** What the mounted file shows. */
export interface FuseSource {
  /** What stat(2) says, asked for at every stat. The devices of opens that are to be read to their end have it too. */
  readonly sizeBytes: number;
  /** st_blksize: what copying programs read and write at a time. */
  readonly preferredBytes: number;
  /** Opens for writing fail with EROFS. May change; those that are open keep what they have. */
  readonly readOnly: boolean;
  /**
   * Somebody opens the file. `opened` is called exactly once, at once or later; the opener waits until then. Different
   * opens may get different devices: a disk as it was at another time.
   */
  open(writable: boolean, opened: Opened): void;
}

/** One device, which outlives the mount, for all opens. */
export function sourceOfDevice(device: BlockDevice): FuseSource {
  const file: FuseFile = { device, close: () => {} };
  return {
    get sizeBytes() {
      return device.info.sizeBytes;
    },
    get preferredBytes() {
      return device.info.preferredBytes;
    },
    get readOnly() {
      return device.info.readOnly;
    },
    open: (_writable, opened) => opened(file, null),
  };
}

/**
 * A disk, each open with a session of its own: what `until-flush` waits for is a flush by the same open. `fence` is called
 * before a session is asked for (P11).
 */
export function sourceOfDisk(disk: Disk, fence: () => void = () => {}): FuseSource {
  return {
    get sizeBytes() {
      return disk.info.sizeBytes;
    },
    get preferredBytes() {
      return disk.info.preferredBytes;
    },
    get readOnly() {
      return disk.info.readOnly;
    },
    open: (_writable, opened) => {
      fence();
      // The kernel passes fsync(2) on, so every opener can flush.
      disk.openSession({ flushes: true }, (session) => opened(new SessionFile(session), null));
    },
  };
}

class SessionFile implements FuseFile {
  readonly device: DiskSession;

  constructor(session: DiskSession) {
    this.device = session;
  }

  close(): void {
    this.device.end();
  }
}
