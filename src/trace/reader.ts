import { assert } from '../base/assert.ts';
import { ConfigError, messageOf } from '../base/errors.ts';
import { checkBases, type HoleFinder } from './base.ts';
import { FileSource, MemorySource, type ByteSource } from './byte-source.ts';
import { TraceError } from './format.ts';
import { scanTrace } from './scan.ts';
import type { TraceIndex } from './trace-index.ts';
import type { Trace } from './trace.ts';

export interface OpenTraceOptions {
  /** Whether the images that recordings began with are read, to see that they are still what they were. Default: yes. */
  readonly bases?: 'check' | 'trust';
  /** Makes checking a base with holes quick. */
  readonly holes?: HoleFinder;
}

/** A trace as it travels between threads: structured clone copies it, its arrays are shared. */
export interface TraceParts {
  readonly path: string;
  readonly index: TraceIndex;
  /** The file's bytes, where there is no file. */
  readonly memory: SharedArrayBuffer | null;
}

/**
 * Opens a trace file; it may still be written to, what is added later is not seen. Throws TraceError for a file that is
 * damaged or no trace, ConfigError for one that cannot be opened or whose base is missing or changed.
 */
export function openTrace(path: string, options: OpenTraceOptions = {}): Trace {
  const source = openFile(path);
  try {
    const trace = new OpenTrace(path, scanTrace(source, path), source);
    if (options.bases !== 'trust') checkBases(trace, options.holes);
    return trace;
  } catch (error) {
    source.close();
    throw error;
  }
}

/** Opens a trace that is in memory as a file would be. `path` is for messages, and what relative bases count from. */
export function openTraceBytes(bytes: Uint8Array, path: string): Trace {
  const source = MemorySource.of(bytes);
  return new OpenTrace(path, scanTrace(source, path), source);
}

/** What another thread needs to open the same trace without reading it again. The file must stay where it is. */
export function traceParts(trace: Trace): TraceParts {
  assert(trace instanceof OpenTrace, 'only a trace that was opened has parts');
  return trace.parts;
}

export function openSharedTrace({ path, index, memory }: TraceParts): Trace {
  const source = memory === null ? openFile(path) : new MemorySource(memory);
  return new OpenTrace(path, index, source);
}

function openFile(path: string): FileSource {
  try {
    return new FileSource(path);
  } catch (error) {
    throw new ConfigError(
      `${path}: the trace cannot be opened: ${messageOf(error)}`,
      'name a file that holdfast serve --record has written',
      { cause: error },
    );
  }
}

class OpenTrace implements Trace {
  readonly path: string;
  readonly fingerprint: Trace['fingerprint'];
  readonly disks: Trace['disks'];
  readonly requests: Trace['requests'];
  readonly marks: Trace['marks'];
  readonly events: Trace['events'];
  readonly timeNs: Trace['timeNs'];
  readonly complete: Trace['complete'];
  readonly #index: TraceIndex;
  readonly #source: ByteSource;

  constructor(path: string, index: TraceIndex, source: ByteSource) {
    this.path = path;
    this.fingerprint = index.fingerprint;
    this.disks = index.disks;
    this.requests = index.requests;
    this.marks = index.marks;
    this.events = index.events;
    this.timeNs = index.timeNs;
    this.complete = index.complete;
    this.#index = index;
    this.#source = source;
  }

  get parts(): TraceParts {
    const source = this.#source;
    const memory = source instanceof MemorySource ? source.buffer : null;
    return { path: this.path, index: this.#index, memory };
  }

  readData(at: number, into: Uint8Array): void {
    const there = at >= 0 && this.#source.read(at, into) === into.length;
    if (!there) {
      throw new TraceError(`${this.path}: ${into.length} bytes at ${at} are not there`, at);
    }
  }

  close(): void {
    this.#source.close();
  }
}
