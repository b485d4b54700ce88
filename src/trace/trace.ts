import type { BlockErrorCode } from '../block/errors.ts';

// What a recording holds, once it is read: the index of a trace, without the data, which stays in the file.

/** What a disk held when its recording began. */
export type TraceBase =
  | { readonly kind: 'zeroes' }
  /** A raw image; a relative path counts from the trace's folder. `crc32` is of its content. */
  | { readonly kind: 'file'; readonly path: string; readonly crc32: number };

/** One recorded disk. It stands in the trace as JSON. */
export interface TraceDisk {
  /** Its place among the disks of the trace, from 0. */
  readonly number: number;
  readonly name: string;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly base: TraceBase;
  /** What is read after DISCARD: zeroes, or anything [NBD proto "NBD_CMD_TRIM"]. */
  readonly discard: 'zeroes' | 'undefined';
  /**
   * Whose completed writes a FLUSH makes stable: everyone's, or those of its own source
   * [NBD proto "NBD_FLAG_CAN_MULTI_CONN"].
   */
  readonly flushCovers: 'everyone' | 'source';
  /** FLUSH was acknowledged and not done (mode `unsafe`), so the trace holds none, whatever was asked. */
  readonly ignoresFlush?: boolean;
}

/** `Requests.done` of a request that never completed. Later than every event. */
export const NEVER = 0x7fff_ffff;

/**
 * All requests of a trace, in the order in which they were issued: one entry of each array for each. Times are event
 * numbers: a request's issue and its completion are two events, a mark is one, all disks share one order.
 */
export interface Requests {
  readonly count: number;
  /** OP. */
  readonly op: Uint8Array;
  /** FLAG. */
  readonly flags: Uint8Array;
  readonly disk: Uint16Array;
  /** The connection, session or queue it came from; numbers mean nothing else. */
  readonly source: Uint32Array;
  /** Bytes. */
  readonly offset: Float64Array;
  /** Bytes. FLUSH: 0 is the whole disk. */
  readonly length: Float64Array;
  readonly issued: Int32Array;
  /** Or NEVER. */
  readonly done: Int32Array;
  /** 1: it failed. */
  readonly failed: Uint8Array;
  /** WRITE: where the data begins in the trace file, in bytes; else -1. */
  readonly dataAt: Float64Array;
}

/** Something from outside the disk: what a workload acknowledged, or a person noted. */
export interface Mark {
  readonly event: number;
  /** ack: the workload has promised this to somebody; note: for people only. */
  readonly kind: 'ack' | 'note';
  readonly text: string;
}

/** A trace, indexed. */
export interface Trace {
  readonly path: string;
  /** Eight hex digits that tell traces apart: of what they hold, not of where they lie. */
  readonly fingerprint: string;
  readonly disks: readonly TraceDisk[];
  readonly requests: Requests;
  readonly marks: readonly Mark[];
  /** Events, and when each happened: nanoseconds since the first. */
  readonly events: number;
  readonly timeNs: Float64Array;
  /** False: the recorder was killed, and the trace ends with its last complete record. */
  readonly complete: boolean;
  /** Fills `into` with bytes of the file from `at` on. Throws when they are not there. */
  readData(at: number, into: Uint8Array): void;
  close(): void;
}

/** Why a request failed, in requests that did; for people. */
export type RequestError = BlockErrorCode;
