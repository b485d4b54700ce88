import type { Prng } from '../../src/base/prng.ts';
import type { Oracle } from './oracle.ts';
import { SimEnd } from './shared.ts';
import { Vm, type VmHost } from './vm.ts';
import type { VmPlan, VmWorld } from './vm-scenario.ts';
import type { VmServer } from './vm-server.ts';

/** What the virtual machines need of their world. */
export interface FleetHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  readonly maxTransferBytes: number;
  readonly ignoresFlush: boolean;
  nextOp(): number;
  nextSession(): number;
  later(ms: number, callback: () => void): void;
  wantsMore(): boolean;
  trace(line: string): void;
  /** The server that serves now, or null. */
  server(): VmServer | null;
}

/** The virtual machines of a world, one for each place of the server's. */
export class Fleet implements VmHost {
  readonly oracle: Oracle;
  readonly prng: Prng;
  readonly sectors: number;
  readonly maxTransferBytes: number;
  readonly ignoresFlush: boolean;
  readonly #host: FleetHost;
  readonly #slots = new Map<Vm, number>();
  readonly #plans: readonly VmPlan[];
  /** Whom each is connected to. */
  readonly #servers = new Map<Vm, VmServer>();

  constructor(host: FleetHost, { vms }: VmWorld) {
    this.#host = host;
    this.oracle = host.oracle;
    this.prng = host.prng;
    this.sectors = host.sectors;
    this.maxTransferBytes = host.maxTransferBytes;
    this.ignoresFlush = host.ignoresFlush;
    this.#plans = vms;
  }

  start(): void {
    for (const slot of this.#plans.keys()) this.#spawn(slot);
  }

  get count(): number {
    return this.#slots.size;
  }

  /** The host loses power. */
  crash(): void {
    for (const vm of Array.from(this.#slots.keys())) vm.die();
  }

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

  trace(line: string): void {
    this.#host.trace(line);
  }

  trueByte(vm: Vm): number {
    return (this.#servers.get(vm) as VmServer).trueByte(vm);
  }

  lost(vm: Vm, answered: boolean): void {
    // Refused: a predecessor's requests are not done. Otherwise only a server that stops or dies goes away.
    if (answered && this.#host.server() === this.#servers.get(vm)) {
      this.oracle.fail('the server has ended the connection of a virtual machine');
    }
    this.#servers.delete(vm);
    this.#connectLater(vm, 1 + this.prng.float() * 20);
  }

  over(vm: Vm): void {
    const slot = this.#slots.get(vm) as number;
    this.#slots.delete(vm);
    const ms = this.prng.chance(0.5) ? 0 : this.prng.float() * 100;
    this.later(ms, () => this.#spawn(slot));
  }

  #spawn(slot: number): void {
    if (!this.wantsMore()) return;
    const vm = new Vm(this, this.#plans[slot] as VmPlan);
    this.#slots.set(vm, slot);
    this.#connect(vm);
  }

  #connectLater(vm: Vm, ms: number): void {
    this.later(ms, () => this.#connect(vm));
  }

  #connect(vm: Vm): void {
    const slot = this.#slots.get(vm);
    if (slot === undefined) return;
    const server = this.#host.server();
    const [near, far] = SimEnd.pair(vm);
    if (server === null || !server.accept(slot, far)) {
      this.#connectLater(vm, 10 + this.prng.float() * 20);
      return;
    }
    this.#servers.set(vm, server);
    vm.connected(near);
  }
}
