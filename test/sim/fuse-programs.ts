import type { Prng } from '../../src/base/prng.ts';
import type { SimMount } from './fuse-mount.ts';
import { Program, type ProgramHost } from './fuse-program.ts';
import type { FuseWorld, MountPlan } from './fuse-scenario.ts';
import type { FuseServer } from './fuse-server.ts';
import type { Oracle } from './oracle.ts';

/** What the programs need of their world. */
export interface ProgramsHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  nextOp(): number;
  nextSession(): number;
  later(ms: number, callback: () => void): void;
  wantsMore(): boolean;
  trace(line: string): void;
  /** The server that serves now, or null. */
  mounter(): FuseServer | null;
}

/** Where the disk is mounted, and mounted again when that has ended. */
interface Place {
  readonly plan: MountPlan;
  mount: SimMount | null;
}

/** The programs of a world, on the mounts of its server. */
export class Programs implements ProgramHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  readonly #host: ProgramsHost;
  readonly #world: FuseWorld;
  readonly #places: readonly Place[];
  readonly #live = new Map<Program, Place>();

  constructor(host: ProgramsHost, world: FuseWorld) {
    this.#host = host;
    this.#world = world;
    this.oracle = host.oracle;
    this.prng = host.prng;
    this.sectors = host.sectors;
    this.#places = world.mounts.map((plan) => ({ plan, mount: null }));
  }

  start(): void {
    for (const place of this.#places) {
      for (const traits of place.plan.programs) {
        const program = new Program(this, traits);
        this.#live.set(program, place);
        program.open();
      }
      this.#recurring(this.#world.aborts, () => {
        this.#host.trace('the connection of a mount is aborted');
        place.mount?.abort();
      });
      this.#recurring(this.#world.cuts, () => {
        if (place.mount !== null) this.#host.mounter()?.cut(place.mount);
      });
      this.#recurring(this.#world.unmounts, () => {
        // What is in use is not unmounted (EBUSY).
        if (this.#of(place).every((program) => program.idle)) place.mount?.unmount();
      });
    }
  }

  get count(): number {
    return this.#live.size;
  }

  /** The server process is gone, and with it the device of every mount. */
  serverGone(): void {
    for (const place of this.#places) place.mount?.abort();
  }

  // ProgramHost

  nextOp(): number {
    return this.#host.nextOp();
  }

  nextSession(): number {
    return this.#host.nextSession();
  }

  later(ms: number, callback: () => void): void {
    this.#host.later(ms, callback);
  }

  wantsMore(): boolean {
    return this.#host.wantsMore();
  }

  mount(program: Program): SimMount | null {
    const place = this.#live.get(program) as Place;
    if (place.mount === null || place.mount.dead) {
      place.mount = this.#host.mounter()?.mount(this.#world.delayMs) ?? null;
    }
    return place.mount;
  }

  over(program: Program): void {
    const place = this.#live.get(program) as Place;
    this.#live.delete(program);
    if (this.#of(place).length === 0) place.mount?.unmount();
  }

  #of(place: Place): Program[] {
    return [...this.#live].filter(([, its]) => its === place).map(([program]) => program);
  }

  #recurring(perSecond: number, happen: () => void): void {
    if (perSecond === 0) return;
    const ms = (-Math.log(1 - this.prng.float()) * 1000) / perSecond;
    this.later(ms, () => {
      if (!this.wantsMore()) return;
      happen();
      this.#recurring(perSecond, happen);
    });
  }
}
