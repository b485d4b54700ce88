import { FLAG, type Io, OP } from '../../src/block/io.ts';
import { Region } from '../../src/block/memory.ts';
import type { DiskOptions } from '../../src/durability/disk.ts';
import type { DiskSession } from '../../src/durability/disk-session.ts';
import { FlushDomain, type FlushDomainOptions } from '../../src/durability/flush-domain.ts';
import { TASK_ATTRIBUTE } from '../../src/protocols/scsi/scsi.ts';
import type { ScsiTask } from '../../src/protocols/scsi/task.ts';
import type { InitiatorTraits, IscsiWorld } from './iscsi-scenario.ts';
import { ForgetfulDisk, type Mistake } from './mistakes.ts';
import type { Scenario } from './scenario.ts';
import { SimUnit } from './scsi-unit.ts';
import type { Faults } from './server.ts';

// Mistakes of a SCSI target, to be put into the simulated one from outside: the simulator must find each of them.

const REGION_BYTES = 64 * 1024;

const writeback = (scenario: Scenario): Scenario => ({
  ...scenario,
  mode: 'writeback',
  policy: 'poison',
});

/** More of what the mistake is about. */
function doing(changes: Partial<InitiatorTraits>): Pick<Faults, 'tune' | 'tuneIscsi'> {
  const tuneIscsi = (world: IscsiWorld): IscsiWorld => ({
    ...world,
    initiators: world.initiators.map((plan) => ({
      ...plan,
      traits: { ...plan.traits, ...changes },
    })),
  });
  return { tune: writeback, tuneIscsi };
}

/** Only the first region of what a mutation has changed is known as touched. */
class FirstRegionOnly extends FlushDomain {
  override mutated(offset: number, bytes: number): number {
    return super.mutated(offset, Math.min(bytes, REGION_BYTES - (offset % REGION_BYTES)));
  }
}

/** A flag for each region in place of a number: cleared when a sync ends, also for what was changed while it ran. */
class FlagPerRegion extends FlushDomain {
  readonly #dirty = new Set<number>();

  override mutated(offset: number, bytes: number): number {
    for (const region of regions(offset, bytes)) this.#dirty.add(region);
    return super.mutated(offset, bytes);
  }

  override flush(io: Io): void {
    const clean = io.length > 0 && !regions(io.offset, io.length).some((i) => this.#dirty.has(i));
    if (clean && !this.poisoned) io.complete(null);
    else super.flush(io);
  }

  override synced(error: Parameters<FlushDomain['synced']>[0]): void {
    if (error === null) this.#dirty.clear();
    super.synced(error);
  }
}

function regions(offset: number, bytes: number): number[] {
  const first = Math.floor(offset / REGION_BYTES);
  const last = Math.floor((offset + Math.max(1, bytes) - 1) / REGION_BYTES);
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

const domain = (Faulty: new (options: FlushDomainOptions) => FlushDomain): Faults => ({
  makeFlusher: (options) => new Faulty(options),
  ...doing({ flushShare: 0.3, rangeShare: 1, immediateShare: 0 }),
});

/** Tasks are done as they come. */
class Unordered extends SimUnit {
  override submit(task: ScsiTask): void {
    task.attribute = TASK_ATTRIBUTE.SIMPLE;
    super.submit(task);
  }
}

/** A task management function is answered at once; what it has aborted goes on. */
class HastyAborts extends SimUnit {
  override abortTasks(fits: (task: ScsiTask) => boolean, done: () => void): void {
    super.abortTasks(fits, () => {});
    done();
  }
}

/** Each by name, with the word that the oracle's verdict has to contain. */
export const ISCSI_MISTAKES: Readonly<Record<string, Mistake>> = {
  'the FUA bit is not looked at': {
    faults: {
      scsi: {
        submit: (io, _op, submit) => {
          if (io.mutates) io.flags &= ~FLAG.FUA;
          submit(io);
        },
      },
      ...doing({ fuaShare: 0.5 }),
    },
    verdict: /P2/,
  },
  'P4: WCE is said to be off before its flush is done': {
    faults: { scsi: { switchEarly: true }, ...doing({ switches: 0.1 }) },
    verdict: /P4/,
  },
  'who switched the write cache off is taken to know that a restart has switched it on': {
    faults: {
      scsi: {
        unit: (unit) => {
          const open = unit.openNexus.bind(unit);
          unit.openNexus = (nexus, ready) =>
            open(nexus, () => {
              (nexus.sessions.get(unit.lun) as DiskSession).cacheBelief = 'on';
              ready();
            });
        },
      },
      ...doing({ switches: 0.05, looks: 0 }),
      tune: (scenario) => ({
        ...writeback(scenario),
        chaos: { ...scenario.chaos, processKills: 8 },
      }),
    },
    verdict: /P3: the guest was told/,
  },
  'the error of an immediate flush is swallowed': {
    faults: {
      scsi: {
        unit: (unit) => {
          unit.attentions.defer = () => {};
        },
      },
      ...doing({ immediateShare: 0.8, flushShare: 0.3 }),
      tune: (scenario) => ({
        ...writeback(scenario),
        disk: { ...scenario.disk, syncFails: 0.2 },
      }),
    },
    verdict: /deferred error before it was not told/,
  },
  'a flush of a range looks at another range': {
    faults: {
      scsi: {
        submit: (io, op, submit) => {
          if (io.op === OP.FLUSH && io.length > 0) {
            io.offset = (io.offset + 2 * REGION_BYTES) % (op.first * 512 + 2 * REGION_BYTES);
          }
          submit(io);
        },
      },
      ...doing({ flushShare: 0.3, rangeShare: 1, immediateShare: 0 }),
    },
    verdict: /P1/,
  },
  'touched regions: the last one of a mutation is left out': {
    faults: domain(FirstRegionOnly),
    verdict: /P1/,
  },
  'touched regions: a flag for each in place of a number': {
    faults: domain(FlagPerRegion),
    verdict: /P1/,
  },
  'ORDERED is not respected': {
    faults: { scsi: { makeUnit: Unordered }, ...doing({ orderedShare: 0.3 }) },
    verdict: /order: /,
  },
  'P11: a session takes the place of another, whose commands are still under way': {
    faults: {
      scsi: { undrained: true },
      makeDisk: (options: DiskOptions) => new ForgetfulDisk(options),
      ...doing({ reinstates: 0.05 }),
    },
    verdict: /P11|had replaced/,
  },
  'an abort is answered while the write is under way': {
    faults: { scsi: { makeUnit: HastyAborts }, ...doing({ aborts: 0.1 }) },
    verdict: /P11/,
  },
  'COMPARE AND WRITE: others may write in between': {
    faults: {
      scsi: {
        unit: ({ ranges }) => {
          const enter = ranges.enter.bind(ranges);
          ranges.enter = (task) => enter(task, false);
        },
      },
      ...doing({ compareShare: 0.5, readShare: 0.3, hotSectors: 3 }),
    },
    verdict: /where it expected|had replaced/,
  },
  'Data-Out: more is written than has arrived': {
    faults: {
      scsi: {
        submit: (io, op, submit) => {
          const end = (io.offset + io.length) / 512;
          if (io.op === OP.WRITE && op.role === 'blocks' && end < op.first + op.sectors) {
            io.segments.push(Region.plain(new Uint8Array(512).fill(0xa5)), 0, 512);
            io.length += 512;
          }
          submit(io);
        },
      },
      ...doing({ maxSectors: 24 }),
    },
    verdict: /foreign bytes written/,
  },
};

const crashing = (scenario: Scenario): Scenario => ({
  ...writeback(scenario),
  chaos: { ...scenario.chaos, hostCrashes: 8 },
});

function unseen(name: string, verdict: RegExp, tune: (scenario: Scenario) => Scenario): Mistake {
  const { faults } = ISCSI_MISTAKES[name] as Mistake;
  return { faults: { ...faults, blind: true, tune }, verdict };
}

/** The same seen from outside only: from what initiators read and from what power cuts leave. */
export const ISCSI_SEEN_FROM_OUTSIDE: typeof ISCSI_MISTAKES = {
  'the FUA bit is not looked at': unseen(
    'the FUA bit is not looked at',
    /the power cut left/,
    crashing,
  ),
  'who switched the write cache off is taken to know that a restart has switched it on': unseen(
    'who switched the write cache off is taken to know that a restart has switched it on',
    /the power cut left/,
    (scenario) => ({
      ...writeback(scenario),
      chaos: { ...scenario.chaos, processKills: 8, hostCrashes: 8 },
    }),
  ),
  'a flush of a range looks at another range': unseen(
    'a flush of a range looks at another range',
    /the power cut left/,
    crashing,
  ),
  'an abort is answered while the write is under way': unseen(
    'an abort is answered while the write is under way',
    /had replaced|was promised/,
    writeback,
  ),
  'P11: a session takes the place of another, whose commands are still under way': unseen(
    'P11: a session takes the place of another, whose commands are still under way',
    /had replaced|was promised/,
    writeback,
  ),
};
