import { rmSync, statSync } from 'node:fs';
import { dirname, isAbsolute, relative, resolve } from 'node:path';
import { ConfigError, messageOf } from '../base/errors.ts';
import type { BlockDevice } from '../block/device.ts';
import type { FlushDomain } from '../durability/flush-domain.ts';
import { CACHE_MODES } from '../durability/modes.ts';
import { RecorderLayer } from '../layers/recorder/recorder-layer.ts';
import { TraceRecorder } from '../layers/recorder/trace-recorder.ts';
import type { Reactor } from '../reactor/reactor.ts';
import type { FileStore } from '../stores/file/file-store.ts';
import { copyBase, recordBase } from '../trace/base.ts';
import type { Mark, TraceBase, TraceDisk } from '../trace/trace.ts';
import type { DiskConfig, RecordConfig, ServerConfig } from './config.ts';

/** The recording of one server: its trace, the bases beside it, and a layer over the store of each disk. */
export class Recording {
  readonly #config: RecordConfig;
  readonly #server: ServerConfig;
  readonly #reactor: Reactor;
  readonly #recorder: TraceRecorder;
  readonly #domains = new Set<FlushDomain>();
  /** Files made here. */
  readonly #made: string[] = [];

  private constructor(
    config: RecordConfig,
    server: ServerConfig,
    reactor: Reactor,
    warn: (line: string) => void,
  ) {
    this.#config = config;
    this.#server = server;
    this.#reactor = reactor;
    this.#recorder = new TraceRecorder(reactor, {
      path: config.path,
      reads: config.reads ?? false,
      onError: config.onError ?? 'go-on',
      warn,
    });
    this.#made.push(config.path);
  }

  /** Makes the trace; null when none is wanted. Throws ConfigError. */
  static open(
    server: ServerConfig,
    reactor: Reactor,
    warn: (line: string) => void,
  ): Recording | null {
    const config = server.record;
    if (config === undefined) return null;
    if (typeof config.base === 'object' && server.disks.length !== 1) {
      throw new ConfigError(
        `${config.path}: one image cannot be what ${server.disks.length} disks held`,
        'record one disk, or let copies be made',
      );
    }
    return new Recording(config, server, reactor, warn);
  }

  /** A layer that records, over a disk's store. Keeps what the disk holds now. Throws ConfigError. */
  wrap(store: BlockDevice, disk: DiskConfig, file: FileStore | null): BlockDevice {
    if (file !== null && this.#domains.has(file.domain)) {
      throw new ConfigError(
        `${disk.disk} is served twice, and a recording takes each disk once`,
        'serve it once: all protocols can show one export',
      );
    }
    if (file !== null) this.#domains.add(file.domain);
    const { sizeBytes, blockBytes } = store.info;
    const { ignoreFlush } = CACHE_MODES[disk.cache];
    const { number } = this.#recorder.addDisk({
      name: disk.exportName === '' ? disk.disk : disk.exportName,
      sizeBytes,
      blockBytes,
      base: this.#base(disk, file, sizeBytes),
      discard: this.#discardOf(disk),
      flushCovers: 'everyone',
      ...(ignoreFlush ? { ignoresFlush: true } : {}),
    });
    return new RecorderLayer(store, this.#recorder, number);
  }

  /** `timeNs`: CLOCK_MONOTONIC. Throws ConfigError when nothing is recorded any more. */
  mark(kind: Mark['kind'], text: string, timeNs: number): void {
    this.#recorder.mark(kind, text, timeNs);
  }

  /** Ends the trace, after the disks are closed. */
  close(): Promise<void> {
    return this.#recorder.close();
  }

  /** The server never was there: nothing is left of it. After `close`. */
  remove(): void {
    for (const path of this.#made) rmSync(path, { force: true });
  }

  #base(disk: DiskConfig, file: FileStore | null, sizeBytes: number): TraceBase {
    const { path, base = 'copy' } = this.#config;
    if (base === 'zeroes' || file === null) return { kind: 'zeroes' };
    const { files } = this.#reactor;
    const image = base === 'copy' ? disk.disk : base.image;
    try {
      // What cannot change, or is promised not to, need not be copied.
      if (base !== 'copy' || (disk.readOnly && statSync(image).size === sizeBytes)) {
        return recordBase(image, nameFrom(path, image), files);
      }
      const copy = `${path}.base${this.#made.length === 1 ? '' : `.${this.#made.length}`}`;
      const made = copyBase(image, copy, sizeBytes, files);
      this.#made.push(copy);
      return made;
    } catch (error) {
      throw new ConfigError(
        `${path}: what ${image} holds now cannot be kept: ${messageOf(error)}`,
        'a recording needs a copy of the disk as it was, beside the trace',
        { cause: error },
      );
    }
  }

  /** Logical units say that what is unmapped reads as zeroes (LBPRZ); NBD and virtio-blk promise nothing. */
  #discardOf({ exportName }: DiskConfig): TraceDisk['discard'] {
    const promised = this.#server.listen.some(
      (where) =>
        where.protocol === 'iscsi' &&
        where.target.luns.some((lun) => lun.exportName === exportName),
    );
    return promised ? 'zeroes' : 'undefined';
  }
}

/** How a trace names an image: from its own folder if it lies there, so that both can be moved together. */
function nameFrom(trace: string, image: string): string {
  const name = relative(dirname(resolve(trace)), resolve(image));
  return name.startsWith('..') || isAbsolute(name) ? resolve(image) : name;
}
