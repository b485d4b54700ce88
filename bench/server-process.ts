import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const START_LIMIT_MS = 15_000;
const STOP_LIMIT_MS = 10_000;
/** USER_HZ: what /proc/PID/stat counts in [proc_pid_stat(5)]. */
const TICKS_PER_SECOND = 100;

/** A server under test, in a process group of its own so that nothing of it stays behind. */
export class ServerProcess {
  readonly #child: ChildProcess;
  readonly #name: string;
  #output = '';

  private constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.#child = child;
    const keep = (chunk: Buffer): void => {
      this.#output = (this.#output + chunk.toString()).slice(-65_536);
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
  }

  /** Starts a command and waits until `socket` accepts a connection. */
  static async start(
    name: string,
    command: readonly string[],
    socket: string,
    env: Record<string, string> = {},
  ): Promise<ServerProcess> {
    const child = spawn(command[0] ?? '', command.slice(1), {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    const server = new ServerProcess(name, child);
    let failure = '';
    child.once('error', (error) => (failure = error.message));
    const until = Date.now() + START_LIMIT_MS;
    while (!(await accepts(socket))) {
      if (failure === '' && child.exitCode !== null) failure = `exit code ${child.exitCode}`;
      if (failure === '' && Date.now() > until) failure = 'not listening after 15 seconds';
      if (failure !== '') {
        await server.stop();
        throw new Error(`${name} does not start: ${failure}\n${server.#output}`);
      }
      await sleep(10);
    }
    return server;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Everything it printed so far, both streams (the last 64 KiB). */
  get output(): string {
    return this.#output;
  }

  /** Processor seconds of the whole group so far, threads and finished children included. */
  cpuSeconds(): number {
    let ticks = 0;
    for (const entry of readdirSync('/proc')) {
      if (!/^\d+$/.test(entry)) continue;
      const fields = statFields(entry);
      if (fields === null || Number(fields[2]) !== this.pid) continue;
      // utime, stime, cutime, cstime: fields 14 to 17 of [proc_pid_stat(5)]; fields[0] is the third.
      for (let i = 11; i <= 14; i += 1) ticks += Number(fields[i]);
    }
    return ticks / TICKS_PER_SECOND;
  }

  /** SIGTERM, and SIGKILL for what does not listen. Waits for the end. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
      const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
      this.#signal('SIGTERM');
      const timer = setTimeout(() => {
        process.stderr.write(`${this.#name} ignored SIGTERM for ${STOP_LIMIT_MS / 1000} s\n`);
        this.#signal('SIGKILL');
      }, STOP_LIMIT_MS);
      await ended;
      clearTimeout(timer);
    }
    this.#signal('SIGKILL');
  }

  #signal(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.pid, signal);
    } catch {
      // The group is gone already: what was wanted.
    }
  }
}

/** The fields of /proc/PID/stat after the command name, which may contain spaces and parentheses. */
function statFields(pid: string): string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return null;
  }
}

/** `socket`: a path, or "127.0.0.1:PORT". */
function accepts(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const [host = '', port] = socket.split(':');
    const connection =
      port === undefined
        ? createConnection(socket)
        : createConnection({ host, port: Number(port) });
    connection.once('connect', () => {
      connection.destroy();
      resolve(true);
    });
    connection.once('error', () => resolve(false));
  });
}
