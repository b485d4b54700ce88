import type { CommandSpec } from '../command.ts';
import { MAX_PARAMETER_BYTES } from '../limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { Nexus } from '../nexus.ts';
import { PersistentReservations, type PrOutcome } from '../persistent-reservations.ts';
import {
  idOf,
  isHolder,
  isPrType,
  type NexusName,
  PR_OUT,
  PR_TYPE,
  type PrOut,
  type PrRequest,
} from '../reservation-state.ts';
import { ASC, SENSE_KEY, STATUS } from '../scsi.ts';
import type { ScsiTask } from '../task.ts';
import { type NamedPort, parseTransportIds } from '../transport-id.ts';
import { u16, u32 } from './block-range.ts';

// PERSISTENT RESERVE IN and OUT [SPC-4 6.15, 6.16]. What they mean is in reservation-state.ts.

/** The parameter list without TransportIDs [SPC-4 6.16.3]; that of REGISTER AND MOVE begins with as many. */
const LIST_BYTES = 24;
const SPEC_I_PT = 0x08;
const ALL_TG_PT = 0x04;
const APTPL = 0x01;
const UNREG = 0x02;

function reservationsOf(unit: LogicalUnit): PersistentReservations {
  return unit.reservations as PersistentReservations;
}

/** [SPC-2 5.5.1] Both conflict with a RESERVE (6), of whomever: the two kinds do not mix. */
function respectsReserve(unit: LogicalUnit, task: ScsiTask): boolean {
  if (!reservationsOf(unit).reservedOldStyle) return true;
  unit.finish(task, STATUS.RESERVATION_CONFLICT);
  return false;
}

function keyBytes(key: bigint): number[] {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, key);
  return [...bytes];
}

function u32Bytes(value: number): number[] {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

/** PRGENERATION, ADDITIONAL LENGTH, and what it counts. */
function withHeader(unit: LogicalUnit, body: readonly number[]): number[] {
  const { generation } = reservationsOf(unit).state;
  return [...u32Bytes(generation), ...u32Bytes(body.length), ...body];
}

/** [SPC-4 6.15.2] */
function readKeys(unit: LogicalUnit): number[] {
  const { registrations } = reservationsOf(unit).state;
  return withHeader(
    unit,
    registrations.flatMap(({ key }) => keyBytes(key)),
  );
}

/** [SPC-4 6.15.3] */
function readReservation(unit: LogicalUnit): number[] {
  const { reservation, registrations } = reservationsOf(unit).state;
  if (reservation === null) return withHeader(unit, []);
  const holder = registrations.find((each) => idOf(each) === reservation.holder);
  // All registrants hold it: no key is said [SPC-4 6.15.3.2]. SCOPE 0: logical unit.
  const key = keyBytes(holder?.key ?? 0n);
  return withHeader(unit, [...key, 0, 0, 0, 0, 0, reservation.type, 0, 0]);
}

/** [SPC-4 6.15.4] */
function reportCapabilities(unit: LogicalUnit): number[] {
  const persists = reservationsOf(unit).canPersist ? 1 : 0;
  const active = reservationsOf(unit).state.persistent ? 1 : 0;
  // CRH, SIP_C, ATP_C, PTPL_C; TMV, ALLOW COMMANDS 0: nothing is said of it, PTPL_A.
  const flags = [0x10 | 0x08 | 0x04 | persists, 0x80 | active];
  // All six types: WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX; EX_AC_AR.
  return [0, 8, ...flags, 0x80 | 0x40 | 0x20 | 0x08 | 0x02, 0x01, 0, 0];
}

/** [SPC-4 6.15.5] */
function readFullStatus(unit: LogicalUnit): number[] {
  const { state } = reservationsOf(unit);
  const body = state.registrations.flatMap((registration) => {
    const { key, relativePort, transportId } = registration;
    const holds = isHolder(state, registration);
    const port = relativePort ?? 0;
    return [
      ...keyBytes(key),
      0,
      0,
      0,
      0,
      (relativePort === null ? 0x02 : 0) | (holds ? 0x01 : 0),
      holds ? (state.reservation?.type ?? 0) : 0,
      0,
      0,
      0,
      0,
      port >> 8,
      port & 0xff,
      ...u32Bytes(transportId.length),
      ...transportId,
    ];
  });
  return withHeader(unit, body);
}

function reserveIn(
  serviceAction: number,
  name: string,
  section: string,
  make: (unit: LogicalUnit) => number[],
): CommandSpec {
  return {
    name: `PERSISTENT RESERVE IN (${name})`,
    section,
    opcode: 0x5e,
    serviceAction,
    cdbBytes: 10,
    usage: [0x5e, serviceAction, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04],
    reservation: 'own',
    offered: (unit) => unit.reservations instanceof PersistentReservations,
    plan: respectsReserve,
    execute: (unit, task) => {
      task.dataIn = Uint8Array.from(make(unit)).subarray(0, u16(task.cdb, 7));
      unit.finish(task);
    },
  };
}

const RESERVING: readonly PrOut[] = [
  PR_OUT.RESERVE,
  PR_OUT.RELEASE,
  PR_OUT.PREEMPT,
  PR_OUT.PREEMPT_AND_ABORT,
];

function planOut(unit: LogicalUnit, task: ScsiTask): boolean {
  if (!respectsReserve(unit, task)) return false;
  const action = ((task.cdb[1] as number) & 0x1f) as PrOut;
  const scopeAndType = task.cdb[2] as number;
  // Scope and type are looked at where there is a reservation to speak of [SPC-4 6.16.2].
  if (RESERVING.includes(action)) {
    if (scopeAndType >> 4 !== 0) return unit.refuseField(task, 2, 7);
    if (!isPrType(scopeAndType & 0x0f)) return unit.refuseField(task, 2, 3);
  }
  task.outBytes = u32(task.cdb, 5);
  if (task.outBytes > MAX_PARAMETER_BYTES) return unit.refuseField(task, 5);
  return task.outBytes >= LIST_BYTES || wrongLength(unit, task);
}

function wrongLength(unit: LogicalUnit, task: ScsiTask): false {
  return unit.refuse(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.PARAMETER_LIST_LENGTH_ERROR);
}

function executeOut(unit: LogicalUnit, task: ScsiTask): void {
  const list = task.dataOut;
  if (list === null || list.length < task.outBytes) {
    wrongLength(unit, task);
    return;
  }
  const moves = ((task.cdb[1] as number) & 0x1f) === PR_OUT.REGISTER_AND_MOVE;
  const request = moves ? readMove(unit, task, list) : readBasic(unit, task, list);
  if (request === null) return;
  reservationsOf(unit).request(task.nexus, request, (outcome) => {
    if (typeof outcome === 'string') refuse(unit, task, outcome);
    else if (request.action === PR_OUT.PREEMPT_AND_ABORT) abortOf(unit, task, outcome.preempted);
    else unit.finish(task);
  });
}

/** [SPC-4 6.16.3] Null: it has been refused. */
function readBasic(unit: LogicalUnit, task: ScsiTask, list: Uint8Array): PrRequest | null {
  const action = ((task.cdb[1] as number) & 0x1f) as PrOut;
  const flags = list[20] as number;
  const names = (flags & SPEC_I_PT) !== 0;
  if ((flags & ~(SPEC_I_PT | ALL_TG_PT | APTPL)) !== 0 || (list[21] as number) !== 0) {
    unit.refuseParameter(task, 20);
    return null;
  }
  // [SPC-4 6.16.3] TransportIDs come with REGISTER only, and nothing else follows.
  if (names && action !== PR_OUT.REGISTER) {
    unit.refuseParameter(task, 20, 3);
    return null;
  }
  let ports: NexusName[] | null = null;
  if (names) {
    if (list.length < LIST_BYTES + 4 || u32(list, LIST_BYTES) !== list.length - LIST_BYTES - 4) {
      wrongLength(unit, task);
      return null;
    }
    const named = parseTransportIds(list.subarray(LIST_BYTES + 4));
    ports = named === null ? null : expand(unit, task, named);
    if (ports === null) {
      unit.refuseParameter(task, LIST_BYTES + 4);
      return null;
    }
  } else if (list.length !== LIST_BYTES) {
    wrongLength(unit, task);
    return null;
  }
  const registers =
    action === PR_OUT.REGISTER || action === PR_OUT.REGISTER_AND_IGNORE_EXISTING_KEY;
  const aptpl = registers && (flags & APTPL) !== 0;
  if (aptpl && !canPersist(unit, task, 20)) return null;
  return {
    ...common(task, list),
    aptpl,
    allTargetPorts: registers && (flags & ALL_TG_PT) !== 0,
    ports,
    moveTo: null,
    unregister: false,
  };
}

/** [SPC-4 6.16.4] Null: it has been refused. */
function readMove(unit: LogicalUnit, task: ScsiTask, list: Uint8Array): PrRequest | null {
  const flags = list[17] as number;
  if ((flags & ~(UNREG | APTPL)) !== 0 || (list[16] as number) !== 0) {
    unit.refuseParameter(task, 17);
    return null;
  }
  const aptpl = (flags & APTPL) !== 0;
  if (aptpl && !canPersist(unit, task, 17)) return null;
  if (u32(list, 20) !== list.length - LIST_BYTES) {
    wrongLength(unit, task);
    return null;
  }
  const named = parseTransportIds(list.subarray(LIST_BYTES));
  const port = named?.[0];
  // One port: the name of a device does not say which of its ports [SPC-4 5.13.8].
  if (port === undefined || named?.length !== 1 || !port.isPort) {
    unit.refuseParameter(task, LIST_BYTES);
    return null;
  }
  const relativePort = u16(list, 18);
  if (![...unit.target.nexuses].some((nexus) => nexus.relativePort === relativePort)) {
    unit.refuseParameter(task, 18);
    return null;
  }
  return {
    ...common(task, list),
    aptpl,
    allTargetPorts: false,
    ports: null,
    moveTo: { name: port.name, transportId: port.bytes, relativePort },
    unregister: (flags & UNREG) !== 0,
  };
}

function common(
  { cdb }: ScsiTask,
  list: Uint8Array,
): Pick<PrRequest, 'action' | 'type' | 'key' | 'actionKey'> {
  const view = new DataView(list.buffer, list.byteOffset, list.byteLength);
  const type = (cdb[2] as number) & 0x0f;
  return {
    action: ((cdb[1] as number) & 0x1f) as PrOut,
    // Of the actions that do not speak of a reservation it is not looked at.
    type: isPrType(type) ? type : PR_TYPE.WRITE_EXCLUSIVE,
    key: view.getBigUint64(0),
    actionKey: view.getBigUint64(8),
  };
}

function canPersist(unit: LogicalUnit, task: ScsiTask, byte: number): boolean {
  return reservationsOf(unit).canPersist || unit.refuseParameter(task, byte, 0);
}

/** The ports that TransportIDs name: of one without a port, all of it that are logged in. Null: there is none. */
function expand(
  unit: LogicalUnit,
  { nexus }: ScsiTask,
  named: readonly NamedPort[],
): NexusName[] | null {
  const { relativePort } = nexus;
  const ports: NexusName[] = [];
  for (const { name, isPort, bytes } of named) {
    if (isPort) {
      ports.push({ name, transportId: bytes, relativePort });
      continue;
    }
    const prefix = `${name},i,`;
    const of = [...unit.target.nexuses].filter(({ initiator }) =>
      initiator.name.toLowerCase().startsWith(prefix),
    );
    if (of.length === 0) return null;
    for (const { initiator } of of) ports.push({ ...initiator, relativePort });
  }
  return ports;
}

function refuse(unit: LogicalUnit, task: ScsiTask, outcome: Extract<PrOutcome, string>): void {
  const { ILLEGAL_REQUEST, HARDWARE_ERROR } = SENSE_KEY;
  switch (outcome) {
    case 'conflict':
      unit.finish(task, STATUS.RESERVATION_CONFLICT);
      break;
    case 'cdb':
      unit.refuse(task, ILLEGAL_REQUEST, ASC.INVALID_FIELD_IN_CDB);
      break;
    case 'parameter':
      unit.refuse(task, ILLEGAL_REQUEST, ASC.INVALID_FIELD_IN_PARAMETER_LIST);
      break;
    case 'release':
      unit.refuse(task, ILLEGAL_REQUEST, ASC.INVALID_RELEASE_OF_PERSISTENT_RESERVATION);
      break;
    case 'resources':
      unit.refuse(task, ILLEGAL_REQUEST, ASC.INSUFFICIENT_REGISTRATION_RESOURCES);
      break;
    case 'not-saved':
      unit.refuse(task, HARDWARE_ERROR, ASC.INTERNAL_TARGET_FAILURE);
  }
}

/** [SPC-4 5.13.11.2.6] Ends the commands of those who were preempted, and answers when none of them is under way. */
function abortOf(unit: LogicalUnit, task: ScsiTask, preempted: readonly Nexus[]): void {
  let left = 1;
  const one = (): void => {
    left -= 1;
    if (left === 0) unit.finish(task);
  };
  for (const each of reservationsOf(unit).units) {
    left += 1;
    const hit = new Set<Nexus>();
    each.abortTasks((other) => {
      const fits = other !== task && preempted.includes(other.nexus);
      if (fits) hit.add(other.nexus);
      return fits;
    }, one);
    // TAS 0: nobody answers for the commands, so their nexus is told [SAM-5 5.14].
    const code = ASC.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR;
    for (const nexus of hit) each.attentions.establishFor(nexus, code);
  }
  one();
}

function reserveOut(serviceAction: PrOut, name: string): CommandSpec {
  return {
    name: `PERSISTENT RESERVE OUT (${name})`,
    section: 'SPC-4 6.16',
    opcode: 0x5f,
    serviceAction,
    cdbBytes: 10,
    // Scope and type are ignored where there is no reservation to speak of [SPC-4 6.16.2]: they may be anything there.
    usage: [0x5f, serviceAction, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04],
    reservation: 'own',
    offered: (unit) => unit.reservations instanceof PersistentReservations,
    plan: planOut,
    execute: executeOut,
  };
}

export const PERSISTENT_RESERVE_COMMANDS: readonly CommandSpec[] = [
  reserveIn(0x00, 'READ KEYS', 'SPC-4 6.15.2', readKeys),
  reserveIn(0x01, 'READ RESERVATION', 'SPC-4 6.15.3', readReservation),
  reserveIn(0x02, 'REPORT CAPABILITIES', 'SPC-4 6.15.4', reportCapabilities),
  reserveIn(0x03, 'READ FULL STATUS', 'SPC-4 6.15.5', readFullStatus),
  reserveOut(PR_OUT.REGISTER, 'REGISTER'),
  reserveOut(PR_OUT.RESERVE, 'RESERVE'),
  reserveOut(PR_OUT.RELEASE, 'RELEASE'),
  reserveOut(PR_OUT.CLEAR, 'CLEAR'),
  reserveOut(PR_OUT.PREEMPT, 'PREEMPT'),
  reserveOut(PR_OUT.PREEMPT_AND_ABORT, 'PREEMPT AND ABORT'),
  reserveOut(PR_OUT.REGISTER_AND_IGNORE_EXISTING_KEY, 'REGISTER AND IGNORE EXISTING KEY'),
  reserveOut(PR_OUT.REGISTER_AND_MOVE, 'REGISTER AND MOVE'),
];
