import assert from 'node:assert/strict';
import test from 'node:test';
import {
  bodyBytes,
  FUSE_INIT_FLAG,
  FUSE_OP,
  fuseErrno,
  readInitIn,
  readU64,
  writeAttrOut,
  writeInitOut,
  writeOutHeader,
  writeStatfsOut,
  writeU64,
} from './wire.ts';

// Vectors written out by hand from the structures of linux/fuse.h, and an INIT as Linux 6.18 sent it.

function written(bytes: number, write: (view: DataView, at: number) => unknown): string {
  // What lies around it must stay as it was.
  const memory = new Uint8Array(bytes + 16).fill(0xee);
  const result = write(new DataView(memory.buffer), 8);
  if (typeof result === 'number') assert.equal(result, bytes, 'the length that is returned');
  assert.deepEqual([...memory.subarray(0, 8), ...memory.subarray(-8)], Array(16).fill(0xee));
  return Buffer.from(memory.subarray(8, 8 + bytes)).toString('hex');
}

function viewOfHex(text: string): DataView {
  const bytes = Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
  return new DataView(bytes.buffer);
}

/** Fields, one after the other. */
function hex(text: string): string {
  return text.replaceAll(/\s/g, '');
}

test('fuse_out_header', () => {
  assert.equal(
    written(16, (view, at) => writeOutHeader(view, at, 24, 0, 0x04030201, 0x08070605)),
    hex('18000000 00000000 0102030405060708'),
  );
  assert.equal(
    written(16, (view, at) => writeOutHeader(view, at, 16, 2, 6, 0)),
    hex('10000000 feffffff 0600000000000000'),
  );
});

test('fuse_attr_out', () => {
  const file = {
    sizeBytes: 2 ** 33 + 512,
    blockBytes: 4096,
    mode: 0o640,
    uid: 7,
    gid: 8,
    modifiedSeconds: 0x12345678 + 0.25,
  };
  const expected = [
    // attr_valid, attr_valid_nsec, dummy
    '0000000000000000 00000000 00000000',
    // ino, size, blocks
    '0100000000000000 0002000002000000 0100000100000000',
    // atime, mtime, ctime, and their nanoseconds
    '7856341200000000'.repeat(3),
    '80b2e60e'.repeat(3),
    // mode S_IFREG | 0640, nlink, uid, gid, rdev, blksize, flags
    'a0810000 01000000 07000000 08000000 00000000 00100000 00000000',
  ];
  assert.equal(
    written(104, (view, at) => writeAttrOut(view, at, file)),
    hex(expected.join('')),
  );
});

test('fuse_statfs_out', () => {
  const file = {
    sizeBytes: 1_000_000,
    blockBytes: 4096,
    mode: 0,
    uid: 0,
    gid: 0,
    modifiedSeconds: 0,
  };
  const expected = [
    // blocks, bfree, bavail
    'f500000000000000 0000000000000000 0000000000000000',
    // files, ffree
    '0100000000000000 0000000000000000',
    // bsize, namelen, frsize, padding, spare
    '00100000 ff000000 00100000 00000000',
    '00'.repeat(24),
  ];
  assert.equal(
    written(80, (view, at) => writeStatfsOut(view, at, file)),
    hex(expected.join('')),
  );
});

test('fuse_init_out', () => {
  const out = {
    maxReadahead: 0x20000,
    flags: 0x40408021,
    flags2: 0x10,
    maxBackground: 128,
    congestionThreshold: 96,
    maxWrite: 0x40000,
    maxPages: 256,
  };
  const expected = [
    // major 7, minor 39, max_readahead, flags
    '07000000 27000000 00000200 21804040',
    // max_background, congestion_threshold, max_write, time_gran
    '8000 6000 00000400 01000000',
    // max_pages, map_alignment, flags2, unused
    '0001 0000 10000000',
    '00'.repeat(28),
  ];
  assert.equal(
    written(64, (view, at) => writeInitOut(view, at, out)),
    hex(expected.join('')),
  );
});

test('fuse_init_in of Linux 6.18, and of kernels before flags2', () => {
  const modern = viewOfHex(`07000000 2d000000 00000200 fbffff73 ff030000 ${'00'.repeat(44)}`);
  assert.deepEqual(readInitIn(modern, 0, 64), {
    major: 7,
    minor: 45,
    maxReadahead: 0x20000,
    flags: 0x73fffffb,
    flags2: 0x3ff,
  });
  const old = viewOfHex('07000000 1f000000 00000200 fbffff03');
  assert.deepEqual(readInitIn(old, 0, 16), {
    major: 7,
    minor: 31,
    maxReadahead: 0x20000,
    flags: 0x03fffffb,
    flags2: 0,
  });
  // The flag without the word: nothing behind the message is read.
  const short = viewOfHex('07000000 24000000 00000200 00000040');
  assert.equal(readInitIn(short, 0, 16).flags, FUSE_INIT_FLAG.INIT_EXT);
  assert.equal(readInitIn(short, 0, 16).flags2, 0);
});

test('numbers of 64 bits', () => {
  const view = new DataView(new ArrayBuffer(8));
  for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 50 + 3, Number.MAX_SAFE_INTEGER]) {
    writeU64(view, 0, value);
    assert.equal(view.getBigUint64(0, true), BigInt(value));
    assert.equal(readU64(view, 0), value);
  }
  view.setBigUint64(0, 2n ** 64n - 1n, true);
  assert.equal(readU64(view, 0), 2 ** 64);
});

test('every operation with a body says how long it is', () => {
  const without: readonly number[] = [FUSE_OP.STATFS, FUSE_OP.DESTROY];
  for (const opcode of Object.values(FUSE_OP)) {
    assert.equal(bodyBytes(opcode) > 0, !without.includes(opcode), `operation ${opcode}`);
  }
  assert.equal(bodyBytes(4096), 0);
});

test('every code of a device is an errno, and no success', () => {
  for (const [code, errno] of Object.entries(fuseErrno)) {
    assert.ok(errno > 0 && errno < 4096, code);
  }
});
