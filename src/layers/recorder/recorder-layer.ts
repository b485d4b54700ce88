import { unreachable } from '../../base/assert.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import { OP, type Io, type IoOwner } from '../../block/io.ts';
import { InFlight } from './in-flight.ts';
import type { RecorderClient, TraceRecorder } from './trace-recorder.ts';

/**
 * A device over one child that records what it is asked, and when the child was done. It stands between a Disk and its
 * store: requests come with the write cache decided (a write that must be stable has FUA, whoever wanted that), and the
 * server's own flushes are seen like a guest's, for they make data stable too; so are those that a flush domain leaves out
 * because nothing is unstable. In mode `unsafe` a FLUSH never comes this far, and rightly so: it makes nothing stable.
 * The disk's description in the trace says so (`ignoresFlush`), to tell it from a guest that asks for none.
 *
 * Changes of one place that are in flight together are given to the child one after another, so that the order of issue
 * is the order on the disk. Where changes do not overlap, and for reads, nothing waits.
 */
export class RecorderLayer implements BlockDevice, IoOwner, RecorderClient {
  readonly disk: number;
  readonly #child: BlockDevice;
  readonly #recorder: TraceRecorder;
  readonly #inFlight = new InFlight();
  /** Submitted and not completed: those that wait for the recorder, too. */
  #count = 0;
  #closed = false;
  #drained: (() => void) | null = null;

  /** `disk`: its number in the trace (`TraceRecorder.addDisk`). */
  constructor(child: BlockDevice, recorder: TraceRecorder, disk: number) {
    this.#child = child;
    this.#recorder = recorder;
    this.disk = disk;
  }

  get info(): DeviceInfo {
    return this.#child.info;
  }

  submit(io: Io): void {
    if (this.#closed) {
      io.complete('ESHUTDOWN');
      return;
    }
    switch (io.op) {
      case OP.WRITE:
      case OP.FLUSH:
      case OP.DISCARD:
      case OP.WRITE_ZEROES:
        this.#record(io);
        return;
      case OP.READ:
        if (this.#recorder.recordsReads) this.#record(io);
        else this.#child.submit(io);
        return;
      // They ask for nothing that a power cut could touch.
      case OP.CACHE:
      case OP.EXTENTS:
        this.#child.submit(io);
        return;
      default:
        unreachable(io.op);
    }
  }

  /** For TraceRecorder: the request stands in the trace, or nothing does any more. */
  issued(io: Io, request: number): void {
    if (this.#recorder.refuses) {
      this.#leave(io, 'EIO');
      return;
    }
    const slot = this.#inFlight.add(io, request);
    io.push(this, slot);
    if (this.#inFlight.isFree(slot)) this.#child.submit(io);
  }

  ioDone(io: Io): void {
    const slot = io.saved;
    const { error } = io;
    this.#recorder.complete(this.#inFlight.requestOf(slot), this.disk, error);
    this.#inFlight.remove(slot);
    this.#leave(io, error);
    for (let next = this.#inFlight.takeFreed(); next !== null; next = this.#inFlight.takeFreed()) {
      this.#child.submit(next);
    }
  }

  /** Waits for all in flight and closes the child. The recorder goes on: it has other disks. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#count > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
    await this.#child.close();
  }

  #record(io: Io): void {
    this.#count += 1;
    this.#recorder.issue(io, this);
  }

  #leave(io: Io, error: Io['error']): void {
    this.#count -= 1;
    io.complete(error);
    if (this.#count > 0 || this.#drained === null) return;
    this.#drained();
    this.#drained = null;
    letEventLoopRun();
  }
}
