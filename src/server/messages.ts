import type { CutReport, CutRequest, FlushFault } from '../layers/volatile-cache/requests.ts';
import type { TlsReply, TlsRequest } from '../reactor/tls-bridge.ts';
import type { Mark } from '../trace/trace.ts';
import type { DiskCounters, Served, ServerConfig } from './config.ts';

// What the main thread and the data plane's thread say to each other.

/** warn: the operator must see it; info: what single connections do. */
export type LogLevel = 'warn' | 'info';

/** What the data plane is started with. */
export interface DataPlaneStart {
  readonly config: ServerConfig;
}

export type ToDataPlane =
  | { readonly type: 'counters'; readonly id: number }
  | { readonly type: 'resume'; readonly id: number; readonly exportName: string }
  | {
      readonly type: 'cut';
      readonly id: number;
      readonly exportName: string;
      readonly request: CutRequest;
    }
  | {
      readonly type: 'fail-flush';
      readonly id: number;
      readonly exportName: string;
      readonly fault: FlushFault;
    }
  | {
      readonly type: 'mark';
      readonly id: number;
      readonly kind: Mark['kind'];
      readonly text: string;
      /** CLOCK_MONOTONIC. */
      readonly timeNs: number;
    }
  | { readonly type: 'stop'; readonly id: number }
  | TlsReply;

/** An error as it travels between threads; `hint` and `code` are there when it was one of ours or of the system. */
export interface ErrorMessage {
  readonly name: string;
  readonly message: string;
  readonly hint?: string;
  readonly code?: string;
}

export type FromDataPlane =
  | {
      readonly type: 'ready';
      readonly served: readonly Served[];
      readonly reactor: string;
    }
  | { readonly type: 'failed'; readonly error: ErrorMessage }
  /** No place can get a client any more. */
  | { readonly type: 'over' }
  | { readonly type: 'log'; readonly level: LogLevel; readonly line: string }
  | {
      readonly type: 'answer';
      readonly id: number;
      readonly counters: readonly DiskCounters[];
      /** Of 'cut'. */
      readonly cut?: CutReport;
    }
  | { readonly type: 'refused'; readonly id: number; readonly error: ErrorMessage }
  | TlsRequest;
