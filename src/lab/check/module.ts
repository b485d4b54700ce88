import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { read } from '../../block/await.ts';
import type { BlockDevice } from '../../block/device.ts';
import { classOf } from './words.ts';
import { DETAIL_CHARACTERS } from './limits.ts';
import type { Axis, Checker, Subject, Verdict } from './types.ts';

const AXES: readonly string[] = ['integrity', 'atomicity', 'durability'] satisfies Axis[];
const OUTCOMES: readonly string[] = [
  'pass',
  'fail',
  'checker-error',
  'skip',
] satisfies Verdict['outcome'][];

/** What a checker module gets beside the subject, so that it needs to import nothing. */
export interface ModuleHelp {
  /** All bytes of a range, which may be of any length and need not lie on block borders. */
  readAll(device: BlockDevice, offset: number, length: number): Promise<Uint8Array>;
  /** Nothing is wrong; `state`: the name of the good state that was found. */
  pass(state?: string): Verdict;
  /** A promise is broken. The class is made of `what`, without numbers. */
  fail(axis: Axis, what: string, detail?: string): Verdict;
  /** This state is not for this checker. */
  skip(why?: string): Verdict;
}

/** What a checker module exports. */
interface CheckerModule {
  readonly check: (subject: Subject, help: ModuleHelp) => Verdict | Promise<Verdict>;
  /** Default: the file's name. */
  readonly name?: string;
  /** Default true. False: acks are not looked at, so that the same bytes at another cut need not be judged again. */
  readonly usesAcks?: boolean;
  /** Default false. True: it opens `subject.files`, by asynchronous calls or in other processes. */
  readonly needsFiles?: boolean;
}

/** Reads a range of any length and alignment. Rejects with a BlockError beyond the end. */
export async function readAll(
  device: BlockDevice,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const { blockBytes, maxTransferBytes } = device.info;
  const start = Math.floor(offset / blockBytes) * blockBytes;
  const end = Math.ceil((offset + length) / blockBytes) * blockBytes;
  if (end - start <= maxTransferBytes) {
    const bytes = await read(device, start, end - start);
    return bytes.subarray(offset - start, offset - start + length);
  }
  const whole = new Uint8Array(end - start);
  for (let at = start; at < end; at += maxTransferBytes) {
    whole.set(await read(device, at, Math.min(maxTransferBytes, end - at)), at - start);
  }
  return whole.subarray(offset - start, offset - start + length);
}

const HELP: ModuleHelp = {
  readAll,
  pass: (state = '') => ({ outcome: 'pass', axis: null, class: state, detail: '' }),
  fail: (axis, what, detail = what) => ({
    outcome: 'fail',
    axis,
    class: classOf(what),
    detail: detail.slice(0, DETAIL_CHARACTERS),
  }),
  skip: (why = '') => ({ outcome: 'skip', axis: null, class: classOf(why), detail: why }),
};

/** Loads a checker from a file of JavaScript or TypeScript. Rejects with a ConfigError when that is no checker. */
export async function openModuleChecker(path: string): Promise<Checker> {
  const absolute = resolve(path);
  const hint = 'it must be a module that exports a function check(subject, help)';
  let loaded: Partial<CheckerModule>;
  try {
    loaded = (await import(pathToFileURL(absolute).href)) as Partial<CheckerModule>;
  } catch (error) {
    throw new ConfigError(`${path} cannot be loaded: ${messageOf(error)}`, hint, { cause: error });
  }
  const { check } = loaded;
  if (typeof check !== 'function') throw new ConfigError(`${path} exports no check`, hint);
  return {
    name: loaded.name ?? path,
    usesAcks: loaded.usesAcks ?? true,
    needsFiles: loaded.needsFiles ?? false,
    check: async (subject) => {
      try {
        return accept(await check(subject, HELP));
      } catch (error) {
        const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
        return doubt(`throws ${classOf(messageOf(error))}`, detail);
      }
    },
    close: async () => {},
  };
}

/** A verdict, whatever a module may have answered. */
function accept(answer: unknown): Verdict {
  if (typeof answer !== 'object' || answer === null) {
    return doubt(
      'answers no verdict',
      `answered ${String(answer)}; use help.pass() and help.fail()`,
    );
  }
  const { outcome, axis = null, class: name = '', detail = '' } = answer as Partial<Verdict>;
  const valid =
    OUTCOMES.includes(String(outcome)) &&
    typeof name === 'string' &&
    typeof detail === 'string' &&
    (axis === null ? outcome !== 'fail' : AXES.includes(axis));
  if (!valid) return doubt('answers no verdict', `answered ${JSON.stringify(answer)}`);
  return answer as Verdict;
}

function doubt(name: string, detail: string): Verdict {
  const short = detail.slice(0, DETAIL_CHARACTERS);
  return { outcome: 'checker-error', axis: null, class: name, detail: short };
}
