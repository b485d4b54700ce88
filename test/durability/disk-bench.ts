import assert from 'node:assert/strict';
import type { BlockErrorCode } from '../../src/block/errors.ts';
import { Disk, type DiskOptions } from '../../src/durability/disk.ts';
import type { DiskSession, SessionOptions } from '../../src/durability/disk-session.ts';
import { FlushDomain, type SyncTarget } from '../../src/durability/flush-domain.ts';
import type { CacheMode } from '../../src/durability/modes.ts';
import { type Asked, Client, VolatileStore, type VolatileStoreOptions } from './volatile-store.ts';

/** Disk, or a faulty one in its place. */
export type DiskClass = new (options: DiskOptions) => Disk;

/** A disk over a volatile store, with one session open and a client on it. */
export class DiskBench {
  readonly store: VolatileStore;
  readonly domain: FlushDomain;
  readonly disk: Disk;
  readonly client: Client;
  readonly session: DiskSession;
  readonly lines: string[] = [];

  constructor(
    mode: CacheMode = 'writeback',
    options: {
      readonly store?: VolatileStoreOptions;
      readonly disk?: Partial<DiskOptions>;
      readonly session?: SessionOptions;
      readonly make?: DiskClass;
    } = {},
  ) {
    this.store = new VolatileStore(
      (target: SyncTarget) => new FlushDomain({ target }),
      options.store ?? {},
    );
    this.domain = this.store.flusher as FlushDomain;
    this.disk = new (options.make ?? Disk)({
      store: this.store,
      mode,
      domain: this.domain,
      log: (line) => this.lines.push(line),
      ...options.disk,
    });
    this.session = this.open(options.session);
    this.client = new Client(this.session);
  }

  open(options: SessionOptions = { flushes: true }): DiskSession {
    const opened: DiskSession[] = [];
    this.disk.openSession(options, (session) => opened.push(session));
    assert.equal(opened.length, 1, 'the session is not ready');
    return opened[0] as DiskSession;
  }

  /** A write that the host has done. */
  written(block: number, flags = 0): Asked {
    const asked = this.client.write(block, flags);
    this.store.finish(asked.io);
    return asked;
  }

  /** Lets the host do everything. */
  settle(): void {
    for (;;) {
      if (this.store.pending.length > 0) this.store.finish();
      else if (this.store.syncing) this.store.finishSync();
      else return;
    }
  }

  switchCache(enabled: boolean): { done: boolean; error: BlockErrorCode | null } {
    const outcome: { done: boolean; error: BlockErrorCode | null } = { done: false, error: null };
    this.disk.setWriteCache(enabled, (error) => {
      outcome.done = true;
      outcome.error = error;
    });
    return outcome;
  }
}
