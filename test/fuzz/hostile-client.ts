import { Buffer } from 'node:buffer';
import type { Prng } from '../../src/base/prng.ts';
import {
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
  NBD_BASE_ALLOCATION,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_HEADER,
  NBD_OPT,
  writeRequest,
} from '../../src/protocols/nbd/wire.ts';

// Hostile bytes: valid conversations with wild values in the right places, and some of those mutated at random.

/** What the generator has to know of its victim. */
export interface Victim {
  readonly exportName: string;
  readonly sizeBytes: number;
  readonly blockBytes: number;
}

export type Form = 'simple' | 'structured' | 'extended';

const MAX_U64 = 0xffff_ffff_ffff_ffffn;
const KiB = 1024;

/** Everything one hostile client sends on one connection, from its flags on. */
export function hostileConversation(prng: Prng, victim: Victim): Buffer {
  const parts: Uint8Array[] = [clientFlags(prng)];
  const form = prng.pick<Form>(['simple', 'structured', 'extended']);
  const wild = prng.below(4);
  for (let i = 0; i < wild; i += 1) parts.push(wildOption(prng, victim));
  if (form === 'structured') parts.push(encodeOption(NBD_OPT.STRUCTURED_REPLY, new Uint8Array(0)));
  if (form === 'extended') parts.push(encodeOption(NBD_OPT.EXTENDED_HEADERS, new Uint8Array(0)));
  if (form !== 'simple' && prng.chance(0.7)) {
    const data = encodeMetaContextRequest(victim.exportName, [NBD_BASE_ALLOCATION]);
    parts.push(encodeOption(NBD_OPT.SET_META_CONTEXT, data));
  }
  if (prng.chance(0.92)) {
    parts.push(
      prng.chance(0.15)
        ? encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from(victim.exportName))
        : encodeOption(NBD_OPT.GO, encodeInfoRequest(victim.exportName, [3, 0, 1, 2])),
      hostileRequests(prng, victim, form),
    );
  }
  const bytes = Buffer.concat(parts);
  return prng.chance(0.35) ? mutate(prng, bytes) : bytes;
}

/** Requests of the transmission phase alone. */
export function hostileRequests(prng: Prng, victim: Victim, form: Form): Buffer {
  const parts: Uint8Array[] = [];
  const count = prng.below(prng.chance(0.05) ? 400 : 24);
  // Between conversations that are sane but for one thing, and such that are not sane at all.
  const wildness = prng.float() ** 2;
  for (let i = 0; i < count; i += 1) {
    const make = prng.chance(wildness) ? wildRequest : saneRequest;
    parts.push(make(prng, victim, form === 'extended', i));
  }
  return Buffer.concat(parts);
}

function clientFlags(prng: Prng): Buffer {
  const flags = prng.chance(0.9) ? 3 : prng.pick([0, 1, 2, 4, 0x80000003, prng.uint32()]);
  return u32(flags);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

/** Never the marker of poisoned memory, so that a reply which holds it has not got it from here. */
function noise(prng: Prng, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  if (length > 4096) {
    bytes.fill(1 + prng.below(100));
    return bytes;
  }
  prng.fill(bytes);
  for (let i = 0; i < length; i += 1) if (bytes[i] === 0xa5) bytes[i] = 0x5a;
  return bytes;
}

function wildName(prng: Prng, victim: Victim): Buffer {
  switch (prng.below(7)) {
    case 0:
      return Buffer.alloc(0);
    case 1:
      return Buffer.alloc(prng.pick([4095, 4096, 4097, 60_000]), 'n');
    case 2:
      return noise(prng, prng.below(40));
    case 3:
      return Buffer.from('with\0nul');
    case 4:
      return Buffer.from([0xc3, 0x28, 0xff]);
    default:
      return Buffer.from(victim.exportName);
  }
}

function wildLength(prng: Prng, real: number): number {
  if (prng.chance(0.7)) return real;
  const wild = [0, 1, real + 1, Math.max(0, real - 1), 65_535, 65_536, 2 ** 31, 2 ** 32 - 1];
  return prng.pick(wild);
}

function wildOptionData(prng: Prng, victim: Victim, option: number): Buffer {
  const name = wildName(prng, victim);
  const parts: Buffer[] = [];
  switch (option) {
    case NBD_OPT.INFO:
    case NBD_OPT.GO: {
      const count = prng.below(6);
      parts.push(u32(wildLength(prng, name.length)), name);
      parts.push(u32(wildLength(prng, count)).subarray(2));
      for (let i = 0; i < count; i += 1) parts.push(u32(prng.below(6)).subarray(2));
      break;
    }
    case NBD_OPT.LIST_META_CONTEXT:
    case NBD_OPT.SET_META_CONTEXT: {
      const count = prng.below(4);
      parts.push(u32(wildLength(prng, name.length)), name, u32(wildLength(prng, count)));
      for (let i = 0; i < count; i += 1) {
        const query = prng.chance(0.5) ? Buffer.from(NBD_BASE_ALLOCATION) : wildName(prng, victim);
        parts.push(u32(wildLength(prng, query.length)), query);
      }
      break;
    }
    case NBD_OPT.EXPORT_NAME:
      parts.push(name);
      break;
    default:
      if (prng.chance(0.3)) parts.push(noise(prng, prng.below(64)));
  }
  return Buffer.concat(parts);
}

function wildOption(prng: Prng, victim: Victim): Uint8Array {
  const option = prng.chance(0.9) ? prng.below(13) : prng.uint32();
  if (prng.chance(0.02)) {
    // Longer than what is looked at: to be skipped.
    return encodeOption(option, Buffer.alloc(prng.pick([65_536, 65_537, 70_000, 300_000])));
  }
  const encoded = encodeOption(option, wildOptionData(prng, victim, option));
  const length = encoded.length - NBD_HEADER.OPTION;
  if (prng.chance(0.1)) Buffer.from(encoded.buffer).writeUInt32BE(wildLength(prng, length), 12);
  return encoded;
}

function wildOffset(prng: Prng, size: number): bigint {
  const sectors = Math.floor(size / 512);
  switch (prng.below(12)) {
    case 0:
      return BigInt(size);
    case 1:
      return BigInt(size) - 512n;
    case 2:
      return MAX_U64 - BigInt(prng.below(1024));
    case 3:
      return 1n << BigInt(prng.below(64));
    case 4:
      return BigInt(prng.below(size));
    default:
      return BigInt(prng.below(sectors) * 512);
  }
}

function wildBytes(prng: Prng, size: number): number {
  switch (prng.below(16)) {
    case 0:
      return 0;
    case 1:
      return prng.below(2 * size);
    case 2:
      return prng.pick([256 * KiB - 1, 256 * KiB, 256 * KiB + 512, 1024 * KiB]);
    case 3:
      return prng.pick([2 ** 25, 2 ** 25 + 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32 - 512]);
    default:
      return (1 + prng.below(prng.chance(0.1) ? size / 512 : 24)) * 512;
  }
}

function saneRequest(prng: Prng, victim: Victim, extended: boolean, serial: number): Uint8Array {
  const { blockBytes, sizeBytes } = victim;
  const type = prng.pick([0, 0, 0, 1, 1, 3, 4, 5, 6, 7]);
  const blocks = sizeBytes / blockBytes;
  const first = prng.below(blocks);
  const most = Math.min(blocks - first, prng.chance(0.1) ? blocks : 16);
  const flush = type === NBD_CMD.FLUSH;
  const length = flush ? 0 : (1 + prng.below(most)) * blockBytes;
  let flags = (type === 1 || type === 4 || type === 6) && prng.chance(0.2) ? NBD_CMD_FLAG.FUA : 0;
  const isWrite = type === NBD_CMD.WRITE;
  if (extended && isWrite) flags |= NBD_CMD_FLAG.PAYLOAD_LEN;
  const header = Buffer.alloc(extended ? NBD_HEADER.EXTENDED_REQUEST : NBD_HEADER.REQUEST);
  const view = new DataView(header.buffer, header.byteOffset, header.length);
  const offset = flush ? 0 : first * blockBytes;
  writeRequest(view, extended, flags, type, prng.uint32(), serial, offset, length);
  return isWrite ? Buffer.concat([header, noise(prng, length)]) : header;
}

function wildRequest(prng: Prng, victim: Victim, extended: boolean, serial: number): Uint8Array {
  const type = prng.chance(0.96) ? prng.pick([0, 0, 0, 1, 1, 1, 3, 4, 5, 6, 7]) : prng.below(20);
  const known = prng.pick([0, 0, 0, 1, 2, 4, 8, 16, 18]);
  let flags = prng.chance(0.92) ? known : prng.below(0x10000);
  let length = wildBytes(prng, victim.sizeBytes);
  const offset = wildOffset(prng, victim.sizeBytes);
  const status = extended && type === NBD_CMD.BLOCK_STATUS && prng.chance(0.5);
  // Without extended headers a WRITE has its payload by its type; with them, by this flag.
  if (extended && (type === NBD_CMD.WRITE || status || prng.chance(0.02))) {
    if (!prng.chance(0.02)) flags |= NBD_CMD_FLAG.PAYLOAD_LEN;
  }
  const payload = extended ? (flags & NBD_CMD_FLAG.PAYLOAD_LEN) !== 0 : type === NBD_CMD.WRITE;
  let data: Buffer = Buffer.alloc(0);
  if (payload) {
    if (status) data = statusPayload(prng, victim);
    else if (length <= 2 ** 21 || (length <= 2 ** 25 && prng.chance(0.02))) {
      data = noise(prng, length);
    }
    if (status && prng.chance(0.95)) length = data.length;
    if (prng.chance(0.01)) data = data.subarray(0, prng.below(data.length + 1));
  }
  const header = Buffer.alloc(extended ? NBD_HEADER.EXTENDED_REQUEST : NBD_HEADER.REQUEST);
  const view = new DataView(header.buffer, header.byteOffset, header.length);
  writeRequest(view, extended, flags, type, prng.uint32(), serial, 0, length);
  view.setBigUint64(16, BigInt.asUintN(64, offset));
  if (extended && prng.chance(0.01)) view.setBigUint64(24, 1n << BigInt(prng.below(64)));
  if (prng.chance(0.003)) view.setUint32(0, prng.uint32());
  return Buffer.concat([header, data]);
}

function statusPayload(prng: Prng, victim: Victim): Buffer {
  const count = prng.pick([0, 1, 1, 1, 1, 2, 64, 65]);
  const bytes = Buffer.alloc(8 + 4 * count + (prng.chance(0.1) ? 2 : 0));
  bytes.writeBigUInt64BE(BigInt(wildBytes(prng, victim.sizeBytes)));
  for (let i = 0; i < count; i += 1) bytes.writeUInt32BE(prng.pick([1, 1, 1, 0, 2]), 8 + 4 * i);
  return bytes;
}

function mutate(prng: Prng, original: Buffer): Buffer {
  let bytes: Buffer = Buffer.from(original);
  const times = 1 + prng.below(4);
  for (let i = 0; i < times && bytes.length > 0; i += 1) {
    const at = prng.below(bytes.length);
    const to = Math.min(bytes.length, at + prng.below(64));
    const [before, range, after] = [
      bytes.subarray(0, at),
      bytes.subarray(at, to),
      bytes.subarray(to),
    ];
    switch (prng.below(6)) {
      case 0:
        bytes[at] = prng.below(256);
        break;
      case 1:
        bytes[at] = (bytes[at] as number) ^ (1 << prng.below(8));
        break;
      case 2:
        bytes = Buffer.concat([before, after]);
        break;
      case 3:
        bytes = Buffer.concat([before, range, range, after]);
        break;
      case 4:
        bytes = Buffer.concat([before, noise(prng, prng.below(40)), after]);
        break;
      default:
        bytes = Buffer.from(before);
    }
  }
  return bytes;
}
