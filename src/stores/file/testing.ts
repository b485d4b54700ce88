import { closeSync, mkdtempSync, openSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Timer } from '../../base/clock.ts';
import { Segments, type Region } from '../../block/memory.ts';
import { openReactor } from '../../reactor/open.ts';
import type { PagePool } from '../../reactor/page-pool.ts';
import type {
  Completion,
  Files,
  FileTraits,
  Listener,
  ReadableWatch,
  Reactor,
  Stream,
} from '../../reactor/reactor.ts';
import type { FileStoreOptions } from './open.ts';

// For tests: a real reactor whose file requests are counted and can be made to fail.

export type RequestKind = 'read' | 'write' | 'datasync' | 'allocate' | 'willNeed';

/** Decides a request's fate: null lets it pass, a number is its result, and the kernel never sees it. */
export type Fault = (request: {
  readonly kind: RequestKind;
  readonly length: number;
  readonly mode: number;
  readonly dsync: boolean;
}) => number | null;

class FaultyFiles implements Files {
  readonly counts: Record<RequestKind, number> = {
    read: 0,
    write: 0,
    datasync: 0,
    allocate: 0,
    willNeed: 0,
  };
  dsyncWrites = 0;
  fault: Fault | null = null;
  /** The most bytes one read or write moves. */
  mostBytes = Infinity;
  /** Traits as they are found, or changed by a test. */
  traits: (found: FileTraits) => FileTraits = (found) => found;
  readonly #real: Files;
  readonly #reactor: Reactor;

  constructor(reactor: Reactor) {
    this.#real = reactor.files;
    this.#reactor = reactor;
  }

  probeFile(fd: number): FileTraits {
    return this.traits(this.#real.probeFile(fd));
  }

  read(
    done: Completion,
    fd: number,
    traits: FileTraits,
    segments: Segments,
    skip: number,
    offset: number,
  ): void {
    if (this.#stopped(done, 'read', segments.totalBytes - skip, 0, false)) return;
    const part = this.#shorten(segments, skip);
    this.#real.read(done, fd, traits, part, part === segments ? skip : 0, offset);
  }

  write(
    done: Completion,
    fd: number,
    traits: FileTraits,
    segments: Segments,
    skip: number,
    offset: number,
    dsync: boolean,
  ): void {
    if (dsync) this.dsyncWrites += 1;
    if (this.#stopped(done, 'write', segments.totalBytes - skip, 0, dsync)) return;
    const part = this.#shorten(segments, skip);
    this.#real.write(done, fd, traits, part, part === segments ? skip : 0, offset, dsync);
  }

  datasync(done: Completion, fd: number): void {
    if (this.#stopped(done, 'datasync', 0, 0, false)) return;
    this.#real.datasync(done, fd);
  }

  allocate(done: Completion, fd: number, mode: number, offset: number, length: number): void {
    if (this.#stopped(done, 'allocate', length, mode, false)) return;
    this.#real.allocate(done, fd, mode, offset, length);
  }

  willNeed(done: Completion, fd: number, offset: number, length: number): void {
    if (this.#stopped(done, 'willNeed', length, 0, false)) return;
    this.#real.willNeed(done, fd, offset, length);
  }

  seekData(fd: number, offset: number): number {
    return this.#real.seekData(fd, offset);
  }

  seekHole(fd: number, offset: number): number {
    return this.#real.seekHole(fd, offset);
  }

  /** The first `mostBytes` from byte `skip` on. */
  #shorten(segments: Segments, skip: number): Segments {
    if (segments.totalBytes - skip <= this.mostBytes) return segments;
    const part = new Segments();
    let before = 0;
    for (let i = 0; i < segments.count && part.totalBytes < this.mostBytes; i += 1) {
      const length = segments.lengths[i] as number;
      const inside = Math.max(0, skip - before);
      before += length;
      if (inside >= length) continue;
      const take = Math.min(length - inside, this.mostBytes - part.totalBytes);
      part.push(segments.regions[i] as Region, (segments.starts[i] as number) + inside, take);
    }
    return part;
  }

  #stopped(
    done: Completion,
    kind: RequestKind,
    length: number,
    mode: number,
    dsync: boolean,
  ): boolean {
    this.counts[kind] += 1;
    const result = this.fault?.({ kind, length, mode, dsync }) ?? null;
    if (result === null) return false;
    this.#reactor.defer(() => done.complete(result));
    return true;
  }
}

/** A reactor whose files obey `files.fault`. Streams are not its business. */
export class FaultyReactor implements Reactor {
  readonly kind: Reactor['kind'];
  readonly files: FaultyFiles;
  readonly pool: PagePool;
  readonly sharing = null;
  readonly #real: Reactor;
  readonly #timers = new Set<() => void>();

  constructor(real: Reactor) {
    this.#real = real;
    this.kind = real.kind;
    this.pool = real.pool;
    this.files = new FaultyFiles(real);
  }

  nowMs(): number {
    return this.#real.nowMs();
  }
  /** Timers run when the test says so. */
  after(_delayMs: number, callback: () => void): Timer {
    this.#timers.add(callback);
    return { cancel: () => this.#timers.delete(callback) };
  }
  fireTimers(): void {
    const due = [...this.#timers];
    this.#timers.clear();
    for (const callback of due) callback();
  }
  defer(callback: () => void): void {
    this.#real.defer(callback);
  }
  watchReadable(fd: number, readable: () => void): ReadableWatch {
    return this.#real.watchReadable(fd, readable);
  }
  listen(): Promise<Listener> {
    throw new Error('no streams in this test');
  }
  connect(): Promise<Stream> {
    throw new Error('no streams in this test');
  }
  close(): Promise<void> {
    return this.#real.close();
  }
}

export const REACTORS = ['portable', 'io_uring'] as const;

export async function openFaultyReactor(kind: (typeof REACTORS)[number]): Promise<FaultyReactor> {
  const { reactor } = await openReactor(kind, { pageBytes: 65_536, pageLimit: 64 });
  return new FaultyReactor(reactor);
}

/** A directory of its own below `base`, removed by `remove`. */
export class TestDirectory {
  readonly path: string;

  constructor(base = tmpdir()) {
    this.path = mkdtempSync(join(base, 'holdfast-file-'));
  }

  /** A sparse image. */
  image(sizeBytes: number, name = 'disk.img'): string {
    const path = join(this.path, name);
    closeSync(openSync(path, 'w'));
    truncateSync(path, sizeBytes);
    return path;
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Options for `path` that collect what is said in `lines`. */
export function storeOptions(
  path: string,
  lines: string[] = [],
  change: Partial<FileStoreOptions> = {},
): FileStoreOptions {
  return {
    path,
    direct: false,
    readOnly: false,
    onSyncError: 'poison',
    warn: (line) => lines.push(line),
    ...change,
  };
}
