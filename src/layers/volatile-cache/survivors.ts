import { Prng } from '../../base/prng.ts';
import { flush, read, write, writeZeroes } from '../../block/await.ts';
import type { BlockDevice } from '../../block/device.ts';
import { type CutState, decide, GARBAGE, OLD, tally } from './decide.ts';
import { LANE_BYTES, LANES, UNIT_BYTES } from './limits.ts';
import type { CutReport, CutRequest } from './requests.ts';
import { KIND, NONE, type Versions } from './versions.ts';

/** All of a report but what only the layer and the server know. */
export type Survived = Omit<CutReport, 'export' | 'inFlight'>;

/**
 * Decides what of a cache survives a power cut and writes that to the child; the cache stays as it is. Rejects with a
 * BlockError when the child fails.
 */
export async function surviveCut(
  child: BlockDevice,
  versions: Versions,
  { seed, model }: CutRequest,
): Promise<Survived> {
  const places = sortedUnits(versions);
  const chains = places.map((newest) => chainOf(versions, newest));
  const state = cutState(versions, chains);
  const choices = decide(state, model, seed);
  const content = new Contents(versions, chains, choices, seed);
  const survivedBytes = await writeAll(child, content);
  // As stable as on a drive that has them on its medium. A child that is poisoned need not be asked for nothing.
  if (survivedBytes > 0) await flush(child);
  return {
    seed,
    model,
    ...tally(state, choices),
    unflushedBytes: versions.used * UNIT_BYTES,
    survivedBytes,
  };
}

/** The newest version of each unit, by place on the disk: the same state is the same list, however it came about. */
function sortedUnits(versions: Versions): number[] {
  const found: number[] = [];
  for (let write = versions.oldestWrite; write !== NONE;) {
    for (let at = versions.first[write] as number; at !== NONE;) {
      if (versions.newer[at] === NONE) found.push(at);
      at = versions.next[at] as number;
    }
    write = versions.nextWrite[write] as number;
  }
  const { unit } = versions;
  return found.toSorted((a, b) => (unit[a] as number) - (unit[b] as number));
}

/** The versions of a unit, oldest first. */
function chainOf(versions: Versions, newest: number): number[] {
  const chain: number[] = [];
  for (let at = newest; at !== NONE; at = versions.older[at] as number) chain.push(at);
  return chain.toReversed();
}

function cutState(versions: Versions, chains: readonly (readonly number[])[]): CutState {
  const numbers = new Map<number, number>();
  const inFlight: boolean[] = [];
  for (let write = versions.oldestWrite; write !== NONE;) {
    numbers.set(write, inFlight.length);
    inFlight.push(versions.inFlight[write] === 1);
    write = versions.nextWrite[write] as number;
  }
  const units = chains.map((chain) =>
    chain.map((version) => numbers.get(versions.write[version] as number) as number),
  );
  return { inFlight, units };
}

/** How a unit is to be made what it was decided to be. */
const DO = { NOTHING: 0, WRITE: 1, ZERO: 2 } as const;
type Do = (typeof DO)[keyof typeof DO];

/** What each unit is to be after the cut. */
class Contents {
  readonly count: number;
  readonly #versions: Versions;
  readonly #chains: readonly (readonly number[])[];
  readonly #choices: Int32Array;
  readonly #garbage: Prng;

  constructor(
    versions: Versions,
    chains: readonly (readonly number[])[],
    choices: Int32Array,
    seed: number,
  ) {
    this.count = chains.length;
    this.#versions = versions;
    this.#chains = chains;
    this.#choices = choices;
    this.#garbage = new Prng(seed + 1);
  }

  unit(i: number): number {
    return this.#versions.unit[this.#chains[i]?.[0] as number] as number;
  }

  /** A unit that stays as it was is written only if a sync was about to overwrite it. */
  action(i: number): Do {
    const choice = this.#choices[i] as number;
    if (choice === GARBAGE) return DO.WRITE;
    if (choice === OLD) return this.#overwritten(i) === NONE ? DO.NOTHING : DO.WRITE;
    const version = this.#chains[i]?.[choice] as number;
    return this.#versions.kind[version] === KIND.DATA ? DO.WRITE : DO.ZERO;
  }

  copyTo(i: number, target: Uint8Array): void {
    const versions = this.#versions;
    const choice = this.#choices[i] as number;
    if (choice === GARBAGE) this.#garbage.fill(target);
    else if (choice === OLD) {
      const version = this.#overwritten(i);
      const start = versions.start(version);
      target.set(versions.base(version).subarray(start, start + UNIT_BYTES));
    } else versions.copyTo(this.#chains[i]?.[choice] as number, target, 0);
  }

  #overwritten(i: number): number {
    const chain = this.#chains[i] as readonly number[];
    return chain.find((version) => this.#versions.hasBase[version] === 1) ?? NONE;
  }
}

/** Returns the bytes of the units that had to be changed. */
async function writeAll(child: BlockDevice, content: Contents): Promise<number> {
  const { blockBytes } = child.info;
  // Two runs in one block of the child cannot be changed at the same time.
  const width = blockBytes > UNIT_BYTES ? 1 : 2 * LANES;
  const work: Promise<void>[] = [];
  let bytes = 0;
  for (let from = 0; from < content.count;) {
    const action = content.action(from);
    const to = runEnd(content, from, action);
    if (action !== DO.NOTHING) {
      bytes += (to - from) * UNIT_BYTES;
      work.push(writeRun(child, content, from, to));
      if (work.length === width) await Promise.all(work.splice(0));
    }
    from = to;
  }
  await Promise.all(work);
  return bytes;
}

function runEnd(content: Contents, from: number, action: Do): number {
  let to = from + 1;
  while (
    to < content.count &&
    (to - from) * UNIT_BYTES < LANE_BYTES &&
    content.unit(to) === content.unit(from) + to - from &&
    content.action(to) === action
  ) {
    to += 1;
  }
  return to;
}

async function writeRun(
  child: BlockDevice,
  content: Contents,
  from: number,
  to: number,
): Promise<void> {
  const { blockBytes } = child.info;
  const start = content.unit(from) * UNIT_BYTES;
  const end = start + (to - from) * UNIT_BYTES;
  const outerStart = Math.floor(start / blockBytes) * blockBytes;
  const outerEnd = Math.ceil(end / blockBytes) * blockBytes;
  const whole = outerStart === start && outerEnd === end;
  if (whole && content.action(from) === DO.ZERO) {
    await writeZeroes(child, start, end - start);
    return;
  }
  const bytes = whole
    ? new Uint8Array(end - start)
    : await read(child, outerStart, outerEnd - outerStart);
  for (let i = from; i < to; i += 1) {
    const at = start - outerStart + (i - from) * UNIT_BYTES;
    content.copyTo(i, bytes.subarray(at, at + UNIT_BYTES));
  }
  await write(child, outerStart, bytes);
}
