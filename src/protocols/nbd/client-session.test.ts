import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { ANY_ERRORS, ReferenceServer } from '../../../test/support/nbd-reference-server.ts';
import { Prng } from '../../base/prng.ts';
import { checkIo } from '../../block/check.ts';
import type { DeviceInfo } from '../../block/device.ts';
import { conformance } from '../../block/conformance.ts';
import type { BlockDevice } from '../../block/device.ts';
import { FLAG, Io, OP, type Op } from '../../block/io.ts';
import { MAX_EXTENTS } from '../../block/limits.ts';
import { Region } from '../../block/memory.ts';
import type { NegotiatedExport } from './client-handshake.ts';
import { ClientSession } from './client-session.ts';
import { codeOfNbdError, NBD_CMD, NBD_CMD_FLAG, NBD_ERROR, NBD_FLAG } from './wire.ts';

const ALL_FLAGS =
  NBD_FLAG.HAS_FLAGS |
  NBD_FLAG.SEND_FLUSH |
  NBD_FLAG.SEND_FUA |
  NBD_FLAG.SEND_TRIM |
  NBD_FLAG.SEND_WRITE_ZEROES |
  NBD_FLAG.SEND_FAST_ZERO |
  NBD_FLAG.SEND_CACHE;

type Style = 'simple' | 'structured' | 'extended';

function negotiate(style: Style, flags = ALL_FLAGS, sizeBytes = 262144): NegotiatedExport {
  return {
    sizeBytes,
    transmissionFlags: flags,
    canonicalName: null,
    description: null,
    blockSizes: null,
    structured: style === 'structured',
    extended: style === 'extended',
    baseAllocationId: style === 'simple' ? null : 7,
    tls: false,
    entered: 'go',
  };
}

function infoOf(negotiated: NegotiatedExport): DeviceInfo {
  const has = (flag: number): boolean => (negotiated.transmissionFlags & flag) !== 0;
  return Object.freeze({
    name: 'reference',
    sizeBytes: negotiated.sizeBytes,
    blockBytes: 512,
    preferredBytes: 4096,
    maxTransferBytes: 65536,
    readOnly: false,
    writeCache: has(NBD_FLAG.SEND_FLUSH),
    ignoresFlush: false,
    fua: has(NBD_FLAG.SEND_FUA) ? 'native' : 'emulated',
    discard: has(NBD_FLAG.SEND_TRIM),
    fastZero: has(NBD_FLAG.SEND_FAST_ZERO),
    extents: negotiated.baseAllocationId !== null,
    rotational: false,
    memoryAlignment: 1,
  });
}

/** A session and the reference server, joined in memory; bytes travel in random pieces. */
class Pair {
  readonly server: ReferenceServer;
  readonly session: ClientSession;
  readonly info: DeviceInfo;
  readonly random: Prng;
  wakes = 0;
  broken: string | null = null;

  constructor(style: Style, seed = 1, flags = ALL_FLAGS, sizeBytes = 262144) {
    const negotiated = negotiate(style, flags, sizeBytes);
    this.random = new Prng(seed);
    this.info = infoOf(negotiated);
    this.server = new ReferenceServer(negotiated, this.random);
    this.session = new ClientSession(negotiated, this.info, {
      wake: () => (this.wakes += 1),
      broken: (reason) => (this.broken = reason),
    });
  }

  /** Makes and submits an Io; READ and WRITE get memory in two segments. */
  submit(op: Op, offset = 0, length = 0, flags = 0, data?: Uint8Array): Io {
    const io = new Io();
    io.reset(op, offset, length, flags);
    if ((op === OP.READ || op === OP.WRITE) && length > 0) {
      const region = Region.plain(Uint8Array.from(data ?? new Uint8Array(length).fill(0xee)));
      const cut = Math.floor(length / 3);
      if (cut > 0) io.segments.push(region, 0, cut);
      io.segments.push(Region.plain(region.bytes.subarray(cut)), 0, length - cut);
    }
    assert.equal(checkIo(io, this.info), null);
    io.push({ ioDone: () => undefined });
    this.session.submit(io);
    return io;
  }

  /** Moves what the client has to say. */
  send(): void {
    for (;;) {
      const page = new Uint8Array(1 + this.random.below(5000));
      const length = this.session.fill(page);
      if (length === 0) return;
      this.server.receive(page.subarray(0, length));
    }
  }

  toClient(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const length = this.random.chance(0.2) ? 1 : 1 + this.random.below(3000);
      this.session.receive(bytes.subarray(at, at + length));
      at += length;
    }
  }

  /** Runs until both sides rest. */
  run(): void {
    for (;;) {
      this.send();
      const answer = this.server.answer();
      if (answer === null) return;
      this.toClient(answer);
    }
  }

  did(op: Op, offset = 0, length = 0, flags = 0, data?: Uint8Array): Io {
    const io = this.submit(op, offset, length, flags, data);
    this.run();
    assert.equal(this.broken, null);
    assert.ok(!io.inFlight);
    return io;
  }

  get commands(): string[] {
    return this.server.seen.map(({ command, flags }) => {
      const name = Object.entries(NBD_CMD).find(([, value]) => value === command)?.[0];
      return `${name}${(flags & NBD_CMD_FLAG.FUA) === 0 ? '' : '+FUA'}`;
    });
  }
}

function bytesOf(io: Io): Buffer {
  const bytes = Buffer.alloc(io.segments.totalBytes);
  io.segments.copyTo(bytes);
  return bytes;
}

const STYLES: readonly Style[] = ['simple', 'structured', 'extended'];

/** The session as a device for the conformance suite: it moves when asked, on Node's event loop. */
function deviceOf(pair: Pair): BlockDevice {
  let scheduled = false;
  const pump = (): void => {
    scheduled = false;
    pair.send();
    const answer = pair.server.answer();
    if (answer !== null) pair.toClient(answer);
    assert.equal(pair.broken, null);
    if (pair.session.pending > 0) schedule();
  };
  const schedule = (): void => {
    if (!scheduled) setImmediate(pump);
    scheduled = true;
  };
  return {
    info: pair.info,
    submit(io) {
      pair.session.submit(io);
      schedule();
    },
    async close() {
      pair.session.disconnect();
      while (!pair.session.disconnected) {
        schedule();
        await new Promise(setImmediate);
      }
    },
  };
}

for (const style of STYLES) {
  conformance(
    `NBD client session with ${style} replies`,
    async () => {
      const pair = new Pair(style, 42);
      return {
        device: deviceOf(pair),
        failNextSync: () => {
          let failed = false;
          pair.server.fail = ({ command, flags }) => {
            const syncs = command === NBD_CMD.FLUSH || (flags & NBD_CMD_FLAG.FUA) !== 0;
            if (!syncs || failed) return null;
            failed = true;
            return NBD_ERROR.EIO;
          };
        },
      };
    },
    { canFailSync: true, steps: 120 },
  );
}

conformance('NBD client session of a server that can do nothing more than it must', async () => ({
  device: deviceOf(new Pair('simple', 43, NBD_FLAG.HAS_FLAGS)),
}));

for (const style of STYLES) {
  test(`random requests and chunks with ${style} replies leave what a plain disk has`, () => {
    const step = fc.record({
      op: fc.constantFrom(OP.READ, OP.WRITE, OP.DISCARD, OP.WRITE_ZEROES, OP.EXTENTS, OP.FLUSH),
      block: fc.nat(500),
      blocks: fc.integer({ min: 1, max: 12 }),
      flags: fc.constantFrom(0, 0, FLAG.FUA, FLAG.BARRIER),
      fill: fc.constantFrom(0, 0, 5, 200),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.nat(), (steps, seed) => {
        const pair = new Pair(style, seed);
        const model = Buffer.alloc(pair.info.sizeBytes);
        for (const { op, block, blocks, flags, fill } of steps) {
          const [offset, length] = op === OP.FLUSH ? [0, 0] : [block * 512, blocks * 512];
          const mutates = op === OP.WRITE || op === OP.DISCARD || op === OP.WRITE_ZEROES;
          const data = new Uint8Array(length).fill(fill);
          const io = pair.did(op, offset, length, mutates ? flags : 0, data);
          assert.equal(io.error, null);
          if (op === OP.WRITE) model.fill(fill, offset, offset + length);
          else if (mutates) model.fill(0, offset, offset + length);
          const expected = model.subarray(offset, offset + length);
          if (op === OP.READ) assert.ok(bytesOf(io).equals(expected));
          if (op === OP.EXTENTS) checkExtents(io, model);
        }
        assert.ok(pair.server.disk.equals(model));
      }),
      { numRuns: 60 },
    );
  });
}

function checkExtents(io: Io, model: Buffer): void {
  let at = io.offset;
  for (let i = 0; i < io.extents.count; i += 1) {
    const end = at + (io.extents.lengths[i] as number);
    if (io.extents.flags[i] === 3) assert.ok(model.subarray(at, end).every((byte) => byte === 0));
    at = end;
  }
  assert.ok(at > io.offset && at <= io.offset + io.length);
}

test('requests travel pipelined, and complete in the order of their replies', () => {
  const pair = new Pair('structured', 9);
  const done: number[] = [];
  for (let i = 0; i < 300; i += 1) {
    const io = new Io();
    io.reset(OP.READ, i * 512, 512, 0);
    io.segments.push(Region.plain(512), 0, 512);
    io.push({ ioDone: () => done.push(i) });
    pair.session.submit(io);
  }
  pair.send();
  assert.ok(pair.server.waiting.length >= 64, 'one at a time');
  assert.ok(pair.server.waiting.length < 300, 'all at once');
  pair.run();
  assert.deepEqual(
    done.toSorted((a, b) => a - b),
    Array.from({ length: 300 }, (_, i) => i),
  );
  assert.notDeepEqual(
    done,
    done.toSorted((a, b) => a - b),
  );
});

test('every error value becomes a code', () => {
  for (const style of STYLES) {
    for (const error of ANY_ERRORS) {
      const pair = new Pair(style, error);
      pair.server.fail = () => error;
      assert.equal(pair.did(OP.READ, 0, 512).error, codeOfNbdError(error));
    }
  }
});

test('FUA is the request’s own where the server knows it, and a flush after it where not', () => {
  const native = new Pair('structured');
  native.did(OP.WRITE, 0, 512, FLAG.FUA);
  native.did(OP.WRITE_ZEROES, 0, 512, FLAG.FUA);
  native.did(OP.DISCARD, 0, 512, FLAG.FUA);
  assert.deepEqual(native.commands, ['WRITE+FUA', 'WRITE_ZEROES+FUA', 'TRIM+FUA']);
  const emulated = new Pair('structured', 1, ALL_FLAGS & ~NBD_FLAG.SEND_FUA);
  emulated.did(OP.WRITE, 0, 512, FLAG.FUA);
  emulated.did(OP.READ, 0, 512, FLAG.FUA);
  assert.deepEqual(emulated.commands, ['WRITE', 'FLUSH', 'READ']);
  const cacheless = new Pair('structured', 1, NBD_FLAG.HAS_FLAGS);
  cacheless.did(OP.WRITE, 0, 512, FLAG.FUA);
  assert.equal(cacheless.did(OP.FLUSH).error, null);
  assert.deepEqual(cacheless.commands, ['WRITE']);
});

test('a barrier drains, flushes, writes stably, and nothing passes it', () => {
  const pair = new Pair('structured', 5);
  pair.submit(OP.WRITE, 0, 512);
  pair.submit(OP.WRITE, 512, 512, FLAG.BARRIER);
  pair.submit(OP.WRITE, 1024, 512);
  pair.send();
  assert.deepEqual(pair.commands, ['WRITE']);
  pair.run();
  assert.deepEqual(pair.commands, ['WRITE', 'FLUSH', 'WRITE+FUA', 'WRITE']);
  const emulated = new Pair('simple', 5, NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH);
  emulated.submit(OP.WRITE, 0, 512, FLAG.BARRIER);
  emulated.submit(OP.WRITE, 512, 512);
  emulated.run();
  assert.deepEqual(emulated.commands, ['FLUSH', 'WRITE', 'FLUSH', 'WRITE']);
});

test('long requests go in pieces', () => {
  // No disk of that size is made: the requests are answered without one.
  const negotiated = negotiate('structured', ALL_FLAGS, 2 ** 36);
  const sent: { command: number; offset: number; length: number }[] = [];
  const session = new ClientSession(negotiated, infoOf(negotiated), {
    wake: () => undefined,
    broken: (reason) => assert.fail(reason),
  });
  const io = new Io();
  io.reset(OP.WRITE_ZEROES, 4096, 5 * 2 ** 30, 0);
  io.push({ ioDone: () => undefined });
  session.submit(io);
  const page = new Uint8Array(4096);
  while (io.inFlight) {
    const request = Buffer.from(page.subarray(0, session.fill(page)));
    assert.equal(request.length, 28);
    sent.push({
      command: request.readUInt16BE(6),
      offset: Number(request.readBigUInt64BE(16)),
      length: request.readUInt32BE(24),
    });
    session.receive(
      Buffer.concat([Buffer.from('6744669800000000', 'hex'), request.subarray(8, 16)]),
    );
  }
  assert.equal(
    sent.reduce((sum, { length }) => sum + length, 0),
    5 * 2 ** 30,
  );
  let at = 4096;
  for (const { command, offset, length } of sent) {
    assert.deepEqual([command, offset], [NBD_CMD.WRITE_ZEROES, at]);
    at += length;
  }
});

test('WRITE_ZEROES without the command is zeroes written, and never fast', () => {
  const pair = new Pair('simple', 2, NBD_FLAG.HAS_FLAGS);
  pair.did(OP.WRITE, 0, 65536, 0, new Uint8Array(65536).fill(9));
  assert.equal(pair.did(OP.WRITE_ZEROES, 512, 65024).error, null);
  assert.equal(pair.server.disk.indexOf(0), 512);
  assert.equal(
    pair.server.disk.subarray(512).some((byte) => byte !== 0),
    false,
  );
  assert.equal(pair.did(OP.WRITE_ZEROES, 0, 512, FLAG.FAST).error, 'EOPNOTSUPP');
  assert.equal(pair.did(OP.DISCARD, 0, 512).error, null);
  assert.equal(pair.server.disk[0], 9);
});

test('without base:allocation all is data', () => {
  const pair = new Pair('simple');
  const io = pair.did(OP.EXTENTS, 0, 262144);
  assert.deepEqual([io.extents.count, io.extents.lengths[0], io.extents.flags[0]], [1, 262144, 0]);
});

test('a failed flush stays failed and is not asked for again', () => {
  const pair = new Pair('structured', 3);
  let flushes = 0;
  pair.server.fail = ({ command }) => {
    if (command !== NBD_CMD.FLUSH) return null;
    flushes += 1;
    return flushes === 1 ? NBD_ERROR.EIO : null;
  };
  assert.equal(pair.did(OP.FLUSH).error, 'EIO');
  assert.equal(pair.did(OP.FLUSH).error, 'EIO');
  assert.equal(pair.did(OP.WRITE, 0, 512, FLAG.FUA).error, 'EIO');
  assert.equal(pair.did(OP.WRITE, 0, 512).error, null);
  assert.equal(flushes, 1);
});

test('NBD_ESHUTDOWN is answered with a soft disconnect', () => {
  const pair = new Pair('structured', 3);
  pair.server.fail = () => NBD_ERROR.ESHUTDOWN;
  assert.equal(pair.did(OP.READ, 0, 512).error, 'ESHUTDOWN');
  assert.ok(pair.server.disconnected);
  assert.equal(pair.did(OP.READ, 0, 512).error, 'ESHUTDOWN');
});

test('disconnect waits for what is pending, then says goodbye once', () => {
  const pair = new Pair('structured', 3);
  const ios = Array.from({ length: 200 }, (_, i) => pair.submit(OP.WRITE, i * 512, 512));
  pair.session.disconnect();
  assert.equal(pair.submit(OP.READ, 0, 512).error, 'ESHUTDOWN');
  pair.run();
  pair.session.disconnect();
  pair.run();
  for (const io of ios) assert.equal(io.error, null);
  assert.equal(pair.commands.filter((command) => command === 'DISC').length, 1);
  assert.equal(pair.commands.at(-1), 'DISC');
});

test('a lost connection fails everything, now and later', () => {
  const pair = new Pair('structured', 3);
  const ios = Array.from({ length: 200 }, (_, i) => pair.submit(OP.READ, i * 512, 512));
  pair.send();
  pair.session.fail();
  pair.session.fail();
  for (const io of ios) assert.equal(io.error, 'EIO');
  assert.equal(pair.submit(OP.READ, 0, 512).error, 'EIO');
  assert.equal(pair.session.pending, 0);
  assert.equal(pair.session.fill(new Uint8Array(100)), 0);
  assert.ok(pair.session.disconnected);
});

test('an answer that comes before all of a write is sent keeps its memory until then', () => {
  const pair = new Pair('simple', 1);
  const io = pair.submit(OP.WRITE, 0, 4096, 0, new Uint8Array(4096).fill(3));
  const page = new Uint8Array(28 + 100);
  assert.equal(pair.session.fill(page), 128);
  const cookie = page.subarray(8, 16);
  pair.session.receive(Buffer.concat([Buffer.from('674466980000001c', 'hex'), cookie]));
  assert.ok(io.inFlight);
  const rest = new Uint8Array(8192);
  assert.equal(pair.session.fill(rest), 3996);
  assert.ok(rest.subarray(0, 3996).every((byte) => byte === 3));
  assert.equal(io.error, 'ENOSPC');
});

// Servers that break the protocol. `COOKIE` stands for the cookie of the read of 1024 bytes at 512.

const HOSTILE: readonly (readonly [string, Style, string, RegExp])[] = [
  ['noise', 'simple', '48545450', /starts with 0x48545450/],
  ['a structured reply that was not negotiated', 'simple', '668e33ef', /starts with/],
  ['a simple reply with extended headers', 'extended', '67446698', /starts with/],
  ['a cookie of nobody', 'simple', '6744669800000000 0000000000000099', /nothing that was asked/],
  ['a stale cookie', 'simple', '6744669800000000 ffffffff00000000', /nothing that was asked/],
  ['a simple reply to a read', 'structured', '6744669800000000 COOKIE', /structured read/],
  [
    'success without data',
    'structured',
    '668e33ef00010000 COOKIE 00000000',
    /without all its data/,
  ],
  [
    'NONE that is not the last',
    'structured',
    '668e33ef00000000 COOKIE 00000000',
    /chunk of type 0/,
  ],
  ['NONE with a payload', 'structured', '668e33ef00010000 COOKIE 00000001', /chunk of type 0/],
  ['data of no bytes', 'structured', '668e33ef00010001 COOKIE 00000008', /chunk of type 1/],
  [
    'data before the range',
    'structured',
    '668e33ef00010001 COOKIE 00000009 00000000000001ff',
    /outside the request/,
  ],
  [
    'data beyond the range',
    'structured',
    '668e33ef00010001 COOKIE 00000408 0000000000000201',
    /outside the request/,
  ],
  [
    'data at 2^64 - 1',
    'structured',
    '668e33ef00010001 COOKIE 00000009 ffffffffffffffff',
    /outside the request/,
  ],
  [
    'data twice',
    'structured',
    '668e33ef00000002 COOKIE 0000000c 0000000000000200 00000400 668e33ef00000002 COOKIE 0000000c 0000000000000300 00000001',
    /twice/,
  ],
  [
    'a hole of no bytes',
    'structured',
    '668e33ef00000002 COOKIE 0000000c 0000000000000200 00000000',
    /outside the request/,
  ],
  [
    'a hole of the wrong length',
    'structured',
    '668e33ef00000002 COOKIE 0000000d',
    /chunk of type 2/,
  ],
  ['an unknown chunk', 'structured', '668e33ef00000063 COOKIE 00000004', /chunk of type 99/],
  [
    'a status for a read',
    'structured',
    '668e33ef00010005 COOKIE 0000000c 00000007 00000200 00000000',
    /not asked for/,
  ],
  ['a status of 64 bits', 'structured', '668e33ef00010006 COOKIE 00000018', /chunk of type 6/],
  ['an endless error', 'structured', '668e33ef00018001 COOKIE 00100000', /chunk of type 32769/],
  [
    'an error of no error',
    'structured',
    '668e33ef00018001 COOKIE 00000006 00000000 0000',
    /malformed error/,
  ],
  [
    'an error message beyond its chunk',
    'structured',
    '668e33ef00018001 COOKIE 00000006 00000005 0001',
    /malformed error/,
  ],
  [
    'the offset of another request',
    'extended',
    '6e8a278c00010000 COOKIE 0000000000000000 0000000000000000',
    /another request/,
  ],
  [
    'a chunk of 2^63 bytes',
    'extended',
    '6e8a278c00010001 COOKIE 0000000000000200 8000000000000000 0000000000000200',
    /outside the request/,
  ],
];

for (const [what, style, hex, reason] of HOSTILE) {
  test(`a server that breaks the protocol: ${what}`, () => {
    for (const atOnce of [true, false]) {
      const pair = new Pair(style, 1);
      const io = pair.submit(OP.READ, 512, 1024);
      pair.send();
      const cookie = pair.server.seen[0]?.cookie.toString(16).padStart(16, '0') ?? '';
      const bytes = Buffer.from(hex.replaceAll('COOKIE', cookie).replaceAll(' ', ''), 'hex');
      if (atOnce) pair.session.receive(bytes);
      else for (const byte of bytes) pair.session.receive(Uint8Array.of(byte));
      assert.match(pair.broken ?? '', reason);
      assert.equal(io.error, 'EIO');
      assert.equal(pair.submit(OP.READ, 0, 512).error, 'EIO');
    }
  });
}

test('more extents than an answer holds end it early, and do not run together', () => {
  const pair = new Pair('structured', 1);
  const io = pair.submit(OP.EXTENTS, 0, 262144);
  pair.send();
  const count = MAX_EXTENTS + 100;
  const chunk = Buffer.alloc(20 + 4 + 8 * count);
  chunk.write('668e33ef00010005', 'hex');
  chunk.writeBigUInt64BE(pair.server.seen[0]?.cookie ?? 0n, 8);
  chunk.writeUInt32BE(4 + 8 * count, 16);
  chunk.writeUInt32BE(7, 20);
  for (let i = 0; i < count; i += 1) {
    chunk.writeUInt32BE(16, 24 + 8 * i);
    chunk.writeUInt32BE((i % 2) * 3, 28 + 8 * i);
  }
  pair.session.receive(chunk);
  assert.equal(io.error, null);
  assert.equal(io.extents.count, MAX_EXTENTS);
  assert.equal(io.extents.totalBytes, 16 * MAX_EXTENTS);
});

test('statuses that do not fit are refused', () => {
  for (const [payload, reason] of [
    ['00000008 00000200 00000000', /another context/],
    ['00000007 00000000 00000000', /malformed/],
    ['00000007', /malformed/],
    ['00000007 00000200 00000000 00', /malformed/],
  ] as const) {
    const pair = new Pair('structured', 1);
    const io = pair.submit(OP.EXTENTS, 0, 4096);
    pair.send();
    const body = Buffer.from(payload.replaceAll(' ', ''), 'hex');
    const header = Buffer.from('668e33ef00010005000000010000000000000000', 'hex');
    header.writeBigUInt64BE(pair.server.seen[0]?.cookie ?? 0n, 8);
    header.writeUInt32BE(body.length, 16);
    pair.session.receive(Buffer.concat([header, body]));
    assert.match(pair.broken ?? '', reason);
    assert.equal(io.error, 'EIO');
  }
});

test('noise from a server never throws, and every Io completes once', () => {
  const chunk = fc
    .tuple(
      fc.constantFrom('67446698', '668e33ef', '6e8a278c'),
      fc.constantFrom(0, 1),
      fc.constantFrom(0, 1, 2, 5, 6, 0x8001, 0x8002, 0x8003, 9),
      fc.nat(3),
      fc.nat(5),
      fc.uint8Array({ maxLength: 40 }),
      fc.nat(60),
    )
    .map(([magic, flags, type, serial, index, payload, length]) => {
      const header = Buffer.alloc(magic === '6e8a278c' ? 32 : 20);
      header.write(magic, 'hex');
      header.writeUInt16BE(flags, 4);
      header.writeUInt16BE(type, 6);
      header.writeUInt32BE(serial, 8);
      header.writeUInt32BE(127 - index, 12);
      header.writeUInt32BE(length, header.length - 4);
      return Buffer.concat([magic === '67446698' ? header.subarray(0, 16) : header, payload]);
    });
  fc.assert(
    fc.property(fc.constantFrom(...STYLES), fc.array(chunk, { maxLength: 8 }), (style, chunks) => {
      const pair = new Pair(style, 1);
      const ios = [
        pair.submit(OP.READ, 0, 1024),
        pair.submit(OP.WRITE, 0, 512),
        pair.submit(OP.EXTENTS, 0, 4096),
        pair.submit(OP.FLUSH),
      ];
      pair.send();
      for (const bytes of chunks) pair.session.receive(bytes);
      pair.session.fail();
      for (const io of ios) assert.ok(!io.inFlight);
    }),
    { numRuns: 3000 },
  );
});
