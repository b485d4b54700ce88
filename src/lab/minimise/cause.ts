import { unreachable } from '../../base/assert.ts';
import { formatSize } from '../../base/units.ts';
import { FLAG, OP, opName } from '../../block/io.ts';
import type { Mark } from '../../trace/trace.ts';
import type { Decide, Finding } from '../explore/types.ts';
import { kindOf } from '../explore/verdict-book.ts';
import { builtModel } from '../model/built-model.ts';
import { stateId } from '../model/state-id.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';
import { Search, type Smallest } from './smallest.ts';
import type { Actor, Cause, CauseKind } from './types.ts';
import { whatIf } from './what-if.ts';

/** What a file system or a database can say of a place on a disk: "journal of ext4", "file /a/b"; null: nothing. */
export type Describe = (disk: number, offset: number) => Promise<string | null>;

export interface MinimiseOptions {
  /** The most states asked for. */
  readonly mostStates: number;
  readonly describe: Describe | null;
}

/** Finds the smallest cause of a finding, and its name. */
export async function explainFinding(
  model: CrashModel,
  finding: Finding,
  decide: Decide,
  options: MinimiseOptions,
): Promise<Cause> {
  const search = new Search(model, decide, finding.verdict, options.mostStates);
  const smallest = await search.smallest(finding.state);
  const kind = await nameCause(model, finding, smallest, decide);
  const words = (requests: readonly number[]): Promise<Actor[]> =>
    Promise.all(requests.map((request) => describeRequest(model, request, options.describe)));
  const lost = await words(smallest.lost);
  // A torn request is there and lost; it is said once.
  const kept = await words(smallest.kept.filter((request) => !smallest.lost.includes(request)));
  const ack = finding.verdict.axis === 'durability' ? brokenAck(model, smallest) : null;
  return {
    finding,
    state: smallest.state,
    id: stateId(model.trace.fingerprint, model.options, smallest.state),
    kind,
    sentence: sentence(model, kind, torn(model, smallest, kind, lost), kept, ack, finding),
    lost,
    kept,
    whatIf: whatIf(model, kind, smallest, ack),
    minimal: smallest.minimal,
    statesTried: smallest.statesTried,
  };
}

async function nameCause(
  model: CrashModel,
  finding: Finding,
  smallest: Smallest,
  decide: Decide,
): Promise<CauseKind> {
  const { lost, kept, units } = smallest;
  const owed = finding.verdict.axis === 'durability';
  if (lost.length === 0) {
    // If it passes with all that the guest ever sent, then what it sent later was missing.
    const { outcome } = await decide({ cut: model.cuts.length - 1, rule: { kind: 'all' } });
    return owed || outcome === 'pass' ? 'never-issued' : 'always';
  }
  if (await failedBefore(model, finding, smallest, decide)) return 'never-issued';
  if (model.options.model === 'L' || !anyFlush(model)) return 'no-flush-seen';
  if (units.length > 0) return partOf(model, smallest);
  if (owed && kept.length === 0) return 'missing-flush';
  return 'order';
}

/**
 * Whether it failed already before the guest had sent any of what is lost: with all that was sent by then, and all that
 * was acknowledged.
 */
async function failedBefore(
  model: CrashModel,
  { verdict }: Finding,
  { lost, kept, state }: Smallest,
  decide: Decide,
): Promise<boolean> {
  const { issued } = model.trace.requests;
  const first = lost[0] as number;
  const then = issued[first] as number;
  // What is stable at this cut was so then only if nothing became stable in between.
  if ((model.cuts[state.cut - 1]?.event ?? -1) > then || (kept.at(-1) ?? -1) >= first) return false;
  const ack = acksAt(model, state).at(-1);
  if (verdict.axis === 'durability' && ack !== undefined && ack.event > then) return false;
  const { requests } = model.view(state.cut);
  const count = requests.filter((request) => request < first).length;
  const before = { cut: state.cut, rule: { kind: 'prefix', order: 'issued', count } } as const;
  if (model.whyIllegal(before) !== null) return false;
  return kindOf(await decide(before)) === kindOf(verdict);
}

/** Units that differ from their neighbours: a version between floor and newest is stale, everything else a tear. */
function partOf(model: CrashModel, { state, units }: Smallest): CauseKind {
  const { contents } = builtModel(model);
  for (const unit of units) {
    const version = model.versionIn(state, unit);
    const ends = (['all', 'floor'] as const).map((kind) =>
      model.versionIn({ cut: state.cut, rule: { kind } }, unit),
    );
    if (!contents.isGarbage(version) && !ends.includes(version)) return 'stale';
  }
  return 'tear';
}

/** Of a tear, those of the lost that are there in part; else all. */
function torn(
  model: CrashModel,
  { state }: Smallest,
  kind: CauseKind,
  lost: readonly Actor[],
): readonly Actor[] {
  if (kind !== 'tear') return lost;
  const shown = new Set<number>();
  for (const unit of model.view(state.cut).units) {
    shown.add(model.requestOf(model.versionIn(state, unit)));
  }
  const found = lost.filter(({ request }) => shown.has(request));
  return found.length === 0 ? lost : found;
}

/** Whether the guest asked for stability at all. Source 0 is the server, which flushes when it ends. */
function anyFlush(model: CrashModel): boolean {
  const { count, op, flags, failed, source } = model.trace.requests;
  const known = source.some((number) => number !== 0);
  for (let r = 0; r < count; r += 1) {
    const asks = op[r] === OP.FLUSH || ((flags[r] as number) & (FLAG.FUA | FLAG.BARRIER)) !== 0;
    if (asks && failed[r] === 0 && (source[r] !== 0 || !known)) return true;
  }
  return false;
}

function acksAt(model: CrashModel, state: StateSpec): Mark[] {
  const { event } = model.view(state.cut).cut;
  return model.trace.marks.filter((mark) => mark.kind === 'ack' && mark.event < event);
}

/**
 * The promise that is broken: nobody says which, but a guest promises what it has just sent. So it is the first after
 * the first of what is lost; if there is none, the last before it.
 */
function brokenAck(model: CrashModel, { lost, state }: Smallest): Mark | null {
  const acks = acksAt(model, state);
  const { issued } = model.trace.requests;
  const first = issued[lost[0] ?? 0] ?? 0;
  return acks.find(({ event }) => event > first) ?? acks.at(-1) ?? null;
}

async function describeRequest(
  model: CrashModel,
  request: number,
  describe: Describe | null,
): Promise<Actor> {
  const { op, offset, length, disk, flags, source } = model.trace.requests;
  const [at, on] = [offset[request] as number, disk[request] as number];
  const place = describe === null ? null : await describe(on, at);
  const words = [
    `#${request} ${opName(op[request] as number)}`,
    ((flags[request] as number) & FLAG.FUA) === 0 ? '' : 'FUA',
    `of ${formatSize(length[request] as number)} at byte ${at}`,
    model.trace.disks.length > 1 ? `of ${model.trace.disks[on]?.name ?? on}` : '',
    new Set(source).size > 1 ? `from source ${source[request] as number}` : '',
    place === null ? '' : `(${place})`,
  ];
  return { request, words: words.filter((word) => word !== '').join(' ') };
}

function list(actors: readonly Actor[]): string {
  const shown = actors.slice(0, 3).map(({ words }) => words);
  if (actors.length > 3) shown.push(`${actors.length - 3} more`);
  return shown.join(' and ');
}

function sentence(
  model: CrashModel,
  kind: CauseKind,
  lost: readonly Actor[],
  kept: readonly Actor[],
  ack: Mark | null,
  { verdict }: Finding,
): string {
  const ackText = ack === null ? 'the end' : `'${ack.text}' was acknowledged`;
  switch (kind) {
    case 'missing-flush':
      return `Missing flush before acknowledgement: ${list(lost)} was still in the write cache when ${ackText}.`;
    case 'order':
      return kept.length === 0
        ? `Order: ${list(lost)} could be lost while what depends on it was stable already: a flush between them is missing.`
        : `Order: ${list(kept)} reached the disk before ${list(lost)}: a flush between them is missing.`;
    case 'tear':
      return `Tear: ${list(lost)} was there only in part.`;
    case 'stale':
      return `Stale: a rewrite, ${list(lost)}, was lost in part, and an older version was left beside newer ones.`;
    case 'never-issued':
      return verdict.axis === 'durability'
        ? `Never issued: ${ackText} before the guest had written it to the disk: an fsync in the guest is missing.`
        : 'Never issued: nothing that the guest had sent is lost; ' +
            'it had sent only a part by then, and the rest was still in its memory.';
    case 'no-flush-seen':
      return model.options.model === 'L'
        ? `No flush: this disk does nothing on FLUSH and FUA, so ${list(lost)} was never stable.`
        : `No flush: no FLUSH or FUA that counts came from the guest, so ${list(lost)} was never stable.`;
    case 'always':
      return `Always: it fails (${verdict.class}) though nothing that was written is lost: no power cut is to blame.`;
    default:
      return unreachable(kind);
  }
}
