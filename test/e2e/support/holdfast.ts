import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import { Prng } from '../../../src/base/prng.ts';
import { MiB } from '../../../src/base/units.ts';
import type { DiskCounters } from '../../../src/server/config.ts';
import { killGroup, until } from './command.ts';

/** Which Holdfast is tested: the sources, or what HOLDFAST_MAIN names (a built or installed main.js). */
const MAIN =
  process.env['HOLDFAST_MAIN'] ?? resolve(import.meta.dirname, '../../../src/cli/main.ts');
const START_LIMIT_MS = 20_000;
const STOP_LIMIT_MS = 20_000;

export const REACTORS = ['io_uring', 'portable'] as const;
export type ReactorKind = (typeof REACTORS)[number];

export interface StartOptions {
  readonly reactor?: ReactorKind;
  readonly env?: Record<string, string>;
  /** A program to run the server under, e.g. strace with its options. */
  readonly under?: readonly string[];
  /** The Unix socket; in a new private folder when absent. */
  readonly socket?: string;
  /** Wait for this instead of the Unix socket: a server that listens elsewhere prints where. */
  readonly readyLine?: RegExp;
}

/** A running `holdfast serve`. */
export class Holdfast {
  readonly socket: string;
  readonly #child: ChildProcess;
  readonly #closed: Promise<void>;
  stdout = '';
  stderr = '';

  constructor(child: ChildProcess, socket: string) {
    this.#child = child;
    this.socket = socket;
    child.stdout?.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.#closed = new Promise((done) => {
      child.once('close', () => done());
      child.once('error', (error) => {
        this.stderr += error.message;
        done();
      });
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  get exitCode(): number | null {
    return this.#child.exitCode;
  }

  /** The NBD URI of an export over the Unix socket. */
  uri(exportName = ''): string {
    return `nbd+unix:///${encodeURIComponent(exportName)}?socket=${this.socket}`;
  }

  /** SIGTERM, then the end. Returns the counters printed on the way out. */
  async stop(): Promise<DiskCounters[]> {
    const before = countersIn(this.stderr).length;
    if (!this.ended) this.#child.kill('SIGTERM');
    const timer = setTimeout(() => killGroup(this.pid, 'SIGKILL'), STOP_LIMIT_MS);
    await this.#closed;
    clearTimeout(timer);
    if (this.exitCode !== 0) {
      throw new Error(
        `holdfast ended with ${this.exitCode ?? this.#child.signalCode}\n${this.stderr}`,
      );
    }
    return countersIn(this.stderr).slice(before);
  }

  /** kill -9, as far as the process group goes. */
  async kill(): Promise<void> {
    killGroup(this.pid, 'SIGKILL');
    await this.#closed;
  }

  /** The counters as they are now, by SIGUSR2. One for each disk. */
  async counters(disks = 1): Promise<DiskCounters[]> {
    const before = countersIn(this.stderr).length;
    this.#child.kill('SIGUSR2');
    return until('the counters on standard error', 5000, () => {
      const all = countersIn(this.stderr).slice(before);
      return all.length >= disks ? all : null;
    });
  }

  /** The only disk's counters as they are now. */
  async counter(): Promise<DiskCounters> {
    const [first] = await this.counters();
    if (first === undefined) throw new Error('no counters');
    return first;
  }
}

function countersIn(text: string): DiskCounters[] {
  const lines = text.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}'));
  return lines
    .map((line) => JSON.parse(line) as DiskCounters)
    .filter((value) => value.flushesAsked !== undefined);
}

/**
 * Starts `holdfast serve ARGS -U SOCKET` and waits until it has said that clients can connect, which is when it also
 * listens to signals. The test's end kills what is left of it.
 */
export async function startHoldfast(
  t: TestContext,
  args: readonly string[],
  options: StartOptions = {},
): Promise<Holdfast> {
  const socket = options.socket ?? join(workspace(t), 'nbd.sock');
  const where = options.readyLine === undefined ? ['-U', socket] : [];
  const [program, ...rest] = [...(options.under ?? []), process.execPath, MAIN, 'serve', ...args];
  const child = spawn(program ?? '', [...rest, ...where], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      ...(options.reactor === undefined ? {} : { HOLDFAST_REACTOR: options.reactor }),
      ...options.env,
    },
  });
  const server = new Holdfast(child, socket);
  t.after(() => killGroup(server.pid, 'SIGKILL'));
  await until(`holdfast to listen: ${args.join(' ')}`, START_LIMIT_MS, async () => {
    if (server.ended || child.pid === undefined) {
      throw new Error(
        `holdfast ended at once (${server.exitCode})\n${server.stdout}${server.stderr}`,
      );
    }
    const ready = options.readyLine ?? /socket=/;
    if (!ready.test(server.stdout)) return null;
    return options.readyLine !== undefined || (await accepts(socket)) ? true : null;
  });
  return server;
}

function accepts(socket: string): Promise<boolean> {
  return new Promise((answer) => {
    const connection = createConnection(socket);
    connection.once('connect', () => {
      connection.destroy();
      answer(true);
    });
    connection.once('error', () => answer(false));
  });
}

/** A private folder that goes with the test. Short: a Unix socket's path ends at 107 bytes. */
export function workspace(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'hf-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A sparse image of this many MiB whose first `randomMib` MiB are reproducible noise. */
export function makeImage(folder: string, mib: number, randomMib = 0, name = 'disk.img'): string {
  const path = join(folder, name);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, mib * MiB);
  const random = new Prng(mib);
  const chunk = new Uint32Array(MiB / 4);
  for (let i = 0; i < randomMib; i += 1) {
    for (let word = 0; word < chunk.length; word += 1) chunk[word] = random.uint32();
    writeSync(fd, chunk, 0, MiB, i * MiB);
  }
  closeSync(fd);
  return path;
}
