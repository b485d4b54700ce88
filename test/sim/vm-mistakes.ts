import { FLAG, type Io, OP } from '../../src/block/io.ts';
import { Region, Segments } from '../../src/block/memory.ts';
import type { Disk } from '../../src/durability/disk.ts';
import { VIRTIO_BLK_CONFIG } from '../../src/protocols/virtio/blk.ts';
import { VirtioBlk } from '../../src/protocols/virtio/blk-device.ts';
import { SplitDriver } from '../../src/protocols/virtio/driver/split-driver.ts';
import { RING } from '../../src/protocols/virtio/split-ring.ts';
import type { Chain, Virtqueue } from '../../src/protocols/virtio/virtqueue.ts';
import type { BlkFaults, FaultyPlace } from './blk-tags.ts';
import type { GuestQueue } from './guest.ts';
import { ForgetfulDisk, type Mistakes } from './mistakes.ts';
import type { Scenario } from './scenario.ts';
import type { Faults } from './server.ts';
import type { VmPlan, VmWorld } from './vm-scenario.ts';

// Mistakes of the virtio side, as in mistakes.ts: put in from outside, each to be found in worlds with virtual machines.

const WRITEBACK = VIRTIO_BLK_CONFIG.writeback;

/** Tells the byte that it is made for, whatever is true. */
function telling(byte: 0 | 1): NonNullable<BlkFaults['makeDevice']> {
  class Teller extends VirtioBlk {
    override readConfig(offset: number, length: number): Uint8Array {
      const bytes = super.readConfig(offset, length).slice();
      if (offset <= WRITEBACK && WRITEBACK < offset + length) bytes[WRITEBACK - offset] = byte;
      return bytes;
    }
  }
  return (disk, options) => new Teller(disk, options);
}

class AnswersEarly extends VirtioBlk {
  override writeConfig(offset: number, bytes: Uint8Array, done: (accepted: boolean) => void): void {
    super.writeConfig(offset, bytes, () => {});
    done(true);
  }
}

/** Its session is left only when it is ended, after all is drained. */
class LeavesLate extends VirtioBlk {
  override leave(): void {}
}

/** All as it should be, for others to change. */
class Wrapped implements Virtqueue {
  protected readonly queue: Virtqueue;
  protected readonly at: FaultyPlace;
  protected given: Chain[] = [];

  constructor(queue: Virtqueue, at: FaultyPlace) {
    this.queue = queue;
    this.at = at;
  }

  get size(): number {
    return this.queue.size;
  }
  get ready(): boolean {
    return this.queue.ready;
  }
  get inFlight(): number {
    return this.queue.inFlight;
  }
  get base(): number {
    return this.queue.base;
  }
  take(): Chain | null {
    return this.queue.take();
  }
  give(chain: Chain, written: number): void {
    this.given.push(chain);
    this.queue.give(chain, written);
  }
  publish(): boolean {
    return this.queue.publish();
  }
  enableNotify(): boolean {
    return this.queue.enableNotify();
  }
  disableNotify(): void {
    this.queue.disableNotify();
  }

  /** Writes `value` into the log's entries of what is given. Split rings only. */
  protected mark(heads: readonly number[], value: 0 | 1): void {
    for (const head of heads) this.at.vm.markLog(this.at.index, head, value);
  }

  protected takeGiven(): number[] {
    return this.given.splice(0).map(({ id }) => id);
  }
}

/** Data and status reach the guest after it could see that they are there. */
class LateBytes extends Wrapped {
  readonly #late: { from: Region; to: Segments }[] = [];

  override take(): Chain | null {
    const chain = this.queue.take();
    if (chain === null) return null;
    const { writable } = chain;
    const to = new Segments();
    for (let i = 0; i < writable.count; i += 1) {
      to.push(
        writable.regions[i] as Region,
        writable.starts[i] as number,
        writable.lengths[i] as number,
      );
    }
    const from = Region.plain(to.totalBytes);
    writable.clear();
    writable.push(from, 0, to.totalBytes);
    this.#late.push({ from, to });
    return chain;
  }

  override publish(): boolean {
    const wanted = this.queue.publish();
    this.at.defer(() => {
      for (const { from, to } of this.#late) to.copyFrom(from.bytes);
    });
    return wanted;
  }
}

class ClearsLogEarly extends Wrapped {
  override publish(): boolean {
    this.mark(this.takeGiven(), 0);
    this.at.kills.check();
    return this.queue.publish();
  }
}

class ClearsLogLate extends Wrapped {
  override publish(): boolean {
    const heads = this.takeGiven();
    const wanted = this.queue.publish();
    this.mark(heads, 1);
    this.at.kills.check();
    this.mark(heads, 0);
    return wanted;
  }
}

class PublishesTwice extends Wrapped {
  #count = 0;

  override publish(): boolean {
    const wanted = this.queue.publish();
    this.#count += this.takeGiven().length;
    const driver = this.at.vm.driver?.queues[this.at.index]?.driver;
    if (this.#count >= 5 && driver instanceof SplitDriver) {
      const { region, start } = driver.places.device;
      const at = start + 2 * RING.idx;
      region.view.setUint16(at, (region.view.getUint16(at, true) + 1) & 0xffff, true);
      this.#count = 0;
    }
    return wanted;
  }
}

/** Every queue knows only of its own writes whether there is something to flush. */
function flushesOneQueue(): NonNullable<BlkFaults['submit']> {
  const dirty = new WeakSet<GuestQueue>();
  return (io, { queue }, submit) => {
    if (io.mutates) dirty.add(queue);
    if (io.op === OP.FLUSH && !dirty.delete(queue)) io.complete(null);
    else submit(io);
  };
}

/** Whether nothing asks for more than a write to the host's cache, as it seems when the request comes. */
function isLoose(io: Io, disk: Disk): boolean {
  return io.mutates && io.flags === 0 && disk.info.writeCache && !disk.strict;
}

function inMode(mode: Scenario['mode']): (scenario: Scenario) => Scenario {
  return (scenario) => ({ ...scenario, mode });
}

const writeback = inMode('writeback');
const crashing = (scenario: Scenario): Scenario => ({
  ...writeback(scenario),
  chaos: { ...scenario.chaos, hostCrashes: 8 },
});

function every(change: Partial<VmPlan>, kills?: number): (world: VmWorld) => VmWorld {
  return (world) => ({
    ...world,
    ...(kills === undefined ? {} : { kills }),
    vms: world.vms.map((plan) => ({ ...plan, ...change })),
  });
}

const mortal: Faults = { tune: writeback, tuneVms: every({ deaths: 0.04, depth: 16 }) };
const logged = every({ inflight: true, depth: 16 }, 0.01);
const RING_IS_WRONG =
  /hang|again|twice|does not have|nobody said so|has ended the connection|status/;

export const VM_MISTAKES: Mistakes = {
  'qemu-storage-daemon: a cache that is told to be none': {
    faults: { blk: { makeDevice: telling(0) }, tune: writeback },
    verdict: /P12: writeback is told as 0/,
  },
  'writeback is told as 1 in write-through': {
    faults: { blk: { makeDevice: telling(1) }, tune: inMode('writethrough') },
    verdict: /P12: writeback is told as 1/,
  },
  'the switch by the guest is answered before its flush': {
    faults: {
      blk: { makeDevice: (disk, options) => new AnswersEarly(disk, options) },
      tune: writeback,
      tuneVms: every({ switches: 0.2 }),
    },
    verdict: /P4/,
  },
  'a write in flight is completed unstable after the switch': {
    faults: {
      blk: {
        submit: (io, request, submit, disk) => {
          const { session } = request.op;
          const loose = isLoose(io, disk) && session.flushes && !session.believesThrough;
          if (loose) disk.store.submit(io);
          else submit(io);
        },
      },
      tune: writeback,
      tuneVms: every({ switches: 0.2, depth: 16, barrierShare: 0 }),
    },
    verdict: /P3/,
  },
  'no write-through for a driver without FLUSH': {
    faults: {
      blk: {
        submit: (io, { op }, submit, disk) => {
          if (op.session.flushes) submit(io);
          else disk.store.submit(io);
        },
      },
      tune: writeback,
    },
    verdict: /P9/,
  },
  'a reset does not bring the mode back': {
    faults: {
      blk: {
        makeDevice: (disk, options) => {
          disk.restoreWriteCache = (done) => done(null);
          return new VirtioBlk(disk, options);
        },
      },
      tuneVms: every({ switches: 0.2, resets: 0.1, resetStyle: 'device' }),
    },
    verdict: /a reset leaves the write cache/,
  },
  'QEMU answers 0 from its copy, and a reset has switched the cache on': {
    faults: {
      blk: {
        session: (session) => {
          Object.defineProperty(session, 'cacheBelief', { get: () => 'on', set: () => {} });
        },
      },
      tune: writeback,
      tuneVms: every({ kind: 'copies', switches: 0.2, resets: 0.1, resetStyle: 'device' }),
    },
    verdict: /P3: the guest was told/,
  },
  'used before data and status are there': {
    faults: { blk: { wrapQueue: (queue, at) => new LateBytes(queue, at) } },
    verdict: /used before its status was there/,
  },
  'the log of what is in flight is cleared before the driver can see it': {
    faults: {
      blk: { wrapQueue: (queue, at) => new ClearsLogEarly(queue, at) },
      tuneVms: logged,
    },
    verdict: RING_IS_WRONG,
  },
  'the log of what is in flight is cleared too late': {
    faults: {
      blk: { wrapQueue: (queue, at) => new ClearsLogLate(queue, at) },
      tuneVms: logged,
    },
    verdict: RING_IS_WRONG,
  },
  'what was in flight is not taken up again': {
    faults: { blk: { forgetsLog: true }, tuneVms: logged },
    verdict: RING_IS_WRONG,
  },
  'the used index is published twice': {
    faults: { blk: { wrapQueue: (queue, at) => new PublishesTwice(queue, at) } },
    verdict: /a driver: the device gave back|nobody said so/,
  },
  'a flush of one queue does not cover the writes of another': {
    faults: {
      blk: { submit: flushesOneQueue() },
      tune: writeback,
      tuneVms: every({ queues: 4, flushShare: 0.2 }),
    },
    verdict: /P1/,
  },
  'the FUA bit is passed over': {
    faults: {
      blk: {
        submit: (io, _request, submit) => {
          io.flags &= ~FLAG.FUA;
          submit(io);
        },
      },
      tune: writeback,
      tuneVms: every({ offerFua: true, fuaShare: 0.5 }),
    },
    verdict: /P2/,
  },
  'the barrier bit is passed over': {
    faults: {
      blk: {
        submit: (io, _request, submit) => {
          io.flags &= ~FLAG.BARRIER;
          submit(io);
        },
      },
      tune: writeback,
      tuneVms: every({ barrierShare: 0.2, depth: 16 }),
    },
    verdict: /barrier|after what came after it/,
  },
  'P11: a successor begins while requests of a dead machine are under way': {
    faults: { ...mortal, makeDisk: (options) => new ForgetfulDisk(options) },
    verdict: /P11|had replaced/,
  },
  'P11: a machine that is gone is left only when all is drained': {
    faults: {
      ...mortal,
      blk: { makeDevice: (disk, options) => new LeavesLate(disk, options) },
    },
    verdict: /P11|had replaced/,
  },
  'P11: a machine that is gone while its message waits is not looked for': {
    faults: {
      blk: { unfenced: 'vm' },
      tune: (scenario) => ({ ...writeback(scenario), disk: { ...scenario.disk, syncMs: 60 } }),
      tuneVms: every({ deaths: 0.05, switches: 0.4, depth: 16 }),
    },
    verdict: /P11|had replaced/,
  },
  'P11: clients that are gone are not looked for when a driver begins': {
    faults: {
      blk: { unfenced: 'nbd' },
      tune: (scenario) => ({
        ...writeback(scenario),
        clients: scenario.clients.map((each) => ({
          ...each,
          traits: { ...each.traits, cuts: 0.04 },
        })),
      }),
      tuneVms: every({ resets: 0.1 }),
    },
    verdict: /P11|had replaced/,
  },
};

/** The same seen from outside only: from what guests read, and from what power cuts leave of what they were promised. */
export const VM_SEEN_FROM_OUTSIDE: Mistakes = {
  'qemu-storage-daemon: a cache that is told to be none': {
    faults: { blk: { makeDevice: telling(0) }, tune: crashing, blind: true },
    verdict: /the power cut left/,
  },
  'no write-through for a driver without FLUSH': {
    faults: {
      ...(VM_MISTAKES['no write-through for a driver without FLUSH'] as { faults: Faults }).faults,
      tune: crashing,
      blind: true,
    },
    verdict: /the power cut left/,
  },
  'a flush of one queue does not cover the writes of another': {
    faults: {
      blk: { submit: flushesOneQueue() },
      tune: (scenario) => ({ ...crashing(scenario), disk: { ...scenario.disk, syncFails: 0 } }),
      tuneVms: every({ queues: 4, flushShare: 0.2 }),
      blind: true,
    },
    verdict: /the power cut left/,
  },
};
