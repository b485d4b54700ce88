import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { viewOf } from '../src/protocols/nbd/bytes.ts';
import * as wire from '../src/protocols/nbd/wire.ts';

// The golden vectors in test/vectors/nbd: bytes with what they mean. Each is decoded, encoded again where there is an
// encoder, cut at every place and made one byte longer.

interface Codec {
  readonly decode: (bytes: Uint8Array) => unknown;
  readonly encode?: (value: never) => Uint8Array;
  /** `text`: cut or grown it decodes to something else, or nothing. `tail`: what follows is passed over. */
  readonly open?: 'text' | 'tail';
}

const CODECS: Readonly<Record<string, Codec>> = {
  greeting: { decode: wire.decodeGreeting, encode: wire.encodeGreeting },
  optionHeader: {
    decode: wire.decodeOptionHeader,
    encode: ({ option, length }: wire.OptionHeader) =>
      wire.encodeOption(option, new Uint8Array(length)).subarray(0, 16),
  },
  optionReplyHeader: { decode: wire.decodeOptionReplyHeader },
  infoRequest: {
    decode: wire.decodeInfoRequest,
    encode: ({ name, information }: wire.InfoRequest) => wire.encodeInfoRequest(name, information),
  },
  metaContextRequest: {
    decode: wire.decodeMetaContextRequest,
    encode: ({ name, queries }: wire.MetaContextRequest) =>
      wire.encodeMetaContextRequest(name, queries),
  },
  serverReply: {
    decode: wire.decodeServerReply,
    encode: ({ name, description }: wire.ListedExport) => wire.encodeServerReply(name, description),
    open: 'text',
  },
  infoReply: { decode: wire.decodeInfoReply, encode: encodeInfo, open: 'text' },
  metaContext: {
    decode: wire.decodeMetaContext,
    encode: ({ id, name }: wire.MetaContext) => wire.encodeMetaContext(id, name),
    open: 'text',
  },
  request: { decode: decodeRequest, encode: encodeRequest },
  errorChunk: { decode: (b) => wire.decodeErrorChunk(wire.NBD_REPLY_TYPE.ERROR, b), open: 'tail' },
  errorOffsetChunk: {
    decode: (b) => wire.decodeErrorChunk(wire.NBD_REPLY_TYPE.ERROR_OFFSET, b),
    open: 'tail',
  },
  statusChunk: {
    decode: (b) => wire.decodeStatusChunk(wire.NBD_REPLY_TYPE.BLOCK_STATUS, b),
    open: 'text',
  },
  statusExtChunk: {
    decode: (b) => wire.decodeStatusChunk(wire.NBD_REPLY_TYPE.BLOCK_STATUS_EXT, b),
  },
};

function encodeInfo(info: wire.InfoReply): Uint8Array {
  switch (info.type) {
    case 'export':
      return wire.encodeInfoExport(info.sizeBytes, info.transmissionFlags);
    case 'name':
      return wire.encodeInfoText(wire.NBD_INFO.NAME, info.text);
    case 'description':
      return wire.encodeInfoText(wire.NBD_INFO.DESCRIPTION, info.text);
    case 'blockSize':
      return wire.encodeInfoBlockSize(info.sizes);
    case 'unknown':
    default:
      return new Uint8Array(0);
  }
}

interface Request {
  readonly extended: boolean;
  readonly flags: number;
  readonly type: number;
  readonly high: number;
  readonly low: number;
  readonly offset: number;
  readonly length: number;
}

/** The server decodes requests on its hot path (transmission.ts); here the fields are read by hand. */
function decodeRequest(bytes: Uint8Array): Request | null {
  const view = viewOf(bytes);
  const extended = bytes.length === wire.NBD_HEADER.EXTENDED_REQUEST;
  if (!extended && bytes.length !== wire.NBD_HEADER.REQUEST) return null;
  const magic = extended ? wire.NBD_EXTENDED_REQUEST_MAGIC : wire.NBD_REQUEST_MAGIC;
  if (view.getUint32(0) !== magic) return null;
  return {
    extended,
    flags: view.getUint16(4),
    type: view.getUint16(6),
    high: view.getUint32(8),
    low: view.getUint32(12),
    offset: wire.readU64(view, 16),
    length: extended ? wire.readU64(view, 24) : view.getUint32(24),
  };
}

function encodeRequest(request: Request): Uint8Array {
  const { extended, flags, type, high, low, offset, length } = request;
  const bytes = new Uint8Array(extended ? 32 : 28);
  wire.writeRequest(viewOf(bytes), extended, flags, type, high, low, offset, length);
  return bytes;
}

interface Vector {
  readonly title: string;
  readonly kind: string;
  readonly bytes: Buffer;
  readonly value: unknown;
}

function parseVectors(file: string, text: string): Vector[] {
  return text
    .trim()
    .split(/\n\n+/)
    .map((block, index) => {
      const lines = block.split('\n').filter((line) => !line.startsWith('#'));
      const hex = lines
        .filter((line) => line.startsWith('  '))
        .map((line) => (line.split('|')[0] as string).replaceAll(' ', ''))
        .join('');
      const value: unknown = JSON.parse(lines.at(-1)?.replace(/^= /, '') ?? '');
      const kind = lines[0] ?? '';
      return {
        title: `${file} ${index + 1}: ${kind}`,
        kind,
        bytes: Buffer.from(hex, 'hex'),
        value,
      };
    });
}

const folder = new URL('vectors/nbd/', import.meta.url);
const vectors = readdirSync(folder).flatMap((file) =>
  parseVectors(file, readFileSync(new URL(file, folder), 'utf8')),
);

test('there is a vector for every codec', () => {
  assert.deepEqual(
    [...new Set(vectors.map(({ kind }) => kind))].toSorted(),
    Object.keys(CODECS).toSorted(),
  );
});

for (const { title, kind, bytes, value } of vectors) {
  const codec = CODECS[kind] as Codec;
  test(title, () => {
    assert.deepEqual(codec.decode(bytes), value);
    if (codec.encode !== undefined) {
      assert.equal(
        Buffer.from(codec.encode(value as never)).toString('hex'),
        bytes.toString('hex'),
      );
    }
    for (const end of bytes.keys()) {
      const found = codec.decode(bytes.subarray(0, end));
      if (codec.open === 'text') assert.notDeepEqual(found, value);
      else assert.equal(found, null, `the first ${end} bytes`);
    }
    const longer = codec.decode(Buffer.concat([bytes, Uint8Array.of(0x61)]));
    if (codec.open === 'tail') assert.deepEqual(longer, value);
    else if (codec.open === 'text') assert.notDeepEqual(longer, value);
    else assert.equal(longer, null);
  });
}

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

test('bytes that say more than there are are malformed', () => {
  assert.equal(wire.decodeInfoRequest(hex('ffffffff 0000')), null);
  assert.equal(wire.decodeInfoRequest(hex('00000000 ffff 0001')), null);
  assert.equal(wire.decodeMetaContextRequest(hex('00000000 ffffffff')), null);
  assert.equal(wire.decodeMetaContextRequest(hex('00000000 00000001 ffffffff')), null);
  assert.equal(wire.decodeServerReply(hex('00000005 61616161')), null);
  assert.equal(wire.decodeErrorChunk(0x8001, hex('00000005 0001')), null);
  assert.equal(wire.decodeStatusChunk(6, hex('00000001 00100000')), null);
  assert.equal(wire.decodeStatusChunk(6, hex('00000001 00000000')), null);
});

test('a magic with any other bit is refused', () => {
  const header = wire.encodeOption(wire.NBD_OPT.LIST, new Uint8Array(0));
  const greeting = wire.encodeGreeting(3);
  for (let bit = 0; bit < 64; bit += 1) {
    const flip = (bytes: Uint8Array): Uint8Array => {
      const copy = Uint8Array.from(bytes);
      copy[bit >>> 3] = (copy[bit >>> 3] as number) ^ (1 << (bit & 7));
      return copy;
    };
    assert.equal(wire.decodeOptionHeader(flip(header)), null);
    assert.equal(wire.decodeGreeting(flip(greeting)), null);
  }
});

test('every block error has an NBD error, and comes back as one that a client understands', () => {
  for (const [code, error] of Object.entries(wire.nbdErrno)) {
    assert.ok(Object.values(wire.NBD_ERROR).includes(error), code);
    assert.equal(wire.nbdErrno[wire.codeOfNbdError(error)], error);
  }
  assert.equal(wire.codeOfNbdError(999), 'EINVAL');
});

test('options and replies have names', () => {
  assert.equal(wire.nameOfOption(7), 'NBD_OPT_GO');
  assert.equal(wire.nameOfOption(0x63), 'NBD_OPT_0x63');
  assert.equal(wire.nameOfReply(1), 'NBD_REP_ACK');
  assert.equal(wire.nameOfReply(0x80000001), 'NBD_REP_ERR_UNSUP');
  assert.equal(wire.nameOfReply(0x800000ff), 'NBD_REP_ERR_0x800000ff');
});
