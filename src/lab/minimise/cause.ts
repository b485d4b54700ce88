import { formatSize } from '../../base/units.ts';
import { FLAG, OP } from '../../block/io.ts';
import { type Mark, NEVER } from '../../trace/trace.ts';
import type { Decide, Finding } from '../explore/types.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';
import { stateId } from '../model/state-id.ts';
import { Search, type Smallest } from './smallest.ts';
import type { Actor, Cause, CauseKind, WhatIf } from './types.ts';

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
  const ack = owedAt(model, smallest.state);
  return {
    finding,
    state: smallest.state,
    id: stateId(model.trace.fingerprint, model.options, smallest.state),
    kind,
    sentence: sentence(kind, lost, kept, ack, finding),
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
  if (model.options.model === 'L' || !anyFlush(model)) return 'no-flush-seen';
  if (owed && issuedAfterAck(model, smallest)) return 'never-issued';
  if (units.length > 0) return partOf(model, smallest);
  if (owed && kept.length === 0) return 'missing-flush';
  return 'order';
}

/** Whether the guest sent what is lost only after it had made the acknowledgement. */
function issuedAfterAck(model: CrashModel, { lost, state }: Smallest): boolean {
  const ack = owedAt(model, state);
  const { issued } = model.trace.requests;
  return ack !== null && lost.every((request) => (issued[request] as number) > ack.event);
}

/** Units that differ from their neighbours: a version between floor and newest is stale, everything else a tear. */
function partOf(model: CrashModel, { state, units }: Smallest): CauseKind {
  const view = model.view(state.cut);
  for (const unit of units) {
    const i = view.units.indexOf(unit);
    if (i < 0) continue;
    const version = model.versionIn(state, unit);
    const floor = view.versions[(view.first[i + 1] as number) - 1];
    if (version !== floor && version !== view.versions[view.first[i] as number]) return 'stale';
  }
  return 'tear';
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

/** The last acknowledgement before the cut of a state. */
function owedAt(model: CrashModel, state: StateSpec): Mark | null {
  const { event } = model.view(state.cut).cut;
  return model.trace.marks.findLast((mark) => mark.kind === 'ack' && mark.event < event) ?? null;
}

const OP_NAMES = new Map<number, string>(Object.entries(OP).map(([name, op]) => [op, name]));

async function describeRequest(
  model: CrashModel,
  request: number,
  describe: Describe | null,
): Promise<Actor> {
  const { op, offset, length, disk, flags, source } = model.trace.requests;
  const [at, on] = [offset[request] as number, disk[request] as number];
  const place = describe === null ? null : await describe(on, at);
  const words = [
    `#${request} ${OP_NAMES.get(op[request] as number) ?? 'request'}`,
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
        : `Never issued: nothing that the guest had sent is lost; it had sent only a part by then, and the rest was still in its memory.`;
    case 'no-flush-seen':
      return `No flush: no FLUSH or FUA that counts came from the guest, so ${list(lost)} was never stable.`;
    case 'always':
      return `Always: it fails (${verdict.class}) though nothing that was written is lost: no power cut is to blame.`;
  }
}

/**
 * Which FLUSH would make the failure impossible. The failure needs every request of `lost` to be lost: one that a FLUSH
 * covers cannot be. So it has to be sent after one of them was done, and to be done before what depends on them: the
 * last of `kept` is issued, or the acknowledgement is made.
 */
function whatIf(
  model: CrashModel,
  kind: CauseKind,
  { lost, kept }: Smallest,
  ack: Mark | null,
): readonly WhatIf[] {
  // No FLUSH of the disk helps against a tear, or brings what the guest has not sent.
  const helps: readonly CauseKind[] = ['missing-flush', 'order', 'no-flush-seen'];
  if (lost.length === 0 || !helps.includes(kind)) return [];
  const { issued, done } = model.trace.requests;
  const firstDone = lost.toSorted((a, b) => (done[a] as number) - (done[b] as number))[0] as number;
  const afterEvent = done[firstDone] as number;
  const lastKept = kept.at(-1);
  const beforeEvent = lastKept === undefined ? ack?.event : issued[lastKept];
  if (beforeEvent === undefined) return [];
  if (afterEvent === NEVER || afterEvent >= beforeEvent) {
    return [
      {
        afterEvent,
        beforeEvent,
        words:
          `no FLUSH helps as it is: #${firstDone} was still in flight; ` +
          'the guest has to wait for it first, and then send a FLUSH',
      },
    ];
  }
  const before =
    lastKept === undefined ? `'${ack?.text ?? ''}' is acknowledged` : `#${lastKept} is sent`;
  return [
    { afterEvent, beforeEvent, words: `a FLUSH after #${firstDone} is done and before ${before}` },
  ];
}
