import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../../src/base/errors.ts';
import type { Prng } from '../../src/base/prng.ts';
import { MAX_TRANSFER_BYTES } from '../../src/block/limits.ts';
import { statePathOf, type StateRecord } from '../../src/durability/state-file.ts';
import { CACHE_MODES } from '../../src/durability/modes.ts';
import { ClientConnection, type ConnectionHost } from './client.ts';
import { SimClock } from './clock.ts';
import { Fleet, type FleetHost } from './fleet.ts';
import { Programs, type ProgramsHost } from './fuse-programs.ts';
import { type FuseWorld, planFuse } from './fuse-scenario.ts';
import type { FuseServer } from './fuse-server.ts';
import { Initiators, type InitiatorsHost } from './initiators.ts';
import { type IscsiWorld, planIscsi } from './iscsi-scenario.ts';
import type { IscsiServer } from './iscsi-server.ts';
import { Killed } from './kill-points.ts';
import { makePrng, Media } from './media.ts';
import { Oracle, Violation } from './oracle.ts';
import { newSession } from './ops.ts';
import { type ClientPlan, planScenario, type Scenario } from './scenario.ts';
import { type Faults, SimServer } from './server.ts';
import type { DiskWatcher } from './sim-disk.ts';
import { SimStream } from './stream.ts';
import { planVms, type VmWorld } from './vm-scenario.ts';
import type { VmServer } from './vm-server.ts';

export interface RunResult {
  readonly seed: number;
  /** Requests of virtual machines that were answered; 0 in a world without. */
  readonly guests: number;
  /** The same of iSCSI initiators. */
  readonly initiators: number;
  /** The same of programs that use a mount. */
  readonly programs: number;
  /** What was not kept, or null. */
  readonly violation: string | null;
  readonly seen: Oracle['seen'];
  readonly turns: number;
  readonly virtualMs: number;
}

/** Turns of one run: far more than any needs. */
const MAX_TURNS = 400_000;

/** Who is in a world: clients of NBD alone, or virtual machines, iSCSI initiators or programs that mount it, too. */
export const WORLD_KINDS = ['nbd', 'vm', 'iscsi', 'fuse'] as const;
export type WorldKind = (typeof WORLD_KINDS)[number];

/** Who is there besides clients of NBD. */
interface Others {
  readonly vms: VmWorld | null;
  readonly iscsi: IscsiWorld | null;
  readonly fuse: FuseWorld | null;
}

const NOBODY: Others = { vms: null, iscsi: null, fuse: null };

function plan(seed: number, kind: WorldKind, faults: Faults): { scenario: Scenario } & Others {
  if (kind === 'vm') {
    const { scenario, world } = planVms(seed);
    return { ...NOBODY, scenario, vms: faults.tuneVms?.(world) ?? world };
  }
  if (kind === 'iscsi') {
    const { scenario, world } = planIscsi(seed);
    return { ...NOBODY, scenario, iscsi: faults.tuneIscsi?.(world) ?? world };
  }
  if (kind === 'fuse') {
    const { scenario, world } = planFuse(seed);
    return { ...NOBODY, scenario, fuse: faults.tuneFuse?.(world) ?? world };
  }
  return { ...NOBODY, scenario: planScenario(seed) };
}

/** How a run is repeated. */
export function replayOf(seed: number, kind: WorldKind): string {
  return `replay: npm run sim -- ${seed}${kind === 'nbd' ? '' : ` --kind ${kind}`} --verbose`;
}

/** Runs one seed. `trace` gets a line for each thing that happens to the server as a whole. */
export async function simulate(
  seed: number,
  faults: Faults = {},
  trace: (line: string) => void = () => {},
  kind: WorldKind = 'nbd',
): Promise<RunResult> {
  const planned = plan(seed, kind, faults);
  const scenario = faults.tune?.(planned.scenario) ?? planned.scenario;
  const world = new World(scenario, faults, trace, planned);
  const undo = faults.patch?.();
  let violation: string | null = null;
  try {
    await world.run();
  } catch (error) {
    violation = error instanceof Violation ? error.message : describe(error);
  } finally {
    world.cleanUp();
    undo?.();
  }
  const { turns, clock, oracle } = world;
  const { guests, initiators, programs, seen } = oracle;
  const virtualMs = clock.nowMs();
  return { seed, guests, initiators, programs, violation, seen, turns, virtualMs };
}

function describe(error: unknown): string {
  const stack = error instanceof Error ? (error.stack ?? '') : '';
  const where = stack.split('\n').slice(1, 9).join('\n');
  return `${messageOf(error)}\n${where}`;
}

let worlds = 0;

/** The host, its disk, its operator, and everybody who connects to the server on it. */
class World implements ConnectionHost, DiskWatcher, FleetHost, InitiatorsHost, ProgramsHost {
  readonly clock: SimClock;
  readonly prng: Prng;
  readonly oracle: Oracle;
  readonly sectors: number;
  turns = 0;
  readonly #scenario: Scenario;
  readonly #faults: Faults;
  readonly #trace: (line: string) => void;
  readonly #media: Media;
  readonly #chaos: Prng;
  readonly #statePath: string;
  readonly #live = new Set<ClientConnection>();
  readonly #slots = new Map<ClientConnection, ClientPlan>();
  #persisted: StateRecord | null = null;
  #persisting: { record: StateRecord } | null = null;
  #server: SimServer | null = null;
  #generation = 0;
  #boots = 0;
  #ops = 0;
  #switchesDone = 0;
  #sessions = 0;
  /** A graceful stop is under way: promises must get their turn. */
  #awaiting = false;
  #done = false;
  readonly ignoresFlush: boolean;
  readonly maxTransferBytes: number;
  readonly #others: Others;
  readonly #fleet: Fleet | null;
  readonly #initiators: Initiators | null;
  readonly #programs: Programs | null;

  constructor(scenario: Scenario, faults: Faults, trace: (line: string) => void, others: Others) {
    this.#scenario = scenario;
    this.#faults = faults;
    this.#trace = (line) => trace(`${this.clock.nowMs().toFixed(2)} ${line}`);
    this.sectors = scenario.sectors;
    this.prng = makePrng(scenario.seed, 2);
    this.#chaos = makePrng(scenario.seed, 3);
    this.clock = new SimClock(makePrng(scenario.seed, 4));
    this.#media = new Media(scenario.sectors, makePrng(scenario.seed, 5));
    const mode = CACHE_MODES[scenario.mode];
    this.oracle = new Oracle(this.#media, {
      blind: faults.blind ?? false,
      ignoresFlush: mode.ignoreFlush,
      untilFlush: mode.untilFlush,
      recordsPoison: () => (this.#persisted?.poisoned ?? null) !== null,
      recordsUnclean: () => this.#persisted !== null && !this.#persisted.clean,
    });
    this.ignoresFlush = mode.ignoreFlush;
    this.maxTransferBytes = scenario.disk.maxTransferBytes ?? MAX_TRANSFER_BYTES;
    this.#others = others;
    const { vms, iscsi, fuse } = others;
    this.#fleet = vms === null ? null : new Fleet(this, vms);
    this.#initiators = iscsi === null ? null : new Initiators(this, iscsi, scenario.network);
    this.#programs = fuse === null ? null : new Programs(this, fuse);
    worlds += 1;
    this.#statePath = statePathOf(join(tmpdir(), `holdfast-sim-${process.pid}-${worlds}`));
  }

  async run(): Promise<void> {
    this.#trace(`scenario ${JSON.stringify(this.#scenario)}`);
    this.#boot();
    for (const plan of this.#scenario.clients) {
      for (let i = 0; i < plan.connections; i += 1) this.#connect(plan);
    }
    this.#fleet?.start();
    this.#initiators?.start();
    this.#programs?.start();
    this.#planChaos();
    await this.#turn();
    this.#settled();
    await this.#lastWords();
  }

  cleanUp(): void {
    rmSync(this.#statePath, { force: true });
  }

  // ConnectionHost

  nextOp(): number {
    this.#ops += 1;
    return this.#ops;
  }

  later(ms: number, callback: () => void): void {
    this.clock.after(ms, callback);
  }

  wantsMore(): boolean {
    return this.#ops < this.#scenario.budget;
  }

  over(connection: ClientConnection): void {
    const plan = this.#slots.get(connection) as ClientPlan;
    this.#slots.delete(connection);
    this.#live.delete(connection);
    if (!this.wantsMore()) return;
    // A client that reconnects at once is the one whose old requests may still be under way.
    const ms = this.prng.chance(0.5) ? 0 : this.prng.float() * 100;
    this.later(ms, () => this.#connect(plan));
  }

  // FleetHost

  nextSession(): number {
    this.#sessions += 1;
    return this.#sessions;
  }

  server(): VmServer | null {
    const server = this.#server;
    return server === null || server.stopping ? null : server.vms;
  }

  trace(line: string): void {
    this.#trace(line);
  }

  // InitiatorsHost

  target(): IscsiServer | null {
    const server = this.#server;
    return server === null || server.stopping ? null : server.iscsi;
  }

  // ProgramsHost

  mounter(): FuseServer | null {
    const server = this.#server;
    return server === null || server.stopping ? null : server.fuse;
  }

  // DiskWatcher

  meant(op: number, sector: number): number | null {
    return this.oracle.meant(op, sector);
  }

  submitted(op: number): void {
    if (!this.oracle.submitsAtSession) this.oracle.partCame(op);
  }

  applying(op: number): void {
    this.oracle.applying(op);
    this.#initiators?.applying(op, this.#media);
  }

  applied(op: number, sector: number, order: number): void {
    this.oracle.applied(op, sector, order);
  }

  completing(op: number): void {
    this.oracle.partLeaves(op);
  }

  syncFailed(): void {
    this.#trace('a sync fails');
    this.oracle.syncFailed();
    this.#callOperator();
  }

  violation(text: string): void {
    this.oracle.fail(text);
  }

  // Time goes by.

  async #turn(): Promise<void> {
    for (;;) {
      if (this.#awaiting) await new Promise(setImmediate);
      if (!this.#step()) {
        if (!this.#awaiting) return;
        await new Promise(setImmediate);
        if (!this.#step() && this.#awaiting) this.oracle.fail('hang: the server does not stop');
      }
      this.turns += 1;
      if (this.turns > MAX_TURNS) this.oracle.fail('a run without an end');
      if (this.oracle.failure !== null) throw this.oracle.failure;
    }
  }

  /** A turn of everybody's. False: nothing will ever happen again. */
  #step(): boolean {
    try {
      const happened = this.clock.step();
      this.#server?.vms?.sharing.turn();
      return happened;
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
      this.#trace(error.message);
      this.#kill();
      this.#bootLater();
      return true;
    }
  }

  /** Nothing will happen any more: nobody may be waiting, and nothing may be held. */
  #settled(): void {
    this.#done = true;
    const waiting = this.oracle.unanswered((session) => session.goneAt === Infinity);
    if (waiting.length > 0) {
      this.oracle.fail(
        `hang: never answered: ${waiting
          .slice(0, 3)
          .map((op) => op.text)
          .join(', ')}`,
      );
    }
    if (this.#live.size > 0)
      this.oracle.fail(`hang: ${this.#live.size} connections wait for nothing`);
    const vms = this.#fleet?.count ?? 0;
    if (vms > 0) this.oracle.fail(`hang: ${vms} virtual machines wait for nothing`);
    const initiators = this.#initiators?.count ?? 0;
    if (initiators > 0) this.oracle.fail(`hang: ${initiators} sessions of initiators wait`);
    const programs = this.#programs?.count ?? 0;
    if (programs > 0) this.oracle.fail(`hang: ${programs} programs wait for nothing`);
    this.#nothingHeld();
  }

  #nothingHeld(): void {
    const server = this.#server;
    if (server === null) return;
    const { connections, store, reactor } = server;
    if (connections.size > 0) this.oracle.fail(`${connections.size} connections have not ended`);
    if (store.inFlight > 0) this.oracle.fail(`the store still has ${store.inFlight} requests`);
    if (reactor.pool.inUse > 0) {
      this.oracle.fail(`leak: ${reactor.pool.inUse} pages are held, and nobody is connected`);
    }
    const leaks = (server.vms ?? server.iscsi ?? server.fuse)?.leaks ?? '';
    if (leaks !== '') this.oracle.fail(`leak: ${leaks}, and nobody is connected`);
  }

  /** A clean stop or none, then a power cut: what is left then is judged. */
  async #lastWords(): Promise<void> {
    if (this.#server !== null && this.#chaos.chance(0.5)) {
      this.#restart(false);
      await this.#turn();
    }
    this.#hostCrash();
  }

  // The server's life.

  #boot(): void {
    this.#generation += 1;
    if (this.#persisted === null) rmSync(this.#statePath, { force: true });
    else writeFileSync(this.#statePath, `${JSON.stringify(this.#persisted)}\n`);
    // Before it trusts the file: what an earlier process left unstable is synced (openFileStore).
    if (this.#faults.noSyncAtOpen !== true) this.#media.endSync(this.#media.order, 'done');
    const { vms, iscsi, fuse } = this.#others;
    const { oracle } = this;
    const later = (ms: number, callback: () => void): void => this.later(ms, callback);
    this.#server = new SimServer({
      clock: this.clock,
      scenario: this.#scenario,
      media: this.#media,
      faults: this.#faults,
      watcher: this,
      statePath: this.#statePath,
      bootId: `boot-${this.#boots}`,
      generation: this.#generation,
      persist: (_path, record, done) => this.#persist(record, done),
      log: (line) => this.#trace(`server: ${line}`),
      ...(vms === null ? {} : { vms: { world: vms, oracle } }),
      ...(iscsi === null ? {} : { iscsi: { world: iscsi, oracle } }),
      ...(fuse === null ? {} : { fuse: { oracle, later } }),
    });
    const mode = CACHE_MODES[this.#scenario.mode];
    this.oracle.writeCache = mode.writeCache;
    const { hostCrash } = this.#server.state.record;
    const told = hostCrash?.told ?? [];
    this.oracle.started((peer) => hostCrash !== null && !told.includes(peer));
    if (this.#server.state.poisoned !== null) {
      this.oracle.startsPoisoned();
      this.#callOperator();
    }
    this.#trace(`process ${this.#generation} serves, boot ${this.#boots}`);
  }

  #persist(record: StateRecord, done: (error: Error | null) => void): void {
    const { persistMs, persistFails } = this.#scenario;
    // Of a failed sync nobody would know after a restart: that excuse is not tried here.
    const fails = record.poisoned === null && this.#chaos.chance(persistFails);
    const finish = (): void => {
      this.#persisting = null;
      if (!fails) this.#persisted = record;
      done(fails ? new Error('no space left') : null);
    };
    if (persistMs === 0) finish();
    else {
      this.#persisting = { record };
      this.#server?.reactor.after(this.#chaos.float() * persistMs, finish);
    }
  }

  /** The process is gone at once; the host, with its page cache, is not. */
  #kill(): void {
    const server = this.#server;
    if (server === null) return;
    this.#trace('the process is killed');
    this.#server = null;
    this.#awaiting = false;
    server.kill();
    if (this.#persisting !== null && this.#chaos.chance(0.5)) {
      this.#persisted = this.#persisting.record;
    }
    this.#persisting = null;
    this.oracle.processEnded();
    // Nobody was told of a failed sync that is not on record.
    if (this.oracle.poisoned && (this.#persisted?.poisoned ?? null) === null) {
      this.oracle.acceptLoss();
    }
    for (const connection of Array.from(this.#live)) connection.hungUp();
    this.#initiators?.serverGone();
    this.#programs?.serverGone();
  }

  #hostCrash(): void {
    this.#kill();
    this.#trace('the host loses power');
    this.#fleet?.crash();
    this.oracle.hostCrashes();
    this.#media.crash();
    this.#boots += 1;
    this.oracle.hostCrashed();
  }

  #bootLater(): void {
    const ms = this.#chaos.float() * 50;
    this.later(ms, () => {
      if (this.#server === null && !this.#done) this.#boot();
    });
  }

  /** A graceful stop, and a new process unless it is the end. */
  #restart(again: boolean): void {
    const server = this.#server;
    if (server === null || server.stopping) return;
    this.#trace('the server is asked to stop');
    this.#awaiting = true;
    server.stop().then(
      (stable) => this.#stopped(server, stable, again),
      (error: unknown) => this.oracle.note(describe(error)),
    );
  }

  #stopped(server: SimServer, stable: boolean, again: boolean): void {
    if (this.#server !== server) return;
    this.#trace(`the server has stopped, ${stable ? 'all is stable' : 'not all is stable'}`);
    try {
      this.#nothingHeld();
      if (stable) this.oracle.stoppedClean();
      this.#kill();
    } catch (error) {
      this.oracle.note(messageOf(error));
    }
    this.#awaiting = false;
    if (again) this.#bootLater();
  }

  // Chaos and the operator.

  #planChaos(): void {
    const { processKills, hostCrashes, restarts, switches } = this.#scenario.chaos;
    this.#recurring(processKills, () => {
      this.#kill();
      this.#bootLater();
    });
    this.#recurring(hostCrashes, () => {
      this.#hostCrash();
      this.#bootLater();
    });
    this.#recurring(restarts, () => this.#restart(true));
    this.#recurring(switches, () => this.#switch());
  }

  #recurring(perSecond: number, happen: () => void): void {
    if (perSecond === 0) return;
    const ms = (-Math.log(1 - this.#chaos.float()) * 1000) / perSecond;
    this.later(ms, () => {
      if (!this.wantsMore()) return;
      happen();
      this.#recurring(perSecond, happen);
    });
  }

  #switch(): void {
    const server = this.#server;
    if (server === null || server.stopping || server.disk.mode.ignoreFlush) return;
    const { oracle } = this;
    const on = this.#chaos.chance(0.5);
    this.#trace(`the write cache is switched ${on ? 'on' : 'off'}`);
    oracle.tick += 1;
    const askedAt = oracle.tick;
    const switchedOff = (): number =>
      this.#switchesDone + ((server.vms ?? server.iscsi)?.switches.off ?? 0);
    const doneBefore = switchedOff();
    const wasOn = server.disk.info.writeCache;
    oracle.writeCache = on;
    const answered = (error: string | null): void => {
      if (on) return;
      this.#trace(`switched off: ${error ?? 'done'}`);
      // Off already: nothing is switched, and nothing is claimed of what came before.
      if (error === null && wasOn) oracle.switchedOff(askedAt);
    };
    if (this.#faults.toggleAnsweredEarly === true && !on) {
      server.disk.setWriteCache(false, () => {});
      answered(null);
      return;
    }
    server.disk.setWriteCache(on, (error) => {
      answered(error);
      if (on || error === 'ECANCELED') return;
      const shown = server.disk.info.writeCache;
      if (error === null) this.#switchesDone += 1;
      // An earlier switch whose flush succeeded has switched it off, and this one's failure does not undo that.
      if (error !== null && switchedOff() > doneBefore) return;
      if (shown === (error === null))
        oracle.fail(`P4: switched off (${error}), and shown as ${shown}`);
    });
  }

  /** Somebody looks after a failed sync, sooner or later; nobody may, under `poison`. */
  #callOperator(): void {
    if (this.#scenario.policy === 'poison' && this.#chaos.chance(0.4)) return;
    this.later(this.#chaos.float() * 300, () => this.#operate());
  }

  #operate(): void {
    const server = this.#server;
    if (!this.oracle.poisoned) return;
    if (server === null) {
      if (this.#persisted !== null) this.#persisted = { ...this.#persisted, poisoned: null };
      this.#trace('the operator clears the record');
      this.oracle.acceptLoss();
      return;
    }
    const { domain } = server;
    if (domain === null || server.stopping) return;
    if (domain.health === 'recording') {
      this.later(20, () => this.#operate());
    } else if (domain.health === 'stopped' && this.#chaos.chance(0.3)) {
      this.#trace('the operator gives up');
      domain.fail();
    } else if (domain.health !== 'well') {
      this.#trace('the operator resumes');
      this.oracle.acceptLoss();
      domain.resume();
    }
  }

  // Clients.

  #connect(plan: ClientPlan): void {
    if (!this.wantsMore()) return;
    const server = this.#server;
    if (server === null || server.stopping) {
      this.later(10 + this.prng.float() * 20, () => this.#connect(plan));
      return;
    }
    this.#sessions += 1;
    const session = newSession({
      id: this.#sessions,
      peerKey: plan.host.replace(/^tcp /, ''),
      resumable: plan.resumable,
      flushes: true,
    });
    const connection = new ClientConnection(this, plan.traits, session);
    const peer = plan.host === 'unix' ? 'unix' : `${plan.host}:${40000 + this.#sessions}`;
    connection.stream = new SimStream(
      server.reactor,
      this.prng,
      this.#scenario.network,
      peer,
      connection,
    );
    this.#slots.set(connection, plan);
    this.#live.add(connection);
    server.accept(connection.stream);
  }
}
