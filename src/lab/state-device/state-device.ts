import { unreachable } from '../../base/assert.ts';
import type { BlockDevice, DeviceInfo } from '../../block/device.ts';
import type { BlockErrorCode } from '../../block/errors.ts';
import { OP, type Io } from '../../block/io.ts';
import { MAX_TRANSFER_BYTES } from '../../block/limits.ts';
import type { Region } from '../../block/memory.ts';
import type { CrashModel } from '../model/types.ts';
import { openBase } from './base-image.ts';
import { Overlay } from './overlay.ts';
import { ShownState } from './shown-state.ts';
import { StateImage } from './state-image.ts';

/**
 * One disk as a power cut may leave it. Reads come from the trace and its base, writes go to a layer of this run alone,
 * which is void as soon as another state is shown. Where the map of holes would tell a checker something that it did
 * not read, there is none.
 */
export class StateDevice implements BlockDevice {
  readonly info: DeviceInfo;
  readonly #shown: ShownState;
  readonly #image: StateImage;
  readonly #overlay = new Overlay();
  #run = -1;
  #overflowed = false;
  #closed = false;

  constructor(shown: ShownState, image: StateImage, info: DeviceInfo) {
    this.#shown = shown;
    this.#image = image;
    this.info = info;
  }

  /** A write of this run found no room and failed: what the checker says of it is not worth anything. */
  get overflowed(): boolean {
    return this.#overflowed && this.#run === this.#shown.runs;
  }

  /** Whether a range is zeroes in every state: the trace never wrote it. What the checker wrote does not count. */
  isBlank(offset: number, length: number): boolean {
    return this.#image.isBlank(offset, length);
  }

  submit(io: Io): void {
    if (this.#run !== this.#shown.runs) this.#begin();
    io.complete(this.#closed ? 'ESHUTDOWN' : this.#perform(io));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#overlay.clear();
    this.#image.close();
  }

  #begin(): void {
    this.#run = this.#shown.runs;
    this.#overflowed = false;
    this.#overlay.clear();
  }

  #perform(io: Io): BlockErrorCode | null {
    switch (io.op) {
      case OP.READ:
        this.#read(io);
        return null;
      case OP.WRITE:
        return this.#write(io);
      case OP.DISCARD:
      case OP.WRITE_ZEROES:
        return this.#took(this.#overlay.zero(io.offset, io.length));
      case OP.EXTENTS:
        io.extents.push(io.length, 0);
        return null;
      case OP.FLUSH:
      case OP.CACHE:
        return null;
      default:
        return unreachable(io.op);
    }
  }

  #read(io: Io): void {
    const { ranges } = this.#overlay;
    let offset = io.offset;
    for (let i = 0; i < io.segments.count; i += 1) {
      const target = (io.segments.regions[i] as Region).bytes;
      let at = io.segments.starts[i] as number;
      const end = io.segments.end(i);
      let next = ranges.after(offset);
      while (at < end) {
        const start = next < ranges.count ? ranges.startOf(next) : Infinity;
        if (start > offset) {
          const length = Math.min(end - at, start - offset);
          this.#image.read(offset, target, at, length);
          offset += length;
          at += length;
        } else {
          const length = Math.min(end - at, ranges.endOf(next) - offset);
          this.#overlay.read(offset, target, at, length);
          offset += length;
          at += length;
          next += 1;
        }
      }
    }
  }

  #write(io: Io): BlockErrorCode | null {
    let offset = io.offset;
    for (let i = 0; i < io.segments.count; i += 1) {
      const source = (io.segments.regions[i] as Region).bytes;
      const start = io.segments.starts[i] as number;
      const length = io.segments.lengths[i] as number;
      if (!this.#overlay.write(offset, source, start, length)) return this.#took(false);
      offset += length;
    }
    return null;
  }

  #took(room: boolean): BlockErrorCode | null {
    if (room) return null;
    this.#overflowed = true;
    return 'ENOSPC';
  }
}

/** The disks of a trace, all showing the same state. */
export interface StateDisks {
  readonly shown: ShownState;
  /** One for each disk, in the trace's order. */
  readonly devices: readonly StateDevice[];
  close(): Promise<void>;
}

/** Opens the disks of a model's trace. `logReads`: what each run reads is noted. Throws a ConfigError without a base. */
export function openStateDisks(model: CrashModel, logReads: boolean): StateDisks {
  const { disks } = model.trace;
  const shown = new ShownState(model, logReads);
  const devices: StateDevice[] = [];
  const close = async (): Promise<void> => {
    for (const device of devices) await device.close();
  };
  let unit = 0;
  for (const disk of disks) {
    const first = unit;
    while (unit < model.unitCount && model.place(unit).disk === disk.number) unit += 1;
    const info: DeviceInfo = Object.freeze({
      name: disk.name,
      sizeBytes: disk.sizeBytes,
      blockBytes: disk.blockBytes,
      preferredBytes: Math.max(4096, disk.blockBytes),
      maxTransferBytes: MAX_TRANSFER_BYTES,
      readOnly: false,
      writeCache: false,
      ignoresFlush: false,
      fua: 'native',
      discard: true,
      fastZero: true,
      extents: false,
      rotational: false,
      memoryAlignment: 1,
    } satisfies DeviceInfo);
    try {
      const base = openBase(model.trace, disk);
      const image = new StateImage(shown, base, disk.sizeBytes, [first, unit]);
      devices.push(new StateDevice(shown, image, info));
    } catch (error) {
      void close();
      throw error;
    }
  }
  return { shown, devices, close };
}
