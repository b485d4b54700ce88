import { perform } from '../../block/await.ts';
import { OP } from '../../block/io.ts';
import type { Trace } from '../../trace/trace.ts';
import type { Axis, Checker, Subject, Verdict } from '../check/types.ts';
import { builtModel } from '../model/built-model.ts';
import type { CrashModel } from '../model/types.ts';
import { mayHoldAnything, UnitVersions } from './unit-versions.ts';
import { findObjects, type WrittenObjects } from './written-objects.ts';

// What is asked when no checker is given, and nothing is known but the trace itself. An object is what was written
// without a gap and without a flush in between. After a power cut it must be old or new as a whole (atomicity), and new
// if it was complete when something was acknowledged (durability).
//
// Looked at are the bytes alone: which versions a unit may be, by what it holds. A unit that holds the same in the old
// and in the new is either.

/** Units above this are zeroes or discarded as a whole, or the model would have made smaller ones: not looked at. */
const LARGEST_UNIT_BYTES = 65_536;
/** What is read at once. */
const READ_BYTES = 1 << 20;
/** A unit of an object is surely older than the object, or surely not. */
const SURELY = { OLD: 1, NEW: 2 } as const;

/** The checker. Reads the data of the whole trace once, and keeps 12 bytes for each version of a unit. */
export function openOldOrNew(model: CrashModel): Checker {
  const oracle = new OldOrNew(model);
  return {
    name: 'old-or-new',
    usesAcks: model.trace.marks.some((mark) => mark.kind === 'ack'),
    needsFiles: false,
    check: (subject) => oracle.check(subject),
    close: async () => {},
  };
}

/** Units that follow each other on one disk: `from` to below `to` of the list of units that are looked at. */
interface Stretch {
  readonly disk: number;
  readonly offset: number;
  length: number;
  readonly from: number;
  to: number;
}

/** What one state looks like so far. */
interface Findings {
  /** SURELY, for each object. */
  readonly objects: Uint8Array;
  allOld: boolean;
  allNew: boolean;
  /** A unit, or -1. */
  lost: number;
  strange: number;
}

class OldOrNew {
  readonly #model: CrashModel;
  readonly #trace: Trace;
  readonly #objects: WrittenObjects;
  readonly #versions: UnitVersions;
  readonly #stretches: Stretch[] = [];
  /** The units that are looked at, and how long each is. */
  readonly #units: number[] = [];
  readonly #lengths: number[] = [];
  readonly #bytes = new Uint8Array(READ_BYTES);

  constructor(model: CrashModel) {
    this.#model = model;
    this.#trace = model.trace;
    this.#objects = findObjects(model.trace);
    const built = builtModel(model);
    this.#versions = new UnitVersions(built.tables.versions);
    for (let unit = 0; unit < model.unitCount; unit += 1) {
      const { disk, offset, bytes } = model.place(unit);
      if (bytes > LARGEST_UNIT_BYTES || mayHoldAnything(built, unit)) continue;
      this.#versions.learn(unit, (version) => {
        const part = this.#bytes.subarray(0, bytes);
        built.contents.readVersion(version, 0, part);
        return part;
      });
      this.#extend(disk, offset, bytes);
      this.#units.push(unit);
      this.#lengths.push(bytes);
    }
  }

  async check(subject: Subject): Promise<Verdict> {
    const owedBefore = subject.acks.at(-1)?.event ?? -1;
    const found: Findings = {
      objects: new Uint8Array(this.#objects.count),
      allOld: true,
      allNew: true,
      lost: -1,
      strange: -1,
    };
    for (const { disk, offset, length, from, to } of this.#stretches) {
      const device = subject.devices[disk];
      if (device === undefined) throw new Error(`there is no disk ${disk}`);
      await perform(device, OP.READ, offset, length, 0, this.#bytes.subarray(0, length));
      let at = 0;
      for (let i = from; i < to; i += 1) {
        const bytes = this.#lengths[i] as number;
        this.#look(found, this.#units[i] as number, at, bytes, owedBefore);
        at += bytes;
      }
    }
    return this.#judge(found);
  }

  #extend(disk: number, offset: number, bytes: number): void {
    const at = this.#units.length;
    const last = this.#stretches.at(-1);
    const follows = last?.disk === disk && last.offset + last.length === offset;
    if (last !== undefined && follows && last.length + bytes <= READ_BYTES) {
      last.length += bytes;
      last.to = at + 1;
    } else {
      this.#stretches.push({ disk, offset, length: bytes, from: at, to: at + 1 });
    }
  }

  /** Takes one unit's bytes in. */
  #look(found: Findings, unit: number, at: number, bytes: number, owedBefore: number): void {
    const versions = this.#versions;
    if (!versions.match(unit, this.#bytes, at, bytes)) {
      found.strange = unit;
      return;
    }
    const { oldest, newest } = versions;
    const first = versions.first(unit);
    const last = versions.first(unit + 1) - 1;
    found.allOld &&= oldest === first;
    found.allNew &&= newest === last;
    // From the newest version on: an object counts where it wrote the unit last.
    let seen = -1;
    let owed = true;
    for (let version = last; version > first; version -= 1) {
      const request = versions.writer(version);
      if (owed && this.#isOwed(request, owedBefore)) {
        owed = false;
        if (newest < version) found.lost = unit;
      }
      const object = this.#objects.of[request] as number;
      if (object < 0 || object === seen) continue;
      seen = object;
      if (newest < version) found.objects[object] = (found.objects[object] as number) | SURELY.OLD;
      else if (oldest >= version) {
        found.objects[object] = (found.objects[object] as number) | SURELY.NEW;
      }
    }
  }

  /** Whether a request had succeeded when the last acknowledgement was given. */
  #isOwed(request: number, owedBefore: number): boolean {
    const { done, failed } = this.#trace.requests;
    return (done[request] as number) < owedBefore && failed[request] === 0;
  }

  #judge({ objects, allOld, allNew, lost, strange }: Findings): Verdict {
    if (lost >= 0) return fail('durability', 'what was acknowledged is lost', this.#where(lost));
    if (strange >= 0) return fail('atomicity', 'neither old nor new', this.#where(strange));
    const mixed = objects.indexOf(SURELY.OLD | SURELY.NEW);
    if (mixed >= 0) return fail('atomicity', 'old and new mixed', this.#objects.describe(mixed));
    const name = allNew ? 'new' : allOld ? 'old' : '';
    return { outcome: 'pass', axis: null, class: name, detail: '' };
  }

  #where(unit: number): string {
    const { disk, offset, bytes } = this.#model.place(unit);
    return `${this.#trace.disks[disk]?.name ?? disk}: ${bytes} bytes at ${offset}`;
  }
}

function fail(axis: Axis, name: string, detail: string): Verdict {
  return { outcome: 'fail', axis, class: name, detail };
}
