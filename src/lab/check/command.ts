import { closeSync, ftruncateSync, openSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Reactor } from '../../reactor/reactor.ts';
import type { Mark } from '../../trace/trace.ts';
import { parseCommand, type CommandTemplate } from './command-template.ts';
import { OUTPUT_BYTES } from './limits.ts';
import { nameOfSignal, runProgram, type Ended } from './process-runner.ts';
import type { Checker, Subject, Verdict } from './types.ts';
import { readWords } from './words.ts';

/** Exit codes of a checker. */
const EXIT = { PASS: 0, FAIL: 1, FIRST_STATE: 10, LAST_STATE: 19, SKIP: 77 } as const;
/** How a shell says that a signal ended its program [POSIX "2.8.2 Exit Status for Commands"]. */
const SHELL_SIGNAL = 128;

/** Later than any recording, so that nothing on the disk lies in the checker's future: the year 2033. */
const FIXED_TIME = '2000000000';

export interface CommandOptions {
  readonly command: string;
  readonly timeoutMs: number;
  /** How many disks the trace has. */
  readonly disks: number;
  /** When each event of the trace happened, in nanoseconds: for {acks}. */
  readonly timeNs: Float64Array;
  /** A folder of the checker's own; its files there are not the run's. */
  readonly folder: string;
  /** See Program. */
  readonly running?: (group: number) => void;
}

/** A checker that is a program of the operator's. Throws a UsageError for a command line that makes no sense. */
export function openCommandChecker(reactor: Reactor, options: CommandOptions): Checker {
  return new CommandChecker(reactor, options);
}

class CommandChecker implements Checker {
  readonly name: string;
  readonly usesAcks: boolean;
  readonly needsFiles = true;
  readonly #reactor: Reactor;
  readonly #options: CommandOptions;
  readonly #template: CommandTemplate;
  readonly #environment: readonly string[];
  readonly #acksPath: string;
  readonly #output: number;
  readonly #bytes = Buffer.alloc(OUTPUT_BYTES);

  constructor(reactor: Reactor, options: CommandOptions) {
    this.#template = parseCommand(options.command, options.disks);
    this.name = options.command;
    this.usesAcks = this.#template.usesAcks;
    this.#reactor = reactor;
    this.#options = options;
    this.#environment = environment();
    this.#acksPath = join(options.folder, 'acks.jsonl');
    this.#output = openSync(join(options.folder, 'output'), 'a+', 0o600);
  }

  async check(subject: Subject): Promise<Verdict> {
    if (this.usesAcks) writeFileSync(this.#acksPath, this.#acksText(subject.acks));
    const ended = await runProgram(this.#reactor, {
      argv: this.#template.argv({
        disks: subject.files,
        acks: this.#acksPath,
        scratch: this.#template.usesScratch ? subject.scratch : '',
      }),
      environment: this.#environment,
      output: this.#output,
      limitMs: this.#options.timeoutMs,
      ...(this.#options.running === undefined ? {} : { running: this.#options.running }),
    });
    return verdictOf(ended, this.#takeOutput(), this.#template.shell);
  }

  async close(): Promise<void> {
    closeSync(this.#output);
  }

  #acksText(acks: readonly Mark[]): string {
    const { timeNs } = this.#options;
    return acks
      .map(({ event, text }, n) => `${JSON.stringify({ n, text, timeNs: timeNs[event] ?? 0 })}\n`)
      .join('');
  }

  /** What the program wrote, up to the limit; the file is empty afterwards. */
  #takeOutput(): string {
    const count = readSync(this.#output, this.#bytes, 0, OUTPUT_BYTES, 0);
    if (count > 0) ftruncateSync(this.#output, 0);
    return this.#bytes.toString('utf8', 0, count);
  }
}

/** NAME=value: what we have, and what makes checkers say the same whenever and wherever they run. */
function environment(): string[] {
  const fixed = {
    ...process.env,
    LC_ALL: 'C',
    TZ: 'UTC',
    SOURCE_DATE_EPOCH: FIXED_TIME,
    E2FSPROGS_FAKE_TIME: FIXED_TIME,
  };
  return Object.entries(fixed).map(([name, value]) => `${name}=${value ?? ''}`);
}

/** What the end of a checker means. */
export function verdictOf(ended: Ended, output: string, shell: boolean): Verdict {
  const said = readWords(output);
  const { detail } = said;
  const doubt = (name: string): Verdict => {
    return { outcome: 'checker-error', axis: null, class: name, detail };
  };
  switch (ended.how) {
    case 'limit':
      return { outcome: 'hang', axis: null, class: 'does not end', detail };
    case 'flood':
      return doubt('writes without end');
    case 'signal':
      return doubt(`signal ${ended.name}`);
    case 'not-started':
      return doubt(`cannot be started: ${ended.why}`);
    case 'exit':
  }
  const { code } = ended;
  if (code === EXIT.PASS) return { outcome: 'pass', axis: null, class: '', detail };
  if (code === EXIT.FAIL) {
    const name = said.class === '' ? 'fails without a word' : said.class;
    return { outcome: 'fail', axis: said.axis ?? 'integrity', class: name, detail };
  }
  if (code >= EXIT.FIRST_STATE && code <= EXIT.LAST_STATE) {
    return { outcome: 'pass', axis: null, class: `state ${code}`, detail };
  }
  if (code === EXIT.SKIP) return { outcome: 'skip', axis: null, class: said.class, detail };
  if (shell && code > SHELL_SIGNAL && code <= SHELL_SIGNAL + 64) {
    return doubt(`signal ${nameOfSignal(code - SHELL_SIGNAL)}`);
  }
  if (code === 127) return doubt('command not found');
  if (code === 126) return doubt('command cannot be run');
  return doubt(`exit code ${code}`);
}
