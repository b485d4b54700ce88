import { Worker } from 'node:worker_threads';
import { assert, AssertionError } from '../base/assert.ts';
import { ConfigError } from '../base/errors.ts';
import type { CutReport, CutRequest, FlushFault } from '../layers/volatile-cache/requests.ts';
import type { SocketAddress } from '../reactor/reactor.ts';
import { TlsBridge } from '../reactor/tls-bridge.ts';
import { monotonicNow } from '../trace/clock.ts';
import type { Mark } from '../trace/trace.ts';
import type { DiskCounters, Served, ServerConfig } from './config.ts';
import type {
  DataPlaneStart,
  ErrorMessage,
  FromDataPlane,
  LogLevel,
  ToDataPlane,
} from './messages.ts';

export type { LogLevel } from './messages.ts';

export interface Server {
  /** NBD: one for each listener and disk, with the port the kernel chose. */
  readonly uris: readonly string[];
  /** Where it listens for NBD; a socket handed over by systemd has no address of ours. */
  readonly addresses: readonly SocketAddress[];
  /** Every place where it is reached, in the order of the configuration. */
  readonly served: readonly Served[];
  /** Which reactor it runs on, and why: one line. */
  readonly reactor: string;
  /** After `stop`: as they were at the end. */
  counters(): Promise<readonly DiskCounters[]>;
  /** The operator accepts what a failed sync lost, and lets a stopped or poisoned disk go on. */
  resume(exportName: string): Promise<void>;
  /**
   * Cuts the power of a disk that has a volatile cache: what no flush has covered survives or not, as the request says.
   * Rejects with a ConfigError when there is no such disk, with an error when the disk fails.
   */
  cutPower(exportName: string, request: CutRequest): Promise<CutReport>;
  /** Lets syncs of a disk that has a volatile cache fail. */
  failFlush(exportName: string, fault: FlushFault): Promise<void>;
  /**
   * Records that something happened now, seen from outside the disks: an acknowledgement that somebody relies upon, or a
   * note. `agoMs`: how long ago it was. Rejects with a ConfigError when nothing is recorded.
   */
  mark(kind: Mark['kind'], text: string, agoMs?: number): Promise<void>;
  /** Answers what was asked, makes everything stable, closes. Calling it again waits for the same end. */
  stop(): Promise<void>;
  /**
   * Resolves when no client can come any more: its only places were descriptors, and those who were at the other ends
   * are gone.
   */
  readonly over: Promise<void>;
  /** Resolves after `stop`; rejects when the data plane dies of a bug of ours. */
  readonly stopped: Promise<void>;
}

type Answer = Extract<FromDataPlane, { type: 'answer' }>;

interface Waiting {
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

/** The ring's hot path makes no garbage, so a large nursery would only be memory touched for nothing. */
const YOUNG_GENERATION_MB = 8;

/**
 * Starts a server: a data plane on a thread of its own. Rejects with a ConfigError that says what is wrong with which
 * disk or listener; nothing is left open then. `log` gets one line at a time: 'warn' is for the operator's eyes.
 */
export async function startServer(
  config: ServerConfig,
  log: (level: LogLevel, line: string) => void = () => {},
): Promise<Server> {
  const start: DataPlaneStart = { config };
  // `.ts` in the source tree, `.js` in what `npm run build` makes of it.
  const worker = new Worker(new URL(import.meta.url.replace(/server(\.\w+)$/, 'worker$1')), {
    workerData: start,
    name: 'data-plane',
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
  });
  const handle = new ServerHandle(worker, log);
  const { served, reactor } = await handle.ready;
  return handle.serve(served, reactor);
}

type Ready = Extract<FromDataPlane, { type: 'ready' }>;

/** What is asked of the data plane, without its number. */
type Question =
  | { readonly type: 'counters' | 'stop' }
  | { readonly type: 'resume'; readonly exportName: string }
  | {
      readonly type: 'mark';
      readonly kind: Mark['kind'];
      readonly text: string;
      readonly timeNs: number;
    }
  | { readonly type: 'cut'; readonly exportName: string; readonly request: CutRequest }
  | { readonly type: 'fail-flush'; readonly exportName: string; readonly fault: FlushFault };

class ServerHandle {
  readonly ready: Promise<Ready>;
  readonly #over: Promise<void>;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #exited: Promise<void>;
  #nextId = 1;
  #final: readonly DiskCounters[] | null = null;
  #stop: Promise<void> | null = null;
  #died: AssertionError | null = null;

  constructor(worker: Worker, log: (level: LogLevel, line: string) => void) {
    this.#worker = worker;
    const tls = new TlsBridge((reply) => worker.postMessage(reply));
    this.#over = new Promise((resolve) => {
      worker.on('message', (message: FromDataPlane) => {
        if (message.type === 'over') resolve();
      });
    });
    this.ready = new Promise((resolve, reject) => {
      worker.on('message', (message: FromDataPlane) => {
        if (tls.handle(message)) return;
        if (message.type === 'ready') resolve(message);
        else if (message.type === 'failed') reject(errorOf(message.error));
        else if (message.type === 'log') log(message.level, message.line);
        else if (message.type === 'answer' || message.type === 'refused') this.#answered(message);
      });
      worker.on('error', reject);
    });
    this.#exited = new Promise((resolve, reject) => {
      worker.on('error', (error) => {
        const why = error instanceof Error ? error.message : String(error);
        const died = new AssertionError(`the data plane died: ${why}`, { cause: error });
        this.#died = died;
        for (const waiting of this.#waiting.values()) waiting.reject(died);
        reject(died);
      });
      worker.on('exit', () => {
        // Whoever asked while it stopped.
        for (const waiting of this.#waiting.values()) waiting.reject(hasStopped());
        resolve();
      });
    });
    // Whoever wants to know asks `stopped`.
    this.#exited.catch(() => {});
  }

  serve(served: readonly Served[], reactor: string): Server {
    const nbd = served.filter(({ protocol }) => protocol === 'nbd');
    return {
      uris: nbd.flatMap(({ names }) => names),
      addresses: nbd.map(({ address }) => address),
      served,
      reactor,
      over: this.#over,
      counters: async () => this.#final ?? (await this.#ask({ type: 'counters' })).counters,
      resume: async (exportName) => {
        await this.#ask({ type: 'resume', exportName });
      },
      cutPower: async (exportName, request) => {
        const { cut } = await this.#ask({ type: 'cut', exportName, request });
        assert(cut !== undefined, 'the data plane did not say what a power cut has left');
        return cut;
      },
      failFlush: async (exportName, fault) => {
        await this.#ask({ type: 'fail-flush', exportName, fault });
      },
      mark: async (kind, text, agoMs = 0) => {
        const timeNs = Math.max(0, monotonicNow() - Math.round(agoMs * 1e6));
        await this.#ask({ type: 'mark', kind, text, timeNs });
      },
      stop: () => (this.#stop ??= this.#stopNow()),
      stopped: this.#exited,
    };
  }

  async #stopNow(): Promise<void> {
    this.#final = (await this.#ask({ type: 'stop' })).counters;
    await this.#exited;
  }

  #ask(question: Question): Promise<Answer> {
    if (this.#died !== null) return Promise.reject(this.#died);
    if (this.#final !== null) return Promise.reject(hasStopped());
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ ...question, id } satisfies ToDataPlane);
    });
  }

  #answered(message: Extract<FromDataPlane, { type: 'answer' | 'refused' }>): void {
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.type === 'answer') waiting?.resolve(message);
    else waiting?.reject(errorOf(message.error));
  }
}

function hasStopped(): Error {
  return new ConfigError('the server has stopped', 'start it again');
}

function errorOf({ name, message, hint, code }: ErrorMessage): Error {
  const error =
    hint === undefined
      ? Object.assign(new Error(message), { name })
      : new ConfigError(message, hint);
  return code === undefined ? error : Object.assign(error, { code });
}
