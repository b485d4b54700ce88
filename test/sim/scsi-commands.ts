import { Buffer } from 'node:buffer';
import type { Prng } from '../../src/base/prng.ts';
import type { CommandOptions } from '../../src/protocols/iscsi/initiator/initiator.ts';
import { ANY_SECTOR, fillSector, SECTOR_BYTES } from './media.ts';
import type { ScsiOp, ScsiRole } from './scsi-op.ts';

// The commands of simulated initiators, byte by byte [SPC-4, SBC-4].

const FUA = 0x08;
const DPO = 0x10;
const IMMED = 0x02;
const UNMAP = 0x08;
const NDOB = 0x01;
const CACHING_PAGE = 0x08;
const CACHING_BYTES = 20;
const WCE = 0x04;

/** The CDB of a command of 10 or 16 bytes with an LBA and a number of blocks. */
function ranged(prng: Prng, short: number, long: number, op: ScsiOp, blocks: number): Buffer {
  const isShort = prng.chance(0.5);
  const cdb = Buffer.alloc(isShort ? 10 : 16);
  cdb[0] = isShort ? short : long;
  if (isShort) {
    cdb.writeUInt32BE(op.first, 2);
    cdb.writeUInt16BE(blocks, 7);
  } else {
    cdb.writeBigUInt64BE(BigInt(op.first), 2);
    cdb.writeUInt32BE(blocks, 10);
  }
  return cdb;
}

/** The payload of a write. */
function payload({ id, first, sectors }: ScsiOp): Buffer {
  const bytes = Buffer.alloc(sectors * SECTOR_BYTES);
  for (let i = 0; i < sectors; i += 1) fillSector(bytes, i * SECTOR_BYTES, id, first + i);
  return bytes;
}

/** What the initiator sends for it. `all`: sectors of the disk. */
export function commandOf(op: ScsiOp, prng: Prng, all: number): CommandOptions {
  const make: Readonly<Record<ScsiRole, () => CommandOptions>> = {
    blocks: () => blocks(op, prng, all),
    same: () => writeSame(op, prng),
    unmap: () => unmap(op, prng),
    compare: () => compareAndWrite(op),
    sense: () => modeSense(prng),
    select: () => modeSelect(op, prng),
  };
  return { ...make[op.role](), attribute: op.attribute };
}

/** READ, WRITE, SYNCHRONIZE CACHE. */
function blocks(op: ScsiOp, prng: Prng, all: number): CommandOptions {
  const byte1 = (op.fua ? FUA : 0) | (prng.chance(0.2) ? DPO : 0);
  if (op.kind === 'read') {
    const cdb = ranged(prng, 0x28, 0x88, op, op.sectors);
    cdb[1] = byte1;
    return { cdb, read: op.sectors * SECTOR_BYTES };
  }
  if (op.kind === 'write') {
    const cdb = ranged(prng, 0x2a, 0x8a, op, op.sectors);
    cdb[1] = byte1;
    return { cdb, write: payload(op) };
  }
  // [SBC-4 5.33] 0 blocks: to the last one.
  const toEnd = op.first + op.sectors === all && prng.chance(0.5);
  const cdb = ranged(prng, 0x35, 0x91, op, op.ranged && !toEnd ? op.sectors : 0);
  cdb[1] = op.immediate ? IMMED : 0;
  return { cdb };
}

function writeSame(op: ScsiOp, prng: Prng): CommandOptions {
  const cdb = ranged(prng, 0x41, 0x93, op, op.sectors);
  const block = Buffer.alloc(SECTOR_BYTES);
  if (op.kind === 'write') {
    fillSector(block, 0, op.id, op.sectors === 1 ? op.first : ANY_SECTOR);
    return { cdb, write: block };
  }
  // LBPWS, not LBPWS10: UNMAP is for (16) alone.
  if (cdb.length === 16 && prng.chance(0.5)) cdb[1] = UNMAP;
  if (cdb.length === 16 && prng.chance(0.5)) {
    cdb[1] = (cdb[1] as number) | NDOB;
    return { cdb };
  }
  return { cdb, write: block };
}

function unmap(op: ScsiOp, prng: Prng): CommandOptions {
  const cuts: [number, number][] = [];
  for (let at = op.first, end = op.first + op.sectors; at < end;) {
    const count = prng.chance(0.5) ? end - at : 1 + prng.below(end - at);
    if (prng.chance(0.5)) cuts.push([at, count]);
    else cuts.unshift([at, count]);
    at += count;
  }
  const list = Buffer.alloc(8 + 16 * cuts.length);
  list.writeUInt16BE(list.length - 2, 0);
  list.writeUInt16BE(16 * cuts.length, 2);
  for (const [i, [first, count]] of cuts.entries()) {
    list.writeBigUInt64BE(BigInt(first), 8 + 16 * i);
    list.writeUInt32BE(count, 16 + 16 * i);
  }
  const cdb = Buffer.alloc(10);
  cdb[0] = 0x42;
  cdb.writeUInt16BE(list.length, 7);
  return { cdb, write: list };
}

function compareAndWrite(op: ScsiOp): CommandOptions {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x89;
  cdb[1] = op.fua ? FUA : 0;
  cdb.writeBigUInt64BE(BigInt(op.first), 2);
  cdb[13] = op.sectors;
  const there = Buffer.alloc(op.sectors * SECTOR_BYTES);
  for (const [i, id] of op.expected.entries()) {
    if (id !== 0) fillSector(there, i * SECTOR_BYTES, id, op.first + i);
  }
  return { cdb, write: Buffer.concat([there, payload(op)]) };
}

function modeSense(prng: Prng): CommandOptions {
  const ten = prng.chance(0.5);
  const cdb = Buffer.alloc(ten ? 10 : 6);
  cdb[0] = ten ? 0x5a : 0x1a;
  // DBD: the page follows the header.
  cdb[1] = 0x08;
  cdb[2] = CACHING_PAGE;
  const length = (ten ? 8 : 4) + CACHING_BYTES;
  cdb[ten ? 8 : 4] = length;
  return { cdb, read: length };
}

/** WCE in what MODE SENSE has returned. */
export function writeCacheOf(data: Uint8Array): boolean {
  return ((data[data.length - CACHING_BYTES + 2] as number) & WCE) !== 0;
}

function modeSelect(op: ScsiOp, prng: Prng): CommandOptions {
  const ten = prng.chance(0.5);
  const header = ten ? 8 : 4;
  const list = Buffer.alloc(header + CACHING_BYTES);
  list[header] = CACHING_PAGE;
  list[header + 1] = CACHING_BYTES - 2;
  list[header + 2] = op.on ? WCE : 0;
  const cdb = Buffer.alloc(ten ? 10 : 6);
  cdb[0] = ten ? 0x55 : 0x15;
  cdb[1] = 0x10;
  cdb[ten ? 8 : 4] = list.length;
  return { cdb, write: list };
}
