import { unreachable } from '../../base/assert.ts';
import { ConfigError } from '../../base/errors.ts';
import {
  type ModelName,
  type ModelOptions,
  MODELS,
  type Rule,
  type StateSpec,
  TEAR_SHAPES,
  type TearShape,
} from './types.ts';

// The name of a state, in a report and on a command line: TRACE-MODEL-cCUT-RULE, as in 3f9a-M2-c12-lost-7.9.
//
// TRACE: four digits of the trace's fingerprint. MODEL: its name, then what is not as usual: u4096 (bytes of a unit), a
// (overlap 'any'), p (poison). RULE: see `writeRule`.

/** What an id says. */
export interface StateIdParts {
  /** The first digits of the fingerprint of the trace that it is about. */
  readonly trace: string;
  readonly options: ModelOptions;
  readonly state: StateSpec;
}

const USUAL_UNIT_BYTES = 512;
const TRACE_DIGITS = 4;

export function stateId(
  fingerprint: string,
  options: ModelOptions,
  { cut, rule }: StateSpec,
): string {
  const trace = fingerprint.slice(0, TRACE_DIGITS);
  return `${trace}-${writeModel(options)}-c${cut}-${writeRule(rule)}`;
}

/** Throws ConfigError when it is no id. Whether the trace has such a state is for the model to say (`whyIllegal`). */
export function parseStateId(id: string): StateIdParts {
  const match = /^([0-9a-f]{4})-(\w+)-c(\d{1,9})-([\w.-]+)$/.exec(id);
  if (match === null) refuse(id, 'it does not look like one');
  const [, trace = '', model = '', cut = '', rest = ''] = match;
  const options = parseModel(model) ?? refuse(id, `there is no model '${model}'`);
  const rule = parseRule(rest) ?? refuse(id, `'${rest}' says nothing about what is lost`);
  return { trace, options, state: { cut: Number(cut), rule } };
}

/** Whether an id is about a trace. */
export function isOfTrace({ trace }: StateIdParts, fingerprint: string): boolean {
  return fingerprint.startsWith(trace);
}

function refuse(id: string, why: string): never {
  throw new ConfigError(
    `'${id}' is no id of a state: ${why}`,
    'copy it whole from the report; one looks like 3f9a-M2-c12-lost-7.9',
  );
}

function writeModel({ model, unitBytes, overlap, poison }: ModelOptions): string {
  const unit = unitBytes === USUAL_UNIT_BYTES ? '' : `u${unitBytes}`;
  return `${model}${unit}${overlap === 'any' ? 'a' : ''}${poison ? 'p' : ''}`;
}

function parseModel(text: string): ModelOptions | null {
  const match = /^(M[0-3]|L)(?:u(\d{1,10}))?(a?)(p?)$/.exec(text);
  if (match === null || !((match[1] as string) in MODELS)) return null;
  return {
    model: match[1] as ModelName,
    unitBytes: match[2] === undefined ? USUAL_UNIT_BYTES : Number(match[2]),
    overlap: match[3] === 'a' ? 'any' : 'issued',
    poison: match[4] === 'p',
  };
}

function writeRule(rule: Rule): string {
  switch (rule.kind) {
    case 'all':
    case 'floor':
      return rule.kind;
    case 'prefix':
      return `${rule.order === 'issued' ? 'p' : 'd'}${rule.count}`;
    case 'lost':
    case 'kept':
      return [rule.kind, ...(rule.requests.length === 0 ? [] : [writeRuns(rule.requests)])].join(
        '-',
      );
    case 'pairs':
      return `r${rule.row}${rule.flip ? 'n' : ''}`;
    case 'tear':
      return `tear-${rule.request}-${rule.shape}-${rule.others}`;
    case 'stale':
      return `s${rule.back}`;
    case 'random':
      return `${rule.by === 'request' ? 'q' : 'u'}${rule.seed}k${rule.keep}`;
    case 'units':
      return `x${rule.others === 'all' ? 'a' : 'f'}${writePairs(rule.pairs)}`;
    default:
      return unreachable(rule);
  }
}

function parseRule(text: string): Rule | null {
  if (text === 'all' || text === 'floor') return { kind: text };
  const list = /^(lost|kept)(?:-([\d._]+))?$/.exec(text);
  if (list !== null) {
    const requests = list[2] === undefined ? [] : parseRuns(list[2]);
    return requests === null ? null : { kind: list[1] as 'lost' | 'kept', requests };
  }
  const tear = /^tear-(\d{1,9})-([a-z-]+)-(lost|kept)$/.exec(text);
  if (tear !== null) {
    const shape = TEAR_SHAPES.find((one) => one === (tear[2] as TearShape));
    if (shape === undefined) return null;
    return { kind: 'tear', request: Number(tear[1]), shape, others: tear[3] as 'lost' | 'kept' };
  }
  if (text.startsWith('x')) {
    const pairs = /^[af]/.test(text.slice(1)) ? parsePairs(text.slice(2)) : null;
    return pairs === null
      ? null
      : { kind: 'units', others: text[1] === 'a' ? 'all' : 'floor', pairs };
  }
  return parseNumbers(text);
}

/** The rules that are a letter and numbers. */
function parseNumbers(text: string): Rule | null {
  const match = /^([pdsrqu])(\d{1,16})(?:(n)|k(\d{1,3}))?$/.exec(text);
  if (match === null) return null;
  const [, letter, digits, flip, keep] = match;
  const number = Number(digits);
  if (!Number.isSafeInteger(number)) return null;
  if (letter === 'q' || letter === 'u') {
    if (keep === undefined) return null;
    const by = letter === 'q' ? 'request' : 'unit';
    return { kind: 'random', by, seed: number, keep: Number(keep) };
  }
  if (keep !== undefined || (flip !== undefined && letter !== 'r')) return null;
  if (letter === 'r') return { kind: 'pairs', row: number, flip: flip !== undefined };
  if (letter === 's') return { kind: 'stale', back: number };
  return { kind: 'prefix', order: letter === 'p' ? 'issued' : 'completed', count: number };
}

/** 3.7_9.12 is 3, 7, 8, 9, 12. */
function writeRuns(numbers: readonly number[]): string {
  const runs: string[] = [];
  for (let at = 0; at < numbers.length;) {
    const first = numbers[at] as number;
    let next = at + 1;
    while (next < numbers.length && numbers[next] === first + next - at) next += 1;
    runs.push(next === at + 1 ? `${first}` : `${first}_${first + next - at - 1}`);
    at = next;
  }
  return runs.join('.');
}

/** No id that we made says more than this many requests or units; a typing error may. */
const MOST_LISTED = 16_000_000;

function parseRuns(text: string): number[] | null {
  const numbers: number[] = [];
  for (const run of text.split('.')) {
    const match = /^(\d{1,9})(?:_(\d{1,9}))?$/.exec(run);
    if (match === null) return null;
    const first = Number(match[1]);
    const last = match[2] === undefined ? first : Number(match[2]);
    if (last < first || numbers.length + last - first >= MOST_LISTED) return null;
    for (let number = first; number <= last; number += 1) numbers.push(number);
  }
  return numbers;
}

/**
 * Pairs of unit and version as runs in which both go up by the same steps, as those of one torn request do: step of the
 * unit, step of the version, how often; each a number of 7 bits a byte, the lowest first.
 */
function writePairs(pairs: readonly number[]): string {
  const bytes: number[] = [];
  let [unit, version] = [0, 0];
  for (let at = 0; at < pairs.length;) {
    const unitStep = (pairs[at] as number) - unit;
    const versionStep = (pairs[at + 1] as number) - version;
    let times = 0;
    while (
      at < pairs.length &&
      pairs[at] === unit + unitStep &&
      pairs[at + 1] === version + versionStep
    ) {
      unit += unitStep;
      version += versionStep;
      times += 1;
      at += 2;
    }
    writeNumber(bytes, zigzag(unitStep));
    writeNumber(bytes, zigzag(versionStep));
    writeNumber(bytes, times);
  }
  return Buffer.from(bytes).toString('base64url');
}

function parsePairs(text: string): number[] | null {
  const bytes = Buffer.from(text, 'base64url');
  if (bytes.toString('base64url') !== text) return null;
  const numbers = readNumbers(bytes);
  if (numbers === null || numbers.length % 3 !== 0) return null;
  const pairs: number[] = [];
  let [unit, version] = [0, 0];
  for (let at = 0; at < numbers.length; at += 3) {
    const times = numbers[at + 2] as number;
    if (times === 0 || pairs.length / 2 + times > MOST_LISTED) return null;
    for (let i = 0; i < times; i += 1) {
      unit += unzigzag(numbers[at] as number);
      version += unzigzag(numbers[at + 1] as number);
      if (unit < 0 || version < 0) return null;
      pairs.push(unit, version);
    }
  }
  return pairs;
}

function zigzag(value: number): number {
  return value >= 0 ? 2 * value : -2 * value - 1;
}

function unzigzag(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
}

function writeNumber(bytes: number[], value: number): void {
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push(128 + (value % 128));
  bytes.push(value);
}

/** Null when the last one is cut off, or one is larger than any that is written. */
function readNumbers(bytes: Uint8Array): number[] | null {
  const numbers: number[] = [];
  let [value, scale] = [0, 1];
  for (const byte of bytes) {
    value += (byte % 128) * scale;
    scale *= 128;
    if (value > 2 ** 34) return null;
    if (byte >= 128) continue;
    numbers.push(value);
    [value, scale] = [0, 1];
  }
  return scale === 1 ? numbers : null;
}
