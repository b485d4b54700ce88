import { unreachable } from '../../base/assert.ts';
import { ASC } from './scsi.ts';
import { portKey } from './transport-id.ts';

// Persistent reservations as a value, and what each service action makes of it [SPC-4 5.13]. Nothing here is changed in
// place: the state is saved, where it has to be, before it holds.

/** Persistent reservation type codes [SPC-4 table 180]. */
export const PR_TYPE = {
  WRITE_EXCLUSIVE: 0x1,
  EXCLUSIVE_ACCESS: 0x3,
  WRITE_EXCLUSIVE_REGISTRANTS_ONLY: 0x5,
  EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: 0x6,
  WRITE_EXCLUSIVE_ALL_REGISTRANTS: 0x7,
  EXCLUSIVE_ACCESS_ALL_REGISTRANTS: 0x8,
} as const;
export type PrType = (typeof PR_TYPE)[keyof typeof PR_TYPE];

export function isPrType(code: number): code is PrType {
  return (Object.values(PR_TYPE) as number[]).includes(code);
}

export function isAllRegistrants(type: PrType): boolean {
  return (
    type === PR_TYPE.WRITE_EXCLUSIVE_ALL_REGISTRANTS ||
    type === PR_TYPE.EXCLUSIVE_ACCESS_ALL_REGISTRANTS
  );
}

/** Registrants only or all registrants: registered nexuses may do what the holder may. */
export function isForRegistrants(type: PrType): boolean {
  return type >= PR_TYPE.WRITE_EXCLUSIVE_REGISTRANTS_ONLY;
}

export function isWriteExclusive(type: PrType): boolean {
  return (
    type === PR_TYPE.WRITE_EXCLUSIVE ||
    type === PR_TYPE.WRITE_EXCLUSIVE_REGISTRANTS_ONLY ||
    type === PR_TYPE.WRITE_EXCLUSIVE_ALL_REGISTRANTS
  );
}

/** Service actions of PERSISTENT RESERVE OUT [SPC-4 table 184]. */
export const PR_OUT = {
  REGISTER: 0x00,
  RESERVE: 0x01,
  RELEASE: 0x02,
  CLEAR: 0x03,
  PREEMPT: 0x04,
  PREEMPT_AND_ABORT: 0x05,
  REGISTER_AND_IGNORE_EXISTING_KEY: 0x06,
  REGISTER_AND_MOVE: 0x07,
} as const;
export type PrOut = (typeof PR_OUT)[keyof typeof PR_OUT];

/** An I_T nexus as it is known across sessions and restarts. */
export interface NexusName {
  /** InitiatorPort.name. */
  readonly name: string;
  readonly transportId: Uint8Array;
  /** Relative target port identifier; null: all of them (ALL_TG_PT). */
  readonly relativePort: number | null;
}

export interface Registration extends NexusName {
  readonly key: bigint;
}

/** Scope is always that of the logical unit. */
export interface Reservation {
  readonly type: PrType;
  /** `idOf` the holder's registration; null where all registrants hold it. */
  readonly holder: string | null;
}

export interface PrState {
  /** PRGENERATION: changes of registrations since power on, modulo 2^32. */
  readonly generation: number;
  readonly registrations: readonly Registration[];
  readonly reservation: Reservation | null;
  /** APTPL as it was last asked for: the rest outlives the loss of power. */
  readonly persistent: boolean;
}

export const NO_RESERVATIONS: PrState = {
  generation: 0,
  registrations: [],
  reservation: null,
  persistent: false,
};

/** A PERSISTENT RESERVE OUT command, its parameter list included. */
export interface PrRequest {
  readonly action: PrOut;
  readonly type: PrType;
  readonly key: bigint;
  /** SERVICE ACTION RESERVATION KEY. */
  readonly actionKey: bigint;
  readonly aptpl: boolean;
  readonly allTargetPorts: boolean;
  /** SPEC_I_PT: initiator ports besides the sender's; null without the bit. */
  readonly ports: readonly NexusName[] | null;
  /** REGISTER AND MOVE: where to, and whether the sender's registration ends. */
  readonly moveTo: NexusName | null;
  readonly unregister: boolean;
}

/** A unit attention condition for a registered nexus. */
export interface Told {
  readonly to: Registration;
  readonly code: number;
}

/** A request that goes through: the state after it, and who hears of it. */
export interface Change {
  readonly state: PrState;
  readonly told: readonly Told[];
  /** Registrations taken away from others by PREEMPT. */
  readonly preempted: readonly Registration[];
}

/** RESERVATION CONFLICT; INVALID FIELD IN CDB; INVALID FIELD IN PARAMETER LIST; … RELEASE; … RESOURCES [SPC-4 5.13]. */
export type Refused = 'conflict' | 'cdb' | 'parameter' | 'release' | 'resources';

/** The most registrations: each may come from a TransportID that nobody has logged in with. */
export const MOST_REGISTRATIONS = 256;

export function idOf(nexus: NexusName): string {
  return `${portKey(nexus.name)} ${nexus.relativePort ?? 'all'}`;
}

/** The registration of a nexus, or null. */
export function registrationOf(
  state: PrState,
  name: string,
  relativePort: number | null,
): Registration | null {
  const key = portKey(name);
  const fits = (each: Registration): boolean =>
    portKey(each.name) === key &&
    (each.relativePort === null || each.relativePort === relativePort);
  return state.registrations.find(fits) ?? null;
}

export function isHolder({ reservation }: PrState, registration: Registration): boolean {
  if (reservation === null) return false;
  return reservation.holder === null || reservation.holder === idOf(registration);
}

/** What `request` from `sender` makes of the state. */
export function apply(state: PrState, sender: NexusName, request: PrRequest): Change | Refused {
  const own = registrationOf(state, sender.name, sender.relativePort);
  const { action } = request;
  if (action === PR_OUT.REGISTER || action === PR_OUT.REGISTER_AND_IGNORE_EXISTING_KEY) {
    return register(state, sender, own, request);
  }
  // [SPC-4 5.13.1] The others are for registered nexuses that say their key.
  if (own === null || own.key !== request.key) return 'conflict';
  switch (action) {
    case PR_OUT.RESERVE:
      return reserve(state, own, request);
    case PR_OUT.RELEASE:
      return release(state, own, request);
    case PR_OUT.CLEAR:
      return clear(state, own);
    case PR_OUT.PREEMPT:
    case PR_OUT.PREEMPT_AND_ABORT:
      return preempt(state, own, request);
    case PR_OUT.REGISTER_AND_MOVE:
      return move(state, own, request);
    default:
      return unreachable(action);
  }
}

function unchanged(state: PrState): Change {
  return { state, told: [], preempted: [] };
}

function next({ generation }: PrState): number {
  return (generation + 1) >>> 0;
}

function othersThan(state: PrState, own: Registration): readonly Registration[] {
  return state.registrations.filter((each) => each !== own);
}

function tell(to: readonly Registration[], code: number): Told[] {
  return to.map((each) => ({ to: each, code }));
}

/** [SPC-4 5.13.7, tables 76 and 77] */
function register(
  state: PrState,
  sender: NexusName,
  own: Registration | null,
  request: PrRequest,
): Change | Refused {
  const { actionKey, ports } = request;
  const ignores = request.action === PR_OUT.REGISTER_AND_IGNORE_EXISTING_KEY;
  if (!ignores && request.key !== (own?.key ?? 0n)) return 'conflict';
  // SPEC_I_PT is for a first registration by REGISTER.
  if (ports !== null && (ignores || own !== null || actionKey === 0n)) return 'cdb';
  if (own === null) {
    return actionKey === 0n ? unchanged(state) : registerNew(state, sender, request);
  }
  if (actionKey === 0n) {
    const persistent = request.aptpl;
    const left = unregister(state, own);
    return { ...left, state: { ...left.state, persistent, generation: next(state) } };
  }
  const registrations = state.registrations.map((each) =>
    each === own ? { ...own, key: actionKey } : each,
  );
  const { aptpl: persistent } = request;
  return unchanged({ ...state, registrations, persistent, generation: next(state) });
}

function registerNew(state: PrState, sender: NexusName, request: PrRequest): Change | Refused {
  const { actionKey: key, allTargetPorts, ports, aptpl: persistent } = request;
  const registrations = [...state.registrations];
  for (const port of [sender, ...(ports ?? [])]) {
    const { name, transportId } = port;
    const relativePort = allTargetPorts ? null : sender.relativePort;
    const there = registrations.find(
      (each) =>
        portKey(each.name) === portKey(name) &&
        (relativePort === null || each.relativePort === null || each.relativePort === relativePort),
    );
    // Named twice, or with the sender; another's own key is not taken from it.
    if (there !== undefined && there.key === key && ports !== null) continue;
    if (there !== undefined) return 'conflict';
    registrations.push({ name, transportId, relativePort, key });
  }
  if (registrations.length > MOST_REGISTRATIONS) return 'resources';
  return unchanged({ ...state, registrations, persistent, generation: next(state) });
}

/** [SPC-4 5.13.11.2.3] Without the sender; what it held alone is released. */
function unregister(state: PrState, own: Registration): Change {
  const registrations = othersThan(state, own);
  const { reservation } = state;
  const ends =
    reservation !== null &&
    (registrations.length === 0 || (reservation.holder !== null && isHolder(state, own)));
  if (!ends) return unchanged({ ...state, registrations });
  const told = isForRegistrants(reservation.type)
    ? tell(registrations, ASC.RESERVATIONS_RELEASED)
    : [];
  return { state: { ...state, registrations, reservation: null }, told, preempted: [] };
}

/** [SPC-4 5.13.9] */
function reserve(state: PrState, own: Registration, { type }: PrRequest): Change | Refused {
  const { reservation } = state;
  if (reservation !== null) {
    return isHolder(state, own) && reservation.type === type ? unchanged(state) : 'conflict';
  }
  return unchanged({ ...state, reservation: reservationBy(own, type) });
}

function reservationBy(own: Registration, type: PrType): Reservation {
  return { type, holder: isAllRegistrants(type) ? null : idOf(own) };
}

/** [SPC-4 5.13.11.2.2] */
function release(state: PrState, own: Registration, { type }: PrRequest): Change | Refused {
  const { reservation } = state;
  if (reservation === null || !isHolder(state, own)) return unchanged(state);
  if (reservation.type !== type) return 'release';
  const told = isForRegistrants(type)
    ? tell(othersThan(state, own), ASC.RESERVATIONS_RELEASED)
    : [];
  return { state: { ...state, reservation: null }, told, preempted: [] };
}

/** [SPC-4 5.13.11.2.7] */
function clear(state: PrState, own: Registration): Change {
  const told = tell(othersThan(state, own), ASC.RESERVATIONS_PREEMPTED);
  const generation = next(state);
  return {
    state: { ...state, registrations: [], reservation: null, generation },
    told,
    preempted: [],
  };
}

/** [SPC-4 5.13.11.2.4, 5.13.11.2.5] */
function preempt(state: PrState, own: Registration, request: PrRequest): Change | Refused {
  const { actionKey, type } = request;
  const { reservation } = state;
  const all = reservation !== null && reservation.holder === null;
  // [SPC-4 figure 8] Zero means all other registrants, of a reservation that is all registrants'.
  if (actionKey === 0n && !all) return 'parameter';
  const named = state.registrations.filter((each) => actionKey === 0n || each.key === actionKey);
  if (named.length === 0) return 'conflict';
  const takesOver = all
    ? actionKey === 0n
    : named.some((each) => reservation !== null && isHolder(state, each));
  const generation = next(state);
  if (takesOver) {
    const preempted = named.filter((each) => each !== own);
    const registrations = state.registrations.filter((each) => !preempted.includes(each));
    const told = tell(preempted, ASC.REGISTRATIONS_PREEMPTED);
    if (reservation?.type !== type) {
      const rest = registrations.filter((each) => each !== own);
      told.push(...tell(rest, ASC.RESERVATIONS_RELEASED));
    }
    const taken = reservationBy(own, type);
    return {
      state: { ...state, registrations, reservation: taken, generation },
      told,
      preempted,
    };
  }
  // Only registrations: the sender's too, if the key is its own.
  const registrations = state.registrations.filter((each) => !named.includes(each));
  const preempted = named.filter((each) => each !== own);
  const left = registrations.length === 0 ? null : reservation;
  return {
    state: { ...state, registrations, reservation: left, generation },
    told: tell(preempted, ASC.REGISTRATIONS_PREEMPTED),
    preempted,
  };
}

/** [SPC-4 5.13.8] */
function move(state: PrState, own: Registration, request: PrRequest): Change | Refused {
  const { actionKey: key, moveTo, aptpl: persistent } = request;
  const { reservation } = state;
  if (reservation === null) return 'cdb';
  if (reservation.holder === null) return 'conflict';
  if (!isHolder(state, own)) return 'cdb';
  if (key === 0n || moveTo === null) return 'parameter';
  const there = registrationOf(state, moveTo.name, moveTo.relativePort);
  if (there === own) return 'parameter';
  const { name, transportId, relativePort } = there ?? moveTo;
  const moved: Registration = { name, transportId, relativePort, key };
  const registrations = state.registrations
    .filter((each) => each !== there && !(request.unregister && each === own))
    .concat(moved);
  if (registrations.length > MOST_REGISTRATIONS) return 'resources';
  const held: Reservation = { type: reservation.type, holder: idOf(moved) };
  return unchanged({
    registrations,
    reservation: held,
    persistent,
    generation: next(state),
  });
}
