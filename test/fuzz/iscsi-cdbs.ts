import { Buffer } from 'node:buffer';
import type { Prng } from '../../src/base/prng.ts';
import { allCommands } from '../../src/protocols/scsi/registry.ts';
import type { Ledger } from './iscsi-ledger.ts';

// Commands of hostile initiators: well-formed ones, all that the registry knows with wild fields, and noise.

/** A CDB with what goes with it. */
export interface Attack {
  readonly cdb: Buffer;
  /** How much Data-Out or Data-In it announces. */
  readonly bytes: number;
  readonly direction: 'in' | 'out' | 'none';
  /** Its Data-Out, where that is not just data. */
  readonly params: Buffer | null;
}

const COMMANDS = allCommands();
const TABLE = COMMANDS.map(({ opcode, serviceAction, cdbBytes, usage }) => ({
  opcode,
  serviceAction,
  cdbBytes,
  usage,
}));

/** What sane initiators send. No more of a command than this many blocks. */
const MOST_BLOCKS = 48;

export function saneAttack(prng: Prng, ledger: Ledger): Attack {
  const all = ledger.sizeBytes / ledger.blockBytes;
  const blocks = 1 + prng.below(Math.min(all - 1, prng.chance(0.1) ? MOST_BLOCKS : 6));
  const lba = prng.below(all - blocks + 1);
  const bytes = blocks * ledger.blockBytes;
  switch (prng.below(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return { cdb: range16(0x88, lba, blocks), bytes, direction: 'in', params: null };
    case 4:
      return { cdb: range10(0x28, lba, blocks), bytes, direction: 'in', params: null };
    case 5:
    case 6:
    case 7:
    case 8:
      return { cdb: range16(0x8a, lba, blocks), bytes, direction: 'out', params: null };
    case 9: {
      const op = prng.pick([0x2a, 0x2e]);
      return { cdb: range10(op, lba, blocks), bytes, direction: 'out', params: null };
    }
    case 10:
      return compareAndWrite(prng, ledger, lba, 1 + (blocks % 4));
    case 11: {
      const one = ledger.blockBytes;
      return { cdb: range16(0x93, lba, blocks), bytes: one, direction: 'out', params: null };
    }
    case 12: {
      const params = unmapList(prng, ledger);
      return { cdb: listed(0x42, params.length), bytes: params.length, direction: 'out', params };
    }
    case 13:
      return { cdb: range10(0x35, 0, 0), bytes: 0, direction: 'none', params: null };
    case 14:
      return {
        cdb: Buffer.from([0x12, 0, 0, 0, 255, 0]),
        bytes: 255,
        direction: 'in',
        params: null,
      };
    default:
      return { cdb: Buffer.alloc(6), bytes: 0, direction: 'none', params: null };
  }
}

/** One of all the commands, with random bits in its fields, few or many of them wrong. */
export function wildAttack(prng: Prng, ledger: Ledger): Attack {
  const { opcode, serviceAction, cdbBytes, usage } = prng.pick(TABLE);
  const cdb = Buffer.alloc(16);
  const noisy = prng.chance(0.1);
  for (let i = 1; i < cdbBytes; i += 1) {
    const bits = noisy ? 0xff : (usage[i] as number);
    cdb[i] = prng.chance(0.7) ? 0 : prng.below(256) & bits;
  }
  cdb[0] = opcode;
  if (serviceAction !== undefined) cdb[1] = ((cdb[1] as number) & 0xe0) | serviceAction;
  // Mostly no NACA, which nothing gets past.
  if (!prng.chance(0.05)) cdb[cdbBytes - 1] = 0;
  smallRange(prng, ledger, cdb, cdbBytes);
  const params = parameterList(prng, ledger, opcode, serviceAction ?? 0);
  if (params !== null && !prng.chance(0.1)) setListLength(cdb, opcode, cdbBytes, params.length);
  const direction = prng.chance(0.1) ? prng.pick(['in', 'out', 'none'] as const) : wayOf(opcode);
  const wild = prng.pick([0, 1, 511, 512, 513, 4096, 65_536, 262_144, 2 ** 24, 2 ** 32 - 1]);
  const fit = params?.length ?? ledger.blockBytes * (1 + prng.below(8));
  return { cdb, bytes: prng.chance(0.2) ? wild : fit, direction, params };
}

/** Nothing that anybody knows. */
export function noiseAttack(prng: Prng): Attack {
  const cdb = Buffer.alloc(16);
  for (let i = 0; i < 16; i += 1) cdb[i] = prng.below(256);
  const direction = prng.pick(['in', 'out', 'none'] as const);
  return { cdb, bytes: prng.pick([0, 1, 24, 512, 8192]), direction, params: noise(prng, 64) };
}

function smallRange(prng: Prng, ledger: Ledger, cdb: Buffer, cdbBytes: number): void {
  if (!prng.chance(0.7)) return;
  const all = ledger.sizeBytes / ledger.blockBytes;
  const near = prng.chance(0.1) ? all - 2 + prng.below(4) : prng.below(all);
  if (cdbBytes === 10 || cdbBytes === 12) cdb.writeUInt32BE(near, 2);
  if (cdbBytes === 10) cdb.writeUInt16BE(prng.below(8), 7);
  if (cdbBytes === 12) cdb.writeUInt32BE(prng.below(8), 6);
  if (cdbBytes !== 16) return;
  cdb.writeBigUInt64BE(BigInt(near), 2);
  if (cdb[0] !== 0x9c) cdb.writeUInt32BE(prng.below(8), 10);
}

function wayOf(opcode: number): Attack['direction'] {
  const out = [
    0x0a, 0x15, 0x2a, 0x2e, 0x2f, 0x41, 0x42, 0x48, 0x55, 0x5f, 0x83, 0x89, 0x8a, 0x8b, 0x8e, 0x8f,
    0x93, 0x9c, 0xaa, 0xae, 0xaf,
  ];
  return out.includes(opcode) ? 'out' : 'in';
}

function setListLength(cdb: Buffer, opcode: number, cdbBytes: number, bytes: number): void {
  if (opcode === 0x83) cdb.writeUInt32BE(bytes, 10);
  else if (opcode === 0x5f) cdb.writeUInt32BE(bytes, 5);
  else if (cdbBytes === 6) cdb[4] = bytes & 0xff;
  else if (cdbBytes === 10) cdb.writeUInt16BE(bytes, 7);
}

function parameterList(prng: Prng, ledger: Ledger, opcode: number, action: number): Buffer | null {
  const list = wellFormedList(prng, ledger, opcode, action);
  if (list === null) return null;
  const changes = prng.chance(0.5) ? 0 : 1 + prng.below(4);
  for (let i = 0; i < changes && list.length > 0; i += 1) {
    list[prng.below(list.length)] = prng.below(256);
  }
  return prng.chance(0.1) ? list.subarray(0, prng.below(list.length + 1)) : list;
}

function wellFormedList(prng: Prng, ledger: Ledger, opcode: number, action: number): Buffer | null {
  switch (opcode) {
    case 0x15:
    case 0x55:
      return modeList(prng, opcode === 0x15 ? 4 : 8);
    case 0x42:
      return unmapList(prng, ledger);
    case 0x5f:
      return reservationList(prng, action);
    case 0x83:
      return copyList(prng, ledger);
    case 0x48:
      return action === 1 ? Buffer.from([prng.below(32), 0, 0, 4, 0x6b, 0, 0, 0]) : Buffer.alloc(0);
    default:
      return null;
  }
}

function modeList(prng: Prng, head: number): Buffer {
  const caching = Buffer.alloc(20);
  caching.set([0x08, 0x12, prng.chance(0.5) ? 4 : 0]);
  const control = Buffer.alloc(12);
  control.set([0x0a, 0x0a, prng.below(8), prng.below(32), prng.chance(0.1) ? 8 : 0]);
  return Buffer.concat([Buffer.alloc(head), prng.pick([caching, control])]);
}

function unmapList(prng: Prng, ledger: Ledger): Buffer {
  const all = ledger.sizeBytes / ledger.blockBytes;
  const count = prng.below(4);
  const list = Buffer.alloc(8 + 16 * count);
  list.writeUInt16BE(6 + 16 * count, 0);
  list.writeUInt16BE(16 * count, 2);
  for (let i = 0; i < count; i += 1) {
    const blocks = prng.below(16);
    list.writeBigUInt64BE(BigInt(prng.below(all - blocks)), 8 + 16 * i);
    list.writeUInt32BE(blocks, 16 + 16 * i);
  }
  return list;
}

function reservationList(prng: Prng, action: number): Buffer {
  const key = (): bigint => BigInt(prng.below(3));
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(key(), 0);
  list.writeBigUInt64BE(key(), 8);
  list[20] = prng.chance(0.2) ? 1 << prng.below(4) : 0;
  if (action !== 7 && !prng.chance(0.1)) return list;
  const name = Buffer.from('iqn.2026-11.fuzz:a,i,0x000000000001\0');
  const transport = Buffer.alloc(4 + ((name.length + 3) & ~3));
  transport[0] = 0x45;
  transport.writeUInt16BE(transport.length - 4, 2);
  name.copy(transport, 4);
  list.writeUInt32BE(transport.length, 20);
  return Buffer.concat([list, transport]);
}

function copyList(prng: Prng, ledger: Ledger): Buffer {
  const all = ledger.sizeBytes / ledger.blockBytes;
  const target = Buffer.alloc(32);
  // The unit itself, by its NAA designator.
  target.set([0xe4, 0, 0, 0, 1, 3, 0, 8, 0x30, 1, 2, 3, 4, 5, 6, 7]);
  target.writeUIntBE(ledger.blockBytes, 29, 3);
  const count = prng.below(3);
  const segments = Buffer.alloc(28 * count);
  for (let i = 0; i < count; i += 1) {
    const segment = segments.subarray(28 * i);
    segment.set([0x02, 0, 0, 0x18]);
    segment.writeUInt16BE(1 + prng.below(8), 10);
    segment.writeBigUInt64BE(BigInt(prng.below(all - 8)), 12);
    segment.writeBigUInt64BE(BigInt(prng.below(all - 8)), 20);
  }
  const head = Buffer.alloc(16);
  head[0] = prng.below(4);
  head.writeUInt16BE(32, 2);
  head.writeUInt32BE(segments.length, 8);
  return Buffer.concat([head, target, segments]);
}

/** With what the disk holds to compare, as a rule. */
function compareAndWrite(prng: Prng, ledger: Ledger, near: number, blocks: number): Attack {
  const { blockBytes, shadow, sizeBytes } = ledger;
  const lba = Math.min(near, sizeBytes / blockBytes - blocks);
  const cdb = range16(0x89, lba, 0);
  cdb[13] = blocks;
  const bytes = blocks * blockBytes;
  const same = Buffer.from(shadow.subarray(lba * blockBytes, lba * blockBytes + bytes));
  if (prng.chance(0.2) || same.length === 0) {
    return { cdb, bytes: 2 * bytes, direction: 'out', params: null };
  }
  const params = Buffer.concat([same, same]);
  return { cdb, bytes: params.length, direction: 'out', params };
}

export function noise(prng: Prng, bytes: number): Buffer {
  const data = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; i += 1) data[i] = prng.below(0xa5);
  return data;
}

function range16(opcode: number, lba: number, blocks: number): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = opcode;
  cdb.writeBigUInt64BE(BigInt(lba), 2);
  cdb.writeUInt32BE(blocks, 10);
  return cdb;
}

function range10(opcode: number, lba: number, blocks: number): Buffer {
  const cdb = Buffer.alloc(10);
  cdb[0] = opcode;
  cdb.writeUInt32BE(lba, 2);
  cdb.writeUInt16BE(blocks, 7);
  return cdb;
}

function listed(opcode: number, bytes: number): Buffer {
  const cdb = Buffer.alloc(10);
  cdb[0] = opcode;
  cdb.writeUInt16BE(bytes, 7);
  return cdb;
}
