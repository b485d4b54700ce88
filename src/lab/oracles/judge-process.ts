import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { KiB } from '../../base/units.ts';
import { KILL_WAIT_MS } from '../check/limits.ts';
import type { Checker, Subject, Verdict } from '../check/types.ts';
import type { AnswerMessage, BeginMessage } from './judge-messages.ts';
import { mountNamespace } from './mount-namespace.ts';
import { findProgram } from './programs.ts';
import type { DiskOracle, Settings } from './types.ts';
import { doubt, fail } from './verdict.ts';

/** The main program of the process, with the ending that this file has: sources and dist. */
const MAIN = fileURLToPath(import.meta.url.replace(/judge-process(\.\w+)$/, 'judge-main$1'));
const ERROR_LIMIT = 16 * KiB;
/** What damaged data does to native code. */
const CRASHES: ReadonlySet<string> = new Set(['SIGSEGV', 'SIGBUS', 'SIGABRT', 'SIGFPE', 'SIGILL']);

type Outcome = AnswerMessage | { readonly ended: string } | { readonly late: true };

/**
 * A checker whose oracle works in a process of its own, which is begun with the first case, lives until `close`, and is
 * killed with its process group when a case takes longer than the limit. Where it mounts, it does so in a mount
 * namespace of its own: nobody else sees its mounts, and they end with it [mount_namespaces(7)].
 */
export class JudgeChecker implements Checker {
  readonly name: string;
  readonly usesAcks: boolean;
  readonly needsFiles = true;
  readonly #oracle: DiskOracle;
  readonly #settings: Settings;
  readonly #limitMs: number;
  #child: ChildProcess | null = null;
  #errors = '';

  constructor(oracle: DiskOracle, settings: Settings, limitMs: number) {
    this.name = oracle.kind;
    this.usesAcks = oracle.usesAcks(settings);
    this.#oracle = oracle;
    this.#settings = settings;
    this.#limitMs = limitMs;
  }

  async check(subject: Subject): Promise<Verdict> {
    const fresh = this.#child === null;
    let outcome = await this.#ask(subject);
    if ('unseen' in outcome && !fresh) {
      // The file was mounted since: a new process sees it.
      await this.close();
      outcome = await this.#ask(subject);
    }
    if ('verdict' in outcome) return outcome.verdict;
    await this.close();
    if ('unseen' in outcome) return doubt('the disk cannot be opened', outcome.unseen);
    if ('ended' in outcome) return this.#judgeEnd(outcome.ended);
    const detail = `killed after ${this.#limitMs} ms`;
    return { outcome: 'hang', axis: null, class: 'hang', detail };
  }

  #judgeEnd(how: string): Verdict {
    if (this.#oracle.crashIsFinding === true && CRASHES.has(how)) {
      return fail('integrity', `whoever opens it dies of ${how}`, this.#errors);
    }
    return doubt(`the checker ended: ${how}`, this.#errors);
  }

  async close(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    this.#child = null;
    if (child.exitCode !== null || child.signalCode !== null) return;
    killGroup(child);
    // One that waits for the kernel, for a disk that does not answer say, cannot be killed: it is left behind.
    await new Promise<void>((done) => {
      const timer = setTimeout(done, KILL_WAIT_MS);
      child.once('exit', () => {
        clearTimeout(timer);
        done();
      });
    });
    child.unref();
    if (child.connected) child.disconnect();
  }

  #ask(subject: Subject): Promise<Outcome> {
    const child = (this.#child ??= this.#begin());
    return new Promise((done) => {
      const end = (outcome: Outcome): void => {
        clearTimeout(timer);
        child.off('message', answered).off('exit', ended).off('error', failed);
        done(outcome);
      };
      const answered = (message: unknown): void => end(message as AnswerMessage);
      const ended = (code: number | null, signal: string | null): void =>
        end({ ended: signal ?? `exit code ${code}` });
      const failed = (error: Error): void => end({ ended: error.message });
      const timer = setTimeout(() => end({ late: true }), this.#limitMs);
      child.once('message', answered).once('exit', ended).once('error', failed);
      const { files, acks, scratch } = subject;
      const message = { files, acks: acks.map((mark) => mark.text), scratch };
      child.send(message, (error) => {
        if (error !== null) end({ ended: error.message });
      });
    });
  }

  #begin(): ChildProcess {
    const { mounts } = this.#oracle.needs(this.#settings);
    // Mounts of others made later come in; ours do not go out.
    const program = mounts ? (findProgram('unshare') ?? 'unshare') : process.execPath;
    const args = mounts ? ['--mount', '--propagation', 'slave', process.execPath, MAIN] : [MAIN];
    const child = spawn(program, args, {
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#errors = '';
    child.stderr?.on('data', (data: Buffer) => {
      if (this.#errors.length < ERROR_LIMIT) this.#errors += data.toString();
    });
    // Told to whoever asks; without a listener it would end this process.
    child.on('error', () => undefined);
    const outside = mounts ? mountNamespace() : null;
    const message: BeginMessage = { kind: this.#oracle.kind, settings: this.#settings, outside };
    child.send(message, () => undefined);
    return child;
  }
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // The group is gone already.
  }
}
