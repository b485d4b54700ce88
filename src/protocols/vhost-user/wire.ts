/**
 * The constants and messages of vhost-user, after docs/interop/vhost-user.rst of QEMU. `VHOST_USER.GET_FEATURES` here is
 * VHOST_USER_GET_FEATURES there; where older editions say SLAVE, it is BACKEND.
 *
 * Numbers are in the machine's byte order [vhost-user "Message Specification"]: little-endian on every machine that
 * Holdfast runs on. Decoders look at bounded bytes, return null for what is malformed and never throw; addresses and
 * sizes of 64 bits become doubles, and null where they are 2^53 or more. Encoders return fresh bytes.
 */

import { MAX_ADDRESS, MAX_CONFIG_BYTES, MAX_TABLE_REGIONS } from './limits.ts';

/** Requests of the front-end [vhost-user "Front-end message types"]. */
export const VHOST_USER = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
  SET_BACKEND_REQ_FD: 21,
  IOTLB_MSG: 22,
  SET_VRING_ENDIAN: 23,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  CREATE_CRYPTO_SESSION: 26,
  CLOSE_CRYPTO_SESSION: 27,
  POSTCOPY_ADVISE: 28,
  POSTCOPY_LISTEN: 29,
  POSTCOPY_END: 30,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  GPU_SET_SOCKET: 33,
  RESET_DEVICE: 34,
  VRING_KICK: 35,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
  GET_SHARED_OBJECT: 41,
  SET_DEVICE_STATE_FD: 42,
  CHECK_DEVICE_STATE: 43,
} as const;

/** Requests of the back-end, over its own channel [vhost-user "Back-end message types"]. */
export const VHOST_USER_BACKEND = {
  IOTLB_MSG: 1,
  CONFIG_CHANGE_MSG: 2,
  VRING_HOST_NOTIFIER_MSG: 3,
  VRING_CALL: 4,
  VRING_ERR: 5,
} as const;

/** Bit numbers [vhost-user "Protocol features"]. */
export const VHOST_USER_PROTOCOL_F = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  MTU: 4,
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
} as const;

/** The virtio feature bit that stands for protocol features [vhost-user "Communication"]. */
export const VHOST_USER_F_PROTOCOL_FEATURES = 30;

/** The feature bit that asks for the log of written pages [vhost-user "Migration"]. */
export const VHOST_F_LOG_ALL = 26;

/** Flags of SET_VRING_ADDR [vhost-user "Migration"]: log writes to the used ring. */
export const VHOST_VRING_F_LOG = 0;

/** Header flags [vhost-user "Header"]. */
export const VHOST_USER_VERSION_MASK = 3;
export const VHOST_USER_VERSION = 1;
export const VHOST_USER_REPLY_MASK = 4;
export const VHOST_USER_NEED_REPLY_MASK = 8;

/** Of the u64 in SET_VRING_KICK, CALL and ERR: the ring, and whether no descriptor comes with it. */
export const VHOST_USER_VRING_IDX_MASK = 0xff;
export const VHOST_USER_VRING_NOFD_MASK = 0x100;

/** The flag of a configuration message [vhost-user "Virtio device config space"]. */
export const VHOST_SET_CONFIG_TYPE = { FRONTEND: 0, MIGRATION: 1 } as const;

/** Lengths in bytes. */
export const SIZE = {
  HEADER: 12,
  U64: 8,
  VRING_STATE: 8,
  VRING_ADDR: 40,
  MEMORY_TABLE_HEADER: 8,
  MEMORY_REGION: 32,
  SINGLE_REGION: 40,
  CONFIG_HEADER: 12,
  /** As its fields are. */
  INFLIGHT: 20,
  /** As C lays the struct out: QEMU sends and expects this. */
  INFLIGHT_PADDED: 24,
} as const;

export interface Header {
  readonly request: number;
  readonly flags: number;
  /** Bytes of payload that follow. */
  readonly size: number;
}

export interface VringState {
  readonly index: number;
  readonly num: number;
}

/** Addresses are those of the front-end's process (VIRTIO_F_ACCESS_PLATFORM is not offered). */
export interface VringAddress {
  readonly index: number;
  readonly flags: number;
  readonly descriptor: number;
  readonly used: number;
  readonly available: number;
}

export interface RegionDescription {
  readonly guestAddress: number;
  readonly sizeBytes: number;
  readonly userAddress: number;
  readonly mmapOffset: number;
}

export interface ConfigDescription {
  readonly offset: number;
  readonly size: number;
  readonly flags: number;
  /** `size` bytes; in a request of GET_CONFIG they mean nothing. */
  readonly payload: Uint8Array;
}

export interface InflightDescription {
  readonly mmapSize: number;
  readonly mmapOffset: number;
  readonly numQueues: number;
  readonly queueSize: number;
}

/** The ring that a descriptor is for, and whether it comes. */
export interface VringDescriptor {
  readonly index: number;
  /** Bit 8: no descriptor comes; kicks or calls are found by polling. */
  readonly absent: boolean;
}

/** The name of a front-end's request, for messages to people: "SET_FEATURES", "request 99". */
export function requestName(request: number): string {
  return NAMES.get(request) ?? `request ${request}`;
}

const NAMES = new Map<number, string>(Object.entries(VHOST_USER).map(([name, id]) => [id, name]));

/** At least SIZE.HEADER bytes from `offset` on. */
export function decodeHeader(bytes: Uint8Array, offset = 0): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, SIZE.HEADER);
  return {
    request: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    size: view.getUint32(8, true),
  };
}

/** A whole message; `flags` without the version. */
export function encodeMessage(
  request: number,
  flags: number,
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const bytes = new Uint8Array(SIZE.HEADER + payload.length);
  const view = viewOf(bytes);
  view.setUint32(0, request, true);
  view.setUint32(4, flags | VHOST_USER_VERSION, true);
  view.setUint32(8, payload.length, true);
  bytes.set(payload, SIZE.HEADER);
  return bytes;
}

export function decodeU64(payload: Uint8Array): bigint | null {
  return payload.length === SIZE.U64 ? viewOf(payload).getBigUint64(0, true) : null;
}

export function encodeU64(value: bigint | number): Uint8Array {
  const bytes = new Uint8Array(SIZE.U64);
  viewOf(bytes).setBigUint64(0, BigInt(value), true);
  return bytes;
}

export function decodeVringState(payload: Uint8Array): VringState | null {
  if (payload.length !== SIZE.VRING_STATE) return null;
  const view = viewOf(payload);
  return { index: view.getUint32(0, true), num: view.getUint32(4, true) };
}

export function encodeVringState({ index, num }: VringState): Uint8Array {
  const bytes = new Uint8Array(SIZE.VRING_STATE);
  const view = viewOf(bytes);
  view.setUint32(0, index, true);
  view.setUint32(4, num, true);
  return bytes;
}

/** The address of the log is not looked at: VHOST_F_LOG_ALL is not offered. */
export function decodeVringAddress(payload: Uint8Array): VringAddress | null {
  if (payload.length !== SIZE.VRING_ADDR) return null;
  const view = viewOf(payload);
  const descriptor = readAddress(view, 8);
  const used = readAddress(view, 16);
  const available = readAddress(view, 24);
  if (descriptor === null || used === null || available === null) return null;
  const index = view.getUint32(0, true);
  return { index, flags: view.getUint32(4, true), descriptor, used, available };
}

export function encodeVringAddress(address: VringAddress): Uint8Array {
  const bytes = new Uint8Array(SIZE.VRING_ADDR);
  const view = viewOf(bytes);
  view.setUint32(0, address.index, true);
  view.setUint32(4, address.flags, true);
  writeAddress(view, 8, address.descriptor);
  writeAddress(view, 16, address.used);
  writeAddress(view, 24, address.available);
  return bytes;
}

/** SET_MEM_TABLE. Longer than its regions is taken: some front-ends send all eight places. */
export function decodeMemoryTable(payload: Uint8Array): RegionDescription[] | null {
  if (payload.length < SIZE.MEMORY_TABLE_HEADER) return null;
  const view = viewOf(payload);
  const count = view.getUint32(0, true);
  if (count > MAX_TABLE_REGIONS) return null;
  if (payload.length < SIZE.MEMORY_TABLE_HEADER + count * SIZE.MEMORY_REGION) return null;
  const regions: RegionDescription[] = [];
  for (let i = 0; i < count; i += 1) {
    const region = readRegion(view, SIZE.MEMORY_TABLE_HEADER + i * SIZE.MEMORY_REGION);
    if (region === null) return null;
    regions.push(region);
  }
  return regions;
}

export function encodeMemoryTable(regions: readonly RegionDescription[]): Uint8Array {
  const bytes = new Uint8Array(SIZE.MEMORY_TABLE_HEADER + regions.length * SIZE.MEMORY_REGION);
  const view = viewOf(bytes);
  view.setUint32(0, regions.length, true);
  regions.forEach((region, i) => {
    writeRegion(view, SIZE.MEMORY_TABLE_HEADER + i * SIZE.MEMORY_REGION, region);
  });
  return bytes;
}

/** ADD_MEM_REG and REM_MEM_REG. */
export function decodeSingleRegion(payload: Uint8Array): RegionDescription | null {
  return payload.length === SIZE.SINGLE_REGION ? readRegion(viewOf(payload), 8) : null;
}

export function encodeSingleRegion(region: RegionDescription): Uint8Array {
  const bytes = new Uint8Array(SIZE.SINGLE_REGION);
  writeRegion(viewOf(bytes), 8, region);
  return bytes;
}

/** GET_CONFIG and SET_CONFIG. The payload is a view of the given bytes, as long as `size` says; never shorter. */
export function decodeConfig(payload: Uint8Array): ConfigDescription | null {
  if (payload.length < SIZE.CONFIG_HEADER) return null;
  const view = viewOf(payload);
  const size = view.getUint32(4, true);
  if (size > MAX_CONFIG_BYTES || payload.length !== SIZE.CONFIG_HEADER + size) return null;
  return {
    offset: view.getUint32(0, true),
    size,
    flags: view.getUint32(8, true),
    payload: payload.subarray(SIZE.CONFIG_HEADER),
  };
}

export function encodeConfig(offset: number, flags: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(SIZE.CONFIG_HEADER + payload.length);
  const view = viewOf(bytes);
  view.setUint32(0, offset, true);
  view.setUint32(4, payload.length, true);
  view.setUint32(8, flags, true);
  bytes.set(payload, SIZE.CONFIG_HEADER);
  return bytes;
}

/** GET_INFLIGHT_FD and SET_INFLIGHT_FD, with or without the padding at the struct's end. */
export function decodeInflight(payload: Uint8Array): InflightDescription | null {
  if (payload.length !== SIZE.INFLIGHT && payload.length !== SIZE.INFLIGHT_PADDED) return null;
  const view = viewOf(payload);
  const mmapSize = readAddress(view, 0);
  const mmapOffset = readAddress(view, 8);
  if (mmapSize === null || mmapOffset === null) return null;
  const numQueues = view.getUint16(16, true);
  return { mmapSize, mmapOffset, numQueues, queueSize: view.getUint16(18, true) };
}

/** `lengthBytes`: SIZE.INFLIGHT, or SIZE.INFLIGHT_PADDED; an answer has the length of its request. */
export function encodeInflight(
  inflight: InflightDescription,
  lengthBytes: number = SIZE.INFLIGHT_PADDED,
): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  const view = viewOf(bytes);
  writeAddress(view, 0, inflight.mmapSize);
  writeAddress(view, 8, inflight.mmapOffset);
  view.setUint16(16, inflight.numQueues, true);
  view.setUint16(18, inflight.queueSize, true);
  return bytes;
}

/** SET_VRING_KICK, CALL and ERR [vhost-user "VHOST_USER_SET_VRING_KICK"]. */
export function decodeVringDescriptor(payload: Uint8Array): VringDescriptor | null {
  if (payload.length !== SIZE.U64) return null;
  const low = viewOf(payload).getUint32(0, true);
  return {
    index: low & VHOST_USER_VRING_IDX_MASK,
    absent: (low & VHOST_USER_VRING_NOFD_MASK) !== 0,
  };
}

export function encodeVringDescriptor({ index, absent }: VringDescriptor): Uint8Array {
  return encodeU64(index | (absent ? VHOST_USER_VRING_NOFD_MASK : 0));
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Null where a double would not be exact: no process has memory there. */
function readAddress(view: DataView, at: number): number | null {
  const high = view.getUint32(at + 4, true);
  const value = high * 2 ** 32 + view.getUint32(at, true);
  return value <= MAX_ADDRESS ? value : null;
}

function writeAddress(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

function readRegion(view: DataView, at: number): RegionDescription | null {
  const guestAddress = readAddress(view, at);
  const sizeBytes = readAddress(view, at + 8);
  const userAddress = readAddress(view, at + 16);
  const mmapOffset = readAddress(view, at + 24);
  if (guestAddress === null || sizeBytes === null) return null;
  if (userAddress === null || mmapOffset === null) return null;
  return { guestAddress, sizeBytes, userAddress, mmapOffset };
}

function writeRegion(view: DataView, at: number, region: RegionDescription): void {
  writeAddress(view, at, region.guestAddress);
  writeAddress(view, at + 8, region.sizeBytes);
  writeAddress(view, at + 16, region.userAddress);
  writeAddress(view, at + 24, region.mmapOffset);
}
