import { VhostUserBackend } from '../../src/protocols/vhost-user/backend.ts';
import type { FaceContext } from '../../src/server/faces/face.ts';
import { VhostUserPlace } from '../../src/server/faces/vhost-user-place.ts';
import { SimBlk, Tagger } from './blk-tags.ts';
import { SIM_SERIAL } from './guest.ts';
import { KillPoints } from './kill-points.ts';
import { makePrng } from './media.ts';
import type { Oracle } from './oracle.ts';
import type { ServerOptions, SimServer } from './server.ts';
import { type SimEnd, SimSharing, SimSocket } from './shared.ts';
import { Vm } from './vm.ts';
import type { VmWorld } from './vm-scenario.ts';

export function pathOf(slot: number): string {
  return `/sim/${slot}`;
}

/** The vhost-user face of a simulated server: real places, sessions and devices over simulated sharing. */
export class VmServer {
  readonly sharing: SimSharing;
  readonly kills: KillPoints;
  /** Switches of the write cache by anybody. */
  readonly switches = { count: 0, failed: false, off: 0 };
  /** Stopped with requests in flight: a sync has failed, and no operator came. */
  gaveUp = false;
  readonly #unfenced: boolean;
  readonly #places: readonly VhostUserPlace[];
  readonly #devices = new Map<Vm, SimBlk>();

  constructor(
    server: SimServer,
    options: ServerOptions,
    { world, oracle }: { world: VmWorld; oracle: Oracle },
  ) {
    const { scenario, generation, faults } = options;
    const { reactor, disk } = server;
    const prng = makePrng(scenario.seed, 100_000 + generation);
    this.kills = new KillPoints(prng, world.kills);
    this.kills.allowed = () => !server.stopping;
    this.sharing = new SimSharing(reactor, prng, world.sharing, this.kills);
    this.sharing.forgetsLog = faults.blk?.forgetsLog ?? false;
    this.#unfenced = faults.blk?.unfenced === 'vm';
    this.#watchSwitches(server, oracle);
    const { kills, switches } = this;
    const defer = (callback: () => void): void => reactor.defer(callback);
    const context = { oracle, disk, kills, faults: faults.blk ?? {}, switches };
    const tagger = new Tagger(disk, oracle, context.faults);
    let made: SimBlk | null = null;
    SimSocket.owned = (socket, owner) => {
      if (!(owner instanceof VhostUserBackend) || made === null) return;
      made.vm = socket.end.owner as Vm;
      this.#devices.set(made.vm, made);
      made = null;
    };
    this.#places = world.vms.map(({ queues, offerFua }, slot) => {
      const place = new VhostUserPlace({
        name: pathOf(slot),
        // Of a face's context a place uses these alone.
        context: {
          reactor,
          log: options.log,
          // Only of requests that nobody waits for any longer.
          warn: () => {
            this.gaveUp = true;
          },
          placeOver: () => {},
        } as unknown as FaceContext,
        sharing: this.sharing,
        makeDevice: () => {
          const { log } = options;
          const fence = (): void => {
            if (context.faults.unfenced !== 'nbd') server.fence();
          };
          const blk = { serial: SIM_SERIAL, queues, offerFua, log, defer, fence };
          made = new SimBlk(context, tagger, blk);
          return made;
        },
      });
      place.listen(pathOf(slot)).catch((error: unknown) => oracle.note(String(error)));
      return place;
    });
  }

  accept(slot: number, end: SimEnd): boolean {
    return this.sharing.connected(pathOf(slot), end);
  }

  trueByte(vm: Vm): number {
    return (this.#devices.get(vm) as SimBlk).trueByte;
  }

  fence(): void {
    if (this.#unfenced) return;
    for (const place of this.#places) place.endIfGone();
  }

  async stop(): Promise<void> {
    await Promise.all(this.#places.map((place) => place.stop()));
  }

  /** What is held though nobody is connected: '' for nothing. */
  get leaks(): string {
    return this.gaveUp ? '' : this.sharing.leaks;
  }

  kill(): void {
    this.sharing.kill();
  }

  /** Guests switch the cache, too, and so does a reset: the oracle is told of all of it, and P4 judged. */
  #watchSwitches({ disk }: SimServer, oracle: Oracle): void {
    const set = disk.setWriteCache.bind(disk);
    const { switches } = this;
    disk.setWriteCache = (enabled, done) => {
      switches.count += 1;
      oracle.tick += 1;
      const askedAt = oracle.tick;
      const wasOn = disk.info.writeCache;
      if (!disk.mode.ignoreFlush) oracle.writeCache = enabled;
      set(enabled, (error) => {
        switches.failed = error !== null;
        if (!enabled && error === null) switches.off += 1;
        if (!enabled && error === null && wasOn) oracle.switchedOff(askedAt);
        done(error);
      });
    };
  }
}
