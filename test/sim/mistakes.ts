import type { BlockErrorCode } from '../../src/block/errors.ts';
import type { Io } from '../../src/block/io.ts';
import { Disk } from '../../src/durability/disk.ts';
import type { DiskSession } from '../../src/durability/disk-session.ts';
import type {
  AdmitOwner,
  FlushDomainOptions,
  SyncTarget,
} from '../../src/durability/flush-domain.ts';
import { NbdExport } from '../../src/protocols/nbd/export.ts';
import type { Faults } from './server.ts';
import type { Scenario } from './scenario.ts';
import type { Flusher } from './sim-disk.ts';

// Mistakes that others have made, and some of our own making, to be put into the simulated server: the simulator must find
// each of them. All of them are built here, from outside; the production code knows nothing of it.

/** What the faulty domains share: waiters by need, one sync at a time, the state file told as it should be. */
class Domain implements Flusher {
  protected completed = 0;
  protected durable = 0;
  protected covers = 0;
  protected running = false;
  protected waiters: { io: Io; need: number }[] = [];
  protected poisoned = false;
  /** The failure is being written down: nobody is told before. */
  protected recording = false;
  protected readonly target: SyncTarget;
  readonly #options: FlushDomainOptions;
  #recorded = false;
  #asking = false;
  #parked: { io: Io; owner: AdmitOwner }[] = [];

  constructor(options: FlushDomainOptions) {
    this.#options = options;
    this.target = options.target;
  }

  restorePoison(): void {
    this.poisoned = true;
  }

  admit(io: Io, owner: AdmitOwner): boolean {
    if (this.poisoned && !this.recording) {
      io.complete('EIO');
      return false;
    }
    if (this.#recorded && !this.poisoned) return true;
    this.#parked.push({ io, owner });
    if (!this.#asking && !this.poisoned) {
      this.#asking = true;
      this.#options.onFirstVolatile?.((error) => {
        this.#asking = false;
        this.#recorded = error === null;
        if (this.recording) return;
        for (const each of this.#parked.splice(0)) {
          if (this.poisoned) each.io.complete('EIO');
          else if (error === null) each.owner.admitted(each.io);
          else each.io.complete(error);
        }
      });
    }
    return false;
  }

  mutated(_offset: number, _bytes: number): number {
    this.completed += 1;
    return this.completed;
  }

  mutatedNative(offset: number, bytes: number, error: BlockErrorCode | null): void {
    this.mutated(offset, bytes);
    if (error === 'EIO') this.failed(error);
  }

  flush(io: Io): void {
    this.wait(io, this.completed);
  }

  flushTo(io: Io, need: number): void {
    this.wait(io, need);
  }

  protected wait(io: Io, need: number): void {
    if (this.poisoned && !this.recording) io.complete('EIO');
    else if (!this.poisoned && this.durable >= need) io.complete(null);
    else {
      this.waiters.push({ io, need });
      this.kick();
    }
  }

  protected kick(): void {
    if (this.running || this.poisoned || this.waiters.length === 0) return;
    this.running = true;
    this.covers = this.completed;
    this.target.startSync();
  }

  synced(error: BlockErrorCode | null): void {
    this.running = false;
    if (error !== null) {
      this.failed(error);
      return;
    }
    this.durable = Math.max(this.durable, this.covers);
    this.wake();
  }

  protected wake(): void {
    const done = this.waiters.filter(({ need }) => need <= this.durable);
    this.waiters = this.waiters.filter(({ need }) => need > this.durable);
    for (const { io } of done) io.complete(null);
    this.kick();
  }

  protected failed(error: BlockErrorCode): void {
    if (this.poisoned) return;
    this.poisoned = true;
    this.recording = true;
    this.record(error, () => {
      this.recording = false;
      this.failAll();
    });
  }

  protected record(error: BlockErrorCode, then: () => void): void {
    this.#options.onPoisoned?.(error, then);
  }

  protected failAll(): void {
    if (this.poisoned && !this.recording) {
      for (const { io } of this.#parked.splice(0)) io.complete('EIO');
    }
    for (const { io } of this.waiters.splice(0)) io.complete('EIO');
  }
}

/** nbdkit filters/multi-conn: one dirty flag, set before the write goes, cleared after the sync. */
class ClearedAfter extends Domain {
  #dirty = false;
  override admit(io: Io, owner: AdmitOwner): boolean {
    this.#dirty = true;
    return super.admit(io, owner);
  }
  override flush(io: Io): void {
    if (this.#dirty) this.wait(io, this.completed);
    else io.complete(null);
  }
  override synced(error: BlockErrorCode | null): void {
    this.#dirty = false;
    super.synced(error);
  }
}

/** crosvm disk/src/composite.rs: the flag is cleared before the sync, and the next flush does not wait for its end. */
class ClearedBefore extends Domain {
  #dirty = false;
  override mutated(offset: number, bytes: number): number {
    this.#dirty = true;
    return super.mutated(offset, bytes);
  }
  protected override wait(io: Io, need: number): void {
    if (!this.#dirty && this.running) io.complete(null);
    else super.wait(io, need);
  }
  protected override kick(): void {
    if (!this.running && this.waiters.length > 0) this.#dirty = false;
    super.kick();
  }
}

/** QEMU d402da1360: an emulated FUA's need is sampled before its own write is counted. */
class FuaBeforeItsBump extends Domain {
  override flushTo(io: Io, need: number): void {
    this.wait(io, need - 1);
  }
}

/** QEMU e6af1e0854: a failed sync leaves the disk marked clean. */
class FailedIsClean extends Domain {
  override synced(error: BlockErrorCode | null): void {
    if (error === null) super.synced(null);
    else {
      this.record(error, () => {
        this.running = false;
        this.durable = Math.max(this.durable, this.covers);
        this.failAll();
        this.wake();
      });
    }
  }
}

/** fsyncgate: the sync is simply asked for again. */
class AsksAgain extends Domain {
  protected override failed(error: BlockErrorCode): void {
    this.record(error, () => {
      this.failAll();
      this.kick();
    });
  }
}

/** A flush is answered by whatever sync is running, though that began before the write it must cover. */
class JoinsAnySync extends Domain {
  override synced(error: BlockErrorCode | null): void {
    if (error === null) this.covers = this.completed;
    super.synced(error);
  }
}

/** Acknowledged when the sync is started, not when it has ended. */
class AckBeforeCovering extends Domain {
  protected override wait(io: Io, need: number): void {
    if (this.durable < need) {
      this.waiters.push({ io, need });
      this.kick();
      this.waiters = this.waiters.filter((each) => each.io !== io);
    }
    io.complete(null);
  }
}

/** Zeroes and discards change data, and are not counted (I6). */
class ForgetsNative extends Domain {
  override mutatedNative(_offset: number, _bytes: number, error: BlockErrorCode | null): void {
    // What is worse: it takes a native FUA write for a sync of everything.
    if (error === null) this.durable = this.completed;
  }
}

/** A flush of a clean disk syncs all the same (QEMU before 3ff2f67a7c). */
class NoElimination extends Domain {
  protected override wait(io: Io, need: number): void {
    if (this.poisoned && !this.recording) io.complete('EIO');
    else {
      this.waiters.push({ io, need });
      this.kick();
    }
  }
}

/** Each flush gets a sync of its own. */
class NoMerging extends Domain {
  override synced(error: BlockErrorCode | null): void {
    this.running = false;
    if (error !== null) {
      this.failed(error);
      return;
    }
    this.durable = Math.max(this.durable, this.covers);
    this.waiters.shift()?.io.complete(null);
    this.kick();
  }
}

/** The clients are told before the failed sync is on record: a restart in between makes it a success again. */
class ToldBeforeRecorded extends Domain {
  protected override failed(error: BlockErrorCode): void {
    if (!this.poisoned) this.failAll();
    super.failed(error);
  }
}

class Unfenced extends NbdExport {
  override fenceGone(): void {}
}

/** A session that has ended is forgotten at once, with what it still has in flight. */
export class ForgetfulDisk extends Disk {
  override sessionLeft(_session: DiskSession): void {}
  override requestOfLeft(): void {}
  override leftEnded(_session: DiskSession): void {}
  override requestDone(_session: DiskSession, io: Io): void {
    this.gate.leave(io);
  }
}

const failing = (scenario: Scenario): Scenario => ({
  ...scenario,
  mode: 'writeback',
  policy: 'poison',
  disk: { ...scenario.disk, syncFails: 0.1 },
});
const cut = (scenario: Scenario): Scenario => ({
  ...scenario,
  clients: scenario.clients.map((each) => ({ ...each, traits: { ...each.traits, cuts: 0.04 } })),
});
const domain = (
  Faulty: new (options: FlushDomainOptions) => Flusher,
  tune = writeback,
): Faults => ({
  makeFlusher: (options) => new Faulty(options),
  tune,
});

function writeback(scenario: Scenario): Scenario {
  return { ...scenario, mode: 'writeback' };
}

/** The base of the faulty domains, without a mistake: what the simulator says of it, it says of all. */
export const CONTROL: Faults = domain(Domain);

/** What is put in, with the word that the oracle's verdict has to contain. */
export interface Mistake {
  readonly faults: Faults;
  readonly verdict: RegExp;
}

export type Mistakes = Readonly<Record<string, Mistake>>;

/** Each mistake by name. */
export const MISTAKES: Mistakes = {
  'nbdkit multi-conn: a dirty flag cleared after the sync': {
    faults: domain(ClearedAfter),
    verdict: /P1|P5/,
  },
  'crosvm: a dirty flag cleared before the sync': { faults: domain(ClearedBefore), verdict: /P1/ },
  'QEMU d402da1360: FUA sampled before its own bump': {
    faults: domain(FuaBeforeItsBump),
    verdict: /P2/,
  },
  'QEMU e6af1e0854: a failed sync leaves the disk clean': {
    faults: domain(FailedIsClean, failing),
    verdict: /P5: .* succeeded/,
  },
  'fsyncgate: a failed sync is asked for again': {
    faults: domain(AsksAgain, failing),
    verdict: /P5: .* succeeded/,
  },
  'a flush joins a sync that began before its writes were done': {
    faults: domain(JoinsAnySync),
    verdict: /P1|P2/,
  },
  'a flush is acknowledged when its sync begins': {
    faults: domain(AckBeforeCovering),
    verdict: /P1|P2/,
  },
  'a native FUA write is taken for a sync of everything': {
    faults: domain(ForgetsNative),
    verdict: /P1|P2/,
  },
  'a flush of a clean disk costs a sync': { faults: domain(NoElimination), verdict: /P6/ },
  'every flush gets a sync of its own': { faults: domain(NoMerging), verdict: /P6/ },
  'a failed sync is told before it is on record': {
    faults: domain(ToldBeforeRecorded, (scenario) => ({
      ...failing(scenario),
      persistMs: 20,
    })),
    verdict: /P5: .* record/,
  },
  'a drive that lies about its syncs': {
    faults: {
      tune: (scenario) => ({
        ...writeback(scenario),
        disk: { ...scenario.disk, syncLies: 0.2 },
      }),
    },
    verdict: /P1|P2|P6/,
  },
  'P11: bytes of a dead connection are still carried out': {
    faults: { makeExport: (disk) => new Unfenced('', '', disk), tune: cut },
    verdict: /P11|had replaced/,
  },
  'P11: a successor is served while old requests are under way': {
    faults: { makeDisk: (options) => new ForgetfulDisk(options), tune: cut },
    verdict: /P11|had replaced/,
  },
  'P4: the switch to off is answered before its flush': {
    faults: {
      toggleAnsweredEarly: true,
      tune: (scenario) => ({
        ...writeback(scenario),
        chaos: { ...scenario.chaos, switches: 20 },
      }),
    },
    verdict: /P4/,
  },
  'what an earlier process wrote is not synced at open': {
    faults: {
      noSyncAtOpen: true,
      tune: (scenario) => ({
        ...writeback(scenario),
        chaos: { ...scenario.chaos, processKills: 5 },
      }),
    },
    verdict: /P1/,
  },
  'P5: the poison is forgotten at a restart': {
    faults: {
      forgetsPoison: true,
      tune: (scenario) => ({
        ...failing(scenario),
        chaos: { ...scenario.chaos, processKills: 5 },
      }),
    },
    verdict: /P5: .* succeeded/,
  },
  'P10: a resumed client is told that what is gone is stable': {
    faults: {
      noResumeGuard: true,
      tune: (scenario) => ({
        ...writeback(scenario),
        chaos: { ...scenario.chaos, hostCrashes: 5 },
      }),
    },
    verdict: /P10/,
  },
  'P10: the state file is not told before the first unstable write': {
    faults: {
      hooks: ({ onPoisoned, onResumed }) => ({
        ...(onPoisoned === undefined ? {} : { onPoisoned }),
        ...(onResumed === undefined ? {} : { onResumed }),
      }),
      tune: writeback,
    },
    verdict: /P10/,
  },
};

const crashing = (scenario: Scenario): Scenario => ({
  ...writeback(scenario),
  chaos: { ...scenario.chaos, hostCrashes: 8 },
});

/**
 * The same seen from outside only: without a look at the drive, from what clients read and from what power cuts leave. It
 * takes more seeds, and shows that the second half of the oracle stands by itself.
 */
export const SEEN_FROM_OUTSIDE: Mistakes = {
  'a drive that lies about its syncs': {
    faults: {
      blind: true,
      tune: (scenario) => ({ ...crashing(scenario), disk: { ...scenario.disk, syncLies: 0.5 } }),
    },
    verdict: /the power cut left/,
  },
  'a flush joins a sync that began before its writes were done': {
    faults: { ...domain(JoinsAnySync, crashing), blind: true },
    verdict: /the power cut left/,
  },
  'QEMU d402da1360: FUA sampled before its own bump': {
    faults: { ...domain(FuaBeforeItsBump, crashing), blind: true },
    verdict: /the power cut left/,
  },
  'nbdkit multi-conn: a dirty flag cleared after the sync': {
    faults: { ...domain(ClearedAfter, crashing), blind: true },
    verdict: /the power cut left/,
  },
  'P11: a successor is served while old requests are under way': {
    faults: { makeDisk: (options) => new ForgetfulDisk(options), tune: cut, blind: true },
    verdict: /had replaced|was promised/,
  },
  'P11: bytes of a dead connection are still carried out': {
    faults: { makeExport: (disk) => new Unfenced('', '', disk), tune: cut, blind: true },
    verdict: /had replaced|was promised/,
  },
};
