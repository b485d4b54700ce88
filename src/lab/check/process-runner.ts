import { constants } from 'node:os';
import { fstatSync } from 'node:fs';
import { letEventLoopRun } from '../../base/event-loop.ts';
import type { Timer } from '../../base/clock.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import { EXIT_POLL_MS, FLOOD_BYTES, FLOOD_CHECK_MS, KILL_WAIT_MS } from './limits.ts';
import { closeDescriptor, exitStatus, killGroup, pidfdOpen, spawn } from './native.ts';

/** How a process came to its end. */
export type Ended =
  | { readonly how: 'exit'; readonly code: number }
  /** By itself, or by somebody else than us. */
  | { readonly how: 'signal'; readonly name: string }
  /** Killed at the time limit. */
  | { readonly how: 'limit' }
  /** Killed: it wrote more than FLOOD_BYTES. */
  | { readonly how: 'flood' }
  | { readonly how: 'not-started'; readonly why: string };

export interface Program {
  /** The first is looked for in PATH. */
  readonly argv: readonly string[];
  /** NAME=value. */
  readonly environment: readonly string[];
  /** Where stdout and stderr go. */
  readonly output: number;
  readonly limitMs: number;
  /** Told the number of the process group while it runs, and 0 when it is gone. */
  readonly running?: (group: number) => void;
}

/**
 * Runs a program as a process group of its own, and kills what is left of the group when the program has ended, or when
 * its time is over. Resolves when it is gone; never rejects.
 */
export function runProgram(reactor: Reactor, program: Program): Promise<Ended> {
  const { pid, errno } = spawn(program.argv, program.environment, program.output);
  if (pid === 0) return Promise.resolve({ how: 'not-started', why: nameOfErrno(errno) });
  return new Promise((resolve) => {
    void new Running(reactor, program, pid, (ended) => {
      letEventLoopRun();
      resolve(ended);
    });
  });
}

class Running {
  readonly #reactor: Reactor;
  readonly #program: Program;
  readonly #pid: number;
  readonly #done: (ended: Ended) => void;
  readonly #limit: Timer;
  #tick: Timer;
  #killed: Ended | null = null;
  #over = false;

  constructor(reactor: Reactor, program: Program, pid: number, done: (ended: Ended) => void) {
    this.#reactor = reactor;
    this.#program = program;
    this.#pid = pid;
    this.#done = done;
    program.running?.(pid);
    this.#limit = reactor.after(program.limitMs, () => this.#kill({ how: 'limit' }));
    this.#tick = reactor.after(FLOOD_CHECK_MS, () => this.#measure());
    this.#awaitExit();
  }

  #awaitExit(): void {
    const { sharing } = this.#reactor;
    const pidfd = sharing === null ? -1 : pidfdOpen(this.#pid);
    if (sharing === null || pidfd < 0) {
      this.#ask();
      return;
    }
    sharing.whenReadable(pidfd, () => {
      closeDescriptor(pidfd);
      this.#collect();
    });
  }

  /** Where no descriptor tells the end. */
  #ask(): void {
    if (!this.#collect()) this.#reactor.after(EXIT_POLL_MS, () => this.#ask());
  }

  #measure(): void {
    if (fstatSync(this.#program.output).size > FLOOD_BYTES) this.#kill({ how: 'flood' });
    else this.#tick = this.#reactor.after(FLOOD_CHECK_MS, () => this.#measure());
  }

  #kill(why: Ended): void {
    if (this.#over || this.#killed !== null) return;
    this.#killed = why;
    killGroup(this.#pid);
    this.#reactor.after(KILL_WAIT_MS, () => this.#finish(why));
  }

  /** Whether it has ended. */
  #collect(): boolean {
    const status = exitStatus(this.#pid, true);
    if (status === null) return false;
    // While the leader is not reaped, its number cannot become somebody else's.
    killGroup(this.#pid);
    exitStatus(this.#pid, false);
    if (this.#killed !== null) this.#finish(this.#killed);
    else if (status.code !== null) this.#finish({ how: 'exit', code: status.code });
    else this.#finish({ how: 'signal', name: nameOfSignal(status.signal) });
    return true;
  }

  #finish(ended: Ended): void {
    if (this.#over) return;
    this.#over = true;
    this.#limit.cancel();
    this.#tick.cancel();
    this.#program.running?.(0);
    this.#done(ended);
  }
}

/** 'SIGSEGV' for 11. */
export function nameOfSignal(signal: number): string {
  const found = Object.entries(constants.signals).find(([, number]) => number === signal);
  return found?.[0] ?? `signal ${signal}`;
}

function nameOfErrno(errno: number): string {
  const found = Object.entries(constants.errno).find(([, number]) => number === errno);
  return found?.[0] ?? `errno ${errno}`;
}
