import type { ReservationRule } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import type { Nexus } from './nexus.ts';
import {
  apply,
  type Change,
  isForRegistrants,
  isHolder,
  isWriteExclusive,
  type NexusName,
  NO_RESERVATIONS,
  type PrRequest,
  type PrState,
  type Refused,
  type Registration,
  registrationOf,
} from './reservation-state.ts';
import type { Reservations } from './reservations.ts';

/** What outlives the loss of power, when APTPL asks for it. */
export type KeptReservations = Pick<PrState, 'registrations' | 'reservation'>;

export interface ReservationStore {
  /** What was saved last, or null. Throws a ConfigError where that cannot be told. */
  load(): KeptReservations | null;
  /** `done(null)` when it would survive the loss of power; null takes away what was saved. */
  save(kept: KeptReservations | null, done: (error: Error | null) => void): void;
}

export interface PersistentReservationsOptions {
  /** Null: reservations end with the server (PTPL_C 0). */
  readonly store: ReservationStore | null;
  readonly log: (line: string) => void;
}

/** What became of a request: who lost its registration by it, or why it was refused. */
export type PrOutcome = { readonly preempted: readonly Nexus[] } | Refused | 'not-saved';

interface Waiting {
  readonly nexus: Nexus;
  readonly request: PrRequest;
  readonly done: (outcome: PrOutcome) => void;
}

/**
 * Persistent reservations [SPC-4 5.13] and RESERVE (6) [SPC-2 5.5] of one disk, for all logical units that show it.
 */
export class PersistentReservations implements Reservations {
  readonly #store: ReservationStore | null;
  readonly #log: (line: string) => void;
  readonly #units: LogicalUnit[] = [];
  #state: PrState = NO_RESERVATIONS;
  /** Something is saved in the store. */
  #kept = false;
  /** By RESERVE (6). */
  #reserver: Nexus | null = null;
  /** Registrations of nexuses that have asked since the last change: `conflicts` is called for every command. */
  readonly #known = new Map<Nexus, Registration | null>();
  /** One request after the other: a change that is being saved does not hold yet. */
  readonly #waiting: Waiting[] = [];
  #busy = false;

  constructor(options: PersistentReservationsOptions) {
    this.#store = options.store;
    this.#log = options.log;
    const kept = this.#store?.load() ?? null;
    if (kept !== null) {
      this.#kept = true;
      this.#state = { ...NO_RESERVATIONS, ...kept, persistent: true };
    }
  }

  /** PTPL_C: APTPL can be kept. */
  get canPersist(): boolean {
    return this.#store !== null;
  }

  get state(): PrState {
    return this.#state;
  }

  /** The logical units that these reservations govern. */
  get units(): readonly LogicalUnit[] {
    return this.#units;
  }

  /** A RESERVE (6) holds, of whomever. */
  get reservedOldStyle(): boolean {
    return this.#reserver !== null;
  }

  attach(unit: LogicalUnit): void {
    if (!this.#units.includes(unit)) this.#units.push(unit);
  }

  conflicts(nexus: Nexus, rule: ReservationRule): boolean {
    if (rule === 'own' || rule === 'allowed') return false;
    if (this.#reserver !== null) return this.#reserver !== nexus;
    const { reservation } = this.#state;
    if (reservation === null) return false;
    const own = this.registrationOf(nexus);
    if (own !== null && (isForRegistrants(reservation.type) || isHolder(this.#state, own))) {
      return false;
    }
    return rule !== 'reads' || !isWriteExclusive(reservation.type);
  }

  registrationOf(nexus: Nexus): Registration | null {
    const known = this.#known.get(nexus);
    if (known !== undefined) return known;
    const found = registrationOf(this.#state, nexus.initiator.name, nexus.relativePort);
    this.#known.set(nexus, found);
    return found;
  }

  /** PERSISTENT RESERVE OUT: `done` when it holds, and is saved if APTPL says so. */
  request(nexus: Nexus, request: PrRequest, done: (outcome: PrOutcome) => void): void {
    this.#waiting.push({ nexus, request, done });
    this.#next();
  }

  /** RESERVE (6). False: RESERVATION CONFLICT. */
  reserve(nexus: Nexus): boolean {
    const exempt = this.#exempt(nexus);
    if (exempt !== null) return exempt;
    if (this.#reserver !== null && this.#reserver !== nexus) return false;
    this.#reserver = nexus;
    return true;
  }

  /** RELEASE (6); of a reservation that is not its own it does nothing. False: RESERVATION CONFLICT. */
  release(nexus: Nexus): boolean {
    const exempt = this.#exempt(nexus);
    if (exempt !== null) return exempt;
    if (this.#reserver === nexus) this.#reserver = null;
    return true;
  }

  nexusLost(nexus: Nexus): void {
    if (this.#reserver === nexus) this.#reserver = null;
    this.#known.delete(nexus);
  }

  unitReset(): void {
    this.#reserver = null;
  }

  /**
   * RESERVE and RELEASE where there are registrations [SPC-4 5.13.3, CRH 1; SPC-2 5.5.1]: GOOD and nothing done for whoever
   * holds the persistent reservation or shares it, a conflict for all others. Null: there are none.
   */
  #exempt(nexus: Nexus): boolean | null {
    const { registrations, reservation } = this.#state;
    if (registrations.length === 0) return null;
    const own = this.registrationOf(nexus);
    if (own === null || reservation === null) return false;
    return isHolder(this.#state, own) || isForRegistrants(reservation.type);
  }

  #next(): void {
    while (!this.#busy) {
      const waiting = this.#waiting.shift();
      if (waiting === undefined) return;
      this.#busy = true;
      this.#run(waiting);
    }
  }

  #run({ nexus, request, done }: Waiting): void {
    const { initiator, relativePort } = nexus;
    const sender: NexusName = {
      name: initiator.name,
      transportId: initiator.transportId,
      relativePort,
    };
    const change = apply(this.#state, sender, request);
    if (typeof change === 'string') {
      this.#busy = false;
      done(change);
      return;
    }
    this.#save(change, (error) => {
      this.#busy = false;
      if (error === null) done({ preempted: this.#commit(change) });
      else {
        this.#log(`persistent reservations could not be saved: ${error.message}`);
        done('not-saved');
      }
      this.#next();
    });
  }

  #save({ state }: Change, done: (error: Error | null) => void): void {
    const { registrations, reservation } = state;
    // [SPC-4 5.13.5] APTPL 0: nothing is left after the loss of power, nor is anything where nobody is registered.
    const keep = state.persistent && registrations.length > 0;
    const same =
      registrations === this.#state.registrations && reservation === this.#state.reservation;
    if (this.#store === null || (keep === this.#kept && (same || !keep))) {
      done(null);
      return;
    }
    this.#store.save(keep ? { registrations, reservation } : null, (error) => {
      if (error === null) this.#kept = keep;
      done(error);
    });
  }

  /** The change holds; who is to hear of it does. Returns the nexuses that are there of those preempted. */
  #commit({ state, told, preempted }: Change): Nexus[] {
    const lost = new Set(preempted);
    const found = new Set<Nexus>();
    for (const unit of this.#units) {
      for (const nexus of unit.target.nexuses) {
        const registration = this.registrationOf(nexus);
        if (registration === null) continue;
        if (lost.has(registration)) found.add(nexus);
        for (const { to, code } of told) {
          if (to === registration) unit.attentions.establishFor(nexus, code);
        }
      }
    }
    this.#state = state;
    this.#known.clear();
    return [...found];
  }
}
