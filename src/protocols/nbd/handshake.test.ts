import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  feed,
  HandClient,
  makeExport,
  RecordingHost,
  type Reply,
  splitReplies,
} from '../../../test/support/nbd-handshake.ts';
import { encodeText } from './bytes.ts';
import { exportFlags, ServerHandshake, type TlsMode } from './handshake.ts';
import { MAX_HANDSHAKE_BYTES, MAX_OPTION_BYTES, MAX_OPTIONS } from './limits.ts';
import {
  decodeInfoReply,
  decodeMetaContext,
  decodeServerReply,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
  type InfoReply,
  NBD_FLAG,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  NBD_REP_ERR,
} from './wire.ts';

const disk = makeExport('disk', {}, { description: 'a disk' });
const large = makeExport('large', { blockBytes: 4096 });
const ALL_INFO = [NBD_INFO.EXPORT, NBD_INFO.NAME, NBD_INFO.DESCRIPTION, NBD_INFO.BLOCK_SIZE];

function client(tlsMode: TlsMode = 'off', flags = 3): HandClient {
  return new HandClient(new RecordingHost([disk, large]), tlsMode, flags);
}

function types(replies: readonly Reply[]): number[] {
  return replies.map((reply) => reply.type);
}

function infos(replies: readonly Reply[]): (InfoReply | null)[] {
  return replies
    .filter((reply) => reply.type === NBD_REP.INFO)
    .map((reply) => decodeInfoReply(reply.payload));
}

function exportOf(replies: readonly Reply[]): { sizeBytes: number; transmissionFlags: number } {
  const found = infos(replies).find((info) => info?.type === 'export');
  assert.ok(found?.type === 'export');
  return found;
}

test('the greeting is fixed newstyle without zeroes', () => {
  assert.equal(client().greeting.toString('hex'), '4e42444d4147494349484156454f50540003');
});

test('unknown client flags end the connection', () => {
  assert.match(client('off', 4).host.closed ?? '', /flags/);
  assert.match(client('off', 0x80000003).host.closed ?? '', /flags/);
});

test('an option without its magic ends the connection', () => {
  const { handshake, host } = client();
  feed(handshake, new Uint8Array(16));
  assert.match(host.closed ?? '', /magic/);
});

test('EXPORT_NAME answers size, flags and 124 zeroes, or none', () => {
  for (const [flags, length] of [
    [1, 134],
    [3, 10],
    [0, 134],
    [2, 10],
  ] as const) {
    const peer = client('off', flags);
    const answer = peer.raw(NBD_OPT.EXPORT_NAME, encodeText('disk'));
    assert.equal(answer.length, length);
    assert.equal(answer.readBigUInt64BE(0), 1048576n);
    assert.equal(answer.readUInt16BE(8), exportFlags(disk));
    assert.ok(answer.subarray(10).every((byte) => byte === 0));
    assert.deepEqual(peer.host.result, {
      exportName: 'disk',
      structured: false,
      extended: false,
      baseAllocationId: null,
      noZeroes: (flags & 2) !== 0,
      blockSizeNegotiated: false,
      tls: false,
      transmissionFlags: exportFlags(disk),
    });
  }
});

test('EXPORT_NAME cannot be answered with an error', () => {
  for (const name of [
    'nothing',
    'large',
    'x'.repeat(4097),
    '\0',
    'x'.repeat(MAX_OPTION_BYTES + 1),
  ]) {
    const peer = client();
    assert.equal(peer.raw(NBD_OPT.EXPORT_NAME, encodeText(name)).length, 0);
    assert.notEqual(peer.host.closed, null, name.slice(0, 10));
  }
  const refusing = client();
  refusing.host.refusal = { reply: NBD_REP_ERR.POLICY, message: 'not today' };
  assert.equal(refusing.raw(NBD_OPT.EXPORT_NAME, encodeText('disk')).length, 0);
  assert.equal(refusing.host.closed, 'not today');
});

test('EXPORT_NAME after structured replies keeps them and base:allocation', () => {
  const peer = client().structured();
  peer.ask(NBD_OPT.SET_META_CONTEXT, encodeMetaContextRequest('disk', ['base:allocation']));
  peer.raw(NBD_OPT.EXPORT_NAME, encodeText('disk'));
  assert.equal(peer.host.result?.structured, true);
  assert.notEqual(peer.host.result?.baseAllocationId, null);
  assert.ok((peer.host.result?.transmissionFlags ?? 0) & NBD_FLAG.SEND_DF);
});

test('without fixed newstyle only EXPORT_NAME is an option', () => {
  for (const option of [NBD_OPT.LIST, NBD_OPT.ABORT, NBD_OPT.GO, 99]) {
    const peer = client('off', 0);
    assert.equal(peer.raw(option).length, 0);
    assert.match(peer.host.closed ?? '', /fixed newstyle/);
  }
});

test('LIST names every export', () => {
  const replies = client().ask(NBD_OPT.LIST);
  assert.deepEqual(types(replies), [NBD_REP.SERVER, NBD_REP.SERVER, NBD_REP.ACK]);
  assert.deepEqual(decodeServerReply(replies[0]?.payload as Buffer), {
    name: 'disk',
    description: 'a disk',
  });
  assert.equal(client().last(NBD_OPT.LIST, Uint8Array.of(0)), NBD_REP_ERR.INVALID);
});

test('LIST of many exports is whole', () => {
  const exports = Array.from({ length: 500 }, (_, i) => makeExport(`export-${i}`));
  const replies = new HandClient(new RecordingHost(exports)).ask(NBD_OPT.LIST);
  assert.equal(replies.length, 501);
  assert.equal(decodeServerReply(replies[499]?.payload as Buffer)?.name, 'export-499');
});

test('ABORT is acknowledged, then the connection ends', () => {
  for (const data of [new Uint8Array(0), new Uint8Array(5)]) {
    const peer = client();
    assert.deepEqual(types(peer.ask(NBD_OPT.ABORT, data)), [NBD_REP.ACK]);
    assert.match(peer.host.closed ?? '', /client/);
  }
});

test('unknown options are refused and the next one is understood', () => {
  const peer = client();
  for (const option of [0, NBD_OPT.PEEK_EXPORT, 12, 0xffffffff]) {
    assert.equal(peer.last(option, new Uint8Array(77)), NBD_REP_ERR.UNSUP);
  }
  assert.equal(peer.last(NBD_OPT.LIST), NBD_REP.ACK);
});

test('INFO tells what was asked for, and the negotiation goes on', () => {
  const peer = client();
  const replies = peer.ask(NBD_OPT.INFO, encodeInfoRequest('disk', ALL_INFO));
  assert.equal(replies.at(-1)?.type, NBD_REP.ACK);
  assert.deepEqual(infos(replies), [
    { type: 'export', sizeBytes: 1048576, transmissionFlags: exportFlags(disk) },
    { type: 'name', text: 'disk' },
    { type: 'description', text: 'a disk' },
    {
      type: 'blockSize',
      sizes: { minimum: 512, preferred: 4096, maximumPayload: 33554432 },
    },
  ]);
  assert.deepEqual(infos(peer.ask(NBD_OPT.INFO, encodeInfoRequest('disk', []))).length, 1);
  assert.deepEqual(infos(peer.ask(NBD_OPT.INFO, encodeInfoRequest('disk', [999]))).length, 1);
  assert.equal(peer.handshake.state, 'negotiating');
  assert.deepEqual(peer.host.opened, [], 'INFO opens nothing');
});

test('GO enters, and answers as INFO did', () => {
  const peer = client();
  const request = encodeInfoRequest('disk', ALL_INFO);
  const info = peer.ask(NBD_OPT.INFO, request);
  const go = peer.ask(NBD_OPT.GO, request);
  assert.deepEqual(infos(go), infos(info));
  assert.deepEqual(peer.host.opened, ['disk']);
  assert.equal(peer.host.result?.blockSizeNegotiated, true);
  assert.equal(peer.handshake.state, 'done');
});

test('GO without zeroes after it, even where they were not given up', () => {
  const peer = client('off', 1);
  const replies = peer.ask(NBD_OPT.GO, encodeInfoRequest('disk', []));
  assert.deepEqual(types(replies), [NBD_REP.INFO, NBD_REP.ACK]);
});

test('an unknown export is an error, and another may be asked for', () => {
  const peer = client();
  assert.equal(peer.last(NBD_OPT.GO, encodeInfoRequest('nothing', [])), NBD_REP_ERR.UNKNOWN);
  assert.equal(peer.last(NBD_OPT.INFO, encodeInfoRequest('', [])), NBD_REP_ERR.UNKNOWN);
  assert.equal(peer.last(NBD_OPT.GO, encodeInfoRequest('disk', [])), NBD_REP.ACK);
});

test('malformed INFO and GO are invalid', () => {
  const good = encodeInfoRequest('disk', [1, 2]);
  for (let cut = 0; cut < good.length; cut += 1) {
    assert.equal(client().last(NBD_OPT.GO, good.subarray(0, cut)), NBD_REP_ERR.INVALID);
  }
  const peer = client();
  assert.equal(peer.last(NBD_OPT.GO, Buffer.concat([good, good])), NBD_REP_ERR.INVALID);
  assert.equal(peer.last(NBD_OPT.GO, encodeInfoRequest('a\0b', [])), NBD_REP_ERR.INVALID);
  assert.equal(peer.last(NBD_OPT.GO, Buffer.from('00000001ff0000', 'hex')), NBD_REP_ERR.INVALID);
  assert.equal(peer.last(NBD_OPT.GO, Buffer.from('ffffffff0000', 'hex')), NBD_REP_ERR.INVALID);
  assert.equal(peer.last(NBD_OPT.GO, encodeInfoRequest('x'.repeat(4097), [])), NBD_REP_ERR.TOO_BIG);
});

test('large blocks must be asked for', () => {
  const peer = client();
  for (const option of [NBD_OPT.INFO, NBD_OPT.GO]) {
    const replies = peer.ask(option, encodeInfoRequest('large', [NBD_INFO.NAME]));
    assert.deepEqual(types(replies), [NBD_REP.INFO, NBD_REP_ERR.BLOCK_SIZE_REQD]);
    assert.deepEqual(infos(replies), [
      { type: 'blockSize', sizes: { minimum: 4096, preferred: 4096, maximumPayload: 33554432 } },
    ]);
  }
  const request = encodeInfoRequest('large', [NBD_INFO.BLOCK_SIZE]);
  assert.equal(peer.last(NBD_OPT.GO, request), NBD_REP.ACK);
});

test('the transmission flags say what the export has', () => {
  const always = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FUA | NBD_FLAG.SEND_CACHE;
  const writable = always | NBD_FLAG.SEND_WRITE_ZEROES;
  const plain = { writeCache: false, discard: false, fastZero: false };
  const flags = (info: Parameters<typeof makeExport>[1], multiConn = false): number =>
    exportFlags(makeExport('', { ...plain, ...info }, { multiConn }));
  assert.equal(flags({}), writable);
  assert.equal(flags({ writeCache: true }), writable | NBD_FLAG.SEND_FLUSH);
  assert.equal(flags({ discard: true }), writable | NBD_FLAG.SEND_TRIM);
  assert.equal(flags({ fastZero: true }), writable | NBD_FLAG.SEND_FAST_ZERO);
  assert.equal(flags({ rotational: true }), writable | NBD_FLAG.ROTATIONAL);
  assert.equal(flags({}, true), writable | NBD_FLAG.CAN_MULTI_CONN);
  assert.equal(
    flags({ readOnly: true, discard: true, fastZero: true, writeCache: true }),
    always | NBD_FLAG.READ_ONLY | NBD_FLAG.SEND_FLUSH,
  );
});

test('structured replies bring DF', () => {
  const peer = client();
  const request = encodeInfoRequest('disk', []);
  const before = exportOf(peer.ask(NBD_OPT.INFO, request)).transmissionFlags;
  assert.equal(before & NBD_FLAG.SEND_DF, 0);
  assert.equal(peer.last(NBD_OPT.STRUCTURED_REPLY, Uint8Array.of(1)), NBD_REP_ERR.INVALID);
  assert.equal(peer.last(NBD_OPT.STRUCTURED_REPLY), NBD_REP.ACK);
  assert.equal(peer.last(NBD_OPT.STRUCTURED_REPLY), NBD_REP.ACK);
  const after = exportOf(peer.ask(NBD_OPT.GO, request)).transmissionFlags;
  assert.equal(after, before | NBD_FLAG.SEND_DF);
  assert.equal(peer.host.result?.structured, true);
  assert.equal(peer.host.result?.extended, false);
});

test('extended headers come before structured replies and forbid EXPORT_NAME', () => {
  const peer = client();
  assert.equal(peer.last(NBD_OPT.EXTENDED_HEADERS, Uint8Array.of(1)), NBD_REP_ERR.INVALID);
  assert.equal(peer.last(NBD_OPT.EXTENDED_HEADERS), NBD_REP.ACK);
  assert.equal(peer.last(NBD_OPT.STRUCTURED_REPLY), NBD_REP_ERR.EXT_HEADER_REQD);
  peer.raw(NBD_OPT.EXPORT_NAME, encodeText('disk'));
  assert.match(peer.host.closed ?? '', /extended/);
});

test('extended headers with base:allocation bring BLOCK_STATUS_PAYLOAD', () => {
  for (const withContext of [false, true]) {
    const peer = client();
    peer.ask(NBD_OPT.EXTENDED_HEADERS);
    const queries = withContext ? ['base:allocation'] : [];
    peer.ask(NBD_OPT.SET_META_CONTEXT, encodeMetaContextRequest('disk', queries));
    const { transmissionFlags } = exportOf(peer.ask(NBD_OPT.GO, encodeInfoRequest('disk', [])));
    assert.equal((transmissionFlags & NBD_FLAG.BLOCK_STATUS_PAYLOAD) !== 0, withContext);
    assert.ok(transmissionFlags & NBD_FLAG.SEND_DF);
    assert.equal(peer.host.result?.extended, true);
    assert.equal(peer.host.result?.structured, true);
    assert.equal(peer.host.result?.transmissionFlags, transmissionFlags);
  }
});

function contexts(peer: HandClient, option: number, name: string, queries: string[]): unknown[] {
  const replies = peer.ask(option, encodeMetaContextRequest(name, queries));
  assert.equal(replies.at(-1)?.type, NBD_REP.ACK);
  return replies.slice(0, -1).map((reply) => decodeMetaContext(reply.payload));
}

test('metadata contexts are listed by namespace, name, or all', () => {
  const peer = client().structured();
  const all = [{ id: 0, name: 'base:allocation' }];
  const list = (queries: string[]): unknown[] =>
    contexts(peer, NBD_OPT.LIST_META_CONTEXT, 'disk', queries);
  assert.deepEqual(list([]), all);
  assert.deepEqual(list(['base:']), all);
  assert.deepEqual(list(['base:allocation', 'base:', 'x-other:y']), all);
  assert.deepEqual(list(['base:other', 'qemu:dirty-bitmap:x', 'no colon', '']), []);
});

test('a metadata context is set by its whole name only', () => {
  const peer = client().structured();
  const set = (queries: string[]): unknown[] =>
    contexts(peer, NBD_OPT.SET_META_CONTEXT, 'disk', queries);
  assert.deepEqual(set([]), []);
  assert.deepEqual(set(['base:', 'base:allocations', 'x:base:allocation']), []);
  const chosen = set(['base:allocation', 'base:allocation']) as { id: number }[];
  assert.equal(chosen.length, 1);
  peer.ask(NBD_OPT.GO, encodeInfoRequest('disk', []));
  assert.equal(peer.host.result?.baseAllocationId, chosen[0]?.id);
});

test('metadata contexts need structured replies, an export and sense', () => {
  const option = NBD_OPT.SET_META_CONTEXT;
  const good = encodeMetaContextRequest('disk', ['base:allocation']);
  assert.equal(client().last(option, good), NBD_REP_ERR.INVALID);
  const peer = client().structured();
  const unknown = encodeMetaContextRequest('nothing', ['base:allocation']);
  assert.equal(peer.last(option, unknown), NBD_REP_ERR.UNKNOWN);
  for (let cut = 0; cut < good.length; cut += 1) {
    assert.equal(peer.last(option, good.subarray(0, cut)), NBD_REP_ERR.INVALID);
  }
  const endless = Buffer.from('000000046469736bffffffff', 'hex');
  assert.equal(peer.last(option, endless), NBD_REP_ERR.INVALID);
  const long = encodeMetaContextRequest('disk', ['x'.repeat(4097)]);
  assert.equal(peer.last(option, long), NBD_REP_ERR.INVALID);
  const name = encodeMetaContextRequest('x'.repeat(4097), []);
  assert.equal(peer.last(option, name), NBD_REP_ERR.TOO_BIG);
});

test('a metadata context is lost by another SET, failed or not, and by another export', () => {
  const good = encodeMetaContextRequest('disk', ['base:allocation']);
  const set = NBD_OPT.SET_META_CONTEXT;
  const enter = (between: (peer: HandClient) => void, name = 'disk'): number | null | undefined => {
    const peer = client().structured();
    peer.ask(set, good);
    between(peer);
    peer.ask(NBD_OPT.GO, encodeInfoRequest(name, [NBD_INFO.BLOCK_SIZE]));
    assert.notEqual(peer.host.result, null);
    return peer.host.result?.baseAllocationId;
  };
  assert.notEqual(
    enter(() => undefined),
    null,
  );
  assert.notEqual(
    enter((peer) => peer.ask(NBD_OPT.LIST_META_CONTEXT, encodeMetaContextRequest('large', []))),
    null,
  );
  assert.equal(
    enter((peer) => peer.ask(set, encodeMetaContextRequest('disk', []))),
    null,
  );
  assert.equal(
    enter((peer) => peer.ask(set, Uint8Array.of(1))),
    null,
  );
  assert.equal(
    enter((peer) => peer.ask(set, encodeMetaContextRequest('nothing', []))),
    null,
  );
  assert.equal(
    enter(() => undefined, 'large'),
    null,
  );
});

test('without TLS on the server STARTTLS is refused by policy', () => {
  const peer = client('off');
  assert.equal(peer.last(NBD_OPT.STARTTLS), NBD_REP_ERR.POLICY);
  assert.equal(peer.last(NBD_OPT.LIST), NBD_REP.ACK);
});

test('where TLS is required nothing else is answered before it', () => {
  const peer = client('require');
  const request = encodeInfoRequest('disk', []);
  for (const option of Object.values(NBD_OPT).concat(99 as never)) {
    if (option === NBD_OPT.EXPORT_NAME || option === NBD_OPT.ABORT) continue;
    if (option === NBD_OPT.STARTTLS) continue;
    assert.deepEqual(types(peer.ask(option, request)), [NBD_REP_ERR.TLS_REQD]);
  }
  assert.equal(peer.last(NBD_OPT.STARTTLS, Uint8Array.of(1)), NBD_REP_ERR.INVALID);
  assert.equal(peer.last(NBD_OPT.STARTTLS), NBD_REP.ACK);
  assert.equal(peer.host.tlsStarts, 1);
  assert.equal(peer.handshake.state, 'tls');
  peer.handshake.tlsStarted();
  assert.equal(peer.last(NBD_OPT.STARTTLS), NBD_REP_ERR.INVALID);
  assert.equal(peer.last(NBD_OPT.GO, request), NBD_REP.ACK);
  assert.equal(peer.host.result?.tls, true);

  const old = client('require');
  old.raw(NBD_OPT.EXPORT_NAME, encodeText('disk'));
  assert.match(old.host.closed ?? '', /TLS/);
  const leaving = client('require');
  assert.deepEqual(types(leaving.ask(NBD_OPT.ABORT)), [NBD_REP.ACK]);
});

test('nothing that was said in the clear survives TLS', () => {
  for (const option of [NBD_OPT.STRUCTURED_REPLY, NBD_OPT.EXTENDED_HEADERS]) {
    const peer = client('on');
    peer.ask(option);
    peer.ask(NBD_OPT.SET_META_CONTEXT, encodeMetaContextRequest('disk', ['base:allocation']));
    peer.ask(NBD_OPT.STARTTLS);
    peer.handshake.tlsStarted();
    peer.ask(NBD_OPT.GO, encodeInfoRequest('disk', []));
    const { result } = peer.host;
    assert.equal(result?.tls, true);
    assert.equal(result?.structured, false);
    assert.equal(result?.extended, false);
    assert.equal(result?.baseAllocationId, null);
  }
});

test('bytes in the clear behind STARTTLS end the connection', () => {
  const { handshake, host } = client('on');
  const both = Buffer.concat([
    encodeOption(NBD_OPT.STARTTLS, new Uint8Array(0)),
    encodeOption(NBD_OPT.LIST, new Uint8Array(0)),
  ]);
  handshake.receive(both);
  assert.match(host.closed ?? '', /clear/);
});

test('opening may take its time; nothing is consumed meanwhile', () => {
  const { host, handshake } = client();
  host.asynchronous = true;
  const go = encodeOption(NBD_OPT.GO, encodeInfoRequest('disk', []));
  const requests = Buffer.from('first request');
  const rest = feed(handshake, Buffer.concat([go, requests]));
  assert.equal(Buffer.from(rest).toString(), 'first request');
  assert.equal(handshake.state, 'opening');
  assert.equal(handshake.receive(rest), 0);
  assert.equal(host.take().length, 0);
  host.opening?.(null);
  assert.equal(handshake.state, 'done');
  assert.equal(splitReplies(host.take()).at(-1)?.type, NBD_REP.ACK);
  assert.equal(handshake.receive(rest), 0, 'requests are for the next phase');
});

test('an export that cannot be opened is an error of GO', () => {
  const { host, handshake } = client();
  host.asynchronous = true;
  feed(handshake, encodeOption(NBD_OPT.GO, encodeInfoRequest('disk', [])));
  host.opening?.({ reply: NBD_REP_ERR.SHUTDOWN, message: 'going down' });
  const [reply] = splitReplies(host.take());
  assert.equal(reply?.type, NBD_REP_ERR.SHUTDOWN);
  assert.equal(reply?.payload.toString(), 'going down');
  assert.equal(handshake.state, 'negotiating');
});

test('a connection that ends while its export opens hears nothing more', () => {
  const { host, handshake } = client();
  host.asynchronous = true;
  feed(handshake, encodeOption(NBD_OPT.GO, encodeInfoRequest('disk', [])));
  handshake.abandon();
  host.opening?.(null);
  assert.equal(host.take().length, 0);
  assert.equal(host.result, null);
});

test('a server that shuts down refuses everything but ABORT', () => {
  const peer = client();
  peer.handshake.shutdown();
  const request = encodeInfoRequest('disk', []);
  assert.equal(peer.last(NBD_OPT.GO, request), NBD_REP_ERR.SHUTDOWN);
  assert.equal(peer.last(NBD_OPT.LIST), NBD_REP_ERR.SHUTDOWN);
  assert.equal(peer.last(99), NBD_REP_ERR.SHUTDOWN);
  assert.equal(peer.last(NBD_OPT.ABORT), NBD_REP.ACK);
});

test('options that are too long are skipped', () => {
  const peer = client();
  const long = new Uint8Array(MAX_OPTION_BYTES + 1);
  for (const option of [NBD_OPT.GO, NBD_OPT.LIST, 99]) {
    assert.equal(peer.last(option, long), NBD_REP_ERR.TOO_BIG);
  }
  assert.equal(peer.last(NBD_OPT.LIST), NBD_REP.ACK);
});

test('a handshake without end is ended', () => {
  const many = client();
  for (let i = 0; i < MAX_OPTIONS; i += 1) assert.equal(many.last(99), NBD_REP_ERR.UNSUP);
  feed(many.handshake, encodeOption(99, new Uint8Array(0)));
  assert.match(many.host.closed ?? '', /too many/);

  const much = client();
  const part = new Uint8Array(MAX_OPTION_BYTES);
  let sent = 0;
  while (much.host.closed === null && sent < 2 * MAX_HANDSHAKE_BYTES) {
    feed(much.handshake, encodeOption(99, part));
    sent += part.length;
  }
  assert.match(much.host.closed ?? '', /too much/);

  // The length alone is enough: nobody waits for 4 GiB.
  const { handshake, host } = client();
  feed(handshake, Buffer.from('49484156454f505400000063ffffffff', 'hex'));
  assert.match(host.closed ?? '', /too much/);
});

test('one call answers one option, so that a client that does not read costs little', () => {
  const { handshake, host } = client();
  const one = encodeOption(NBD_OPT.LIST, new Uint8Array(0));
  const three = Buffer.concat([one, one, one]);
  assert.equal(handshake.receive(three), one.length);
  assert.equal(splitReplies(host.take()).length, 3);
});

// A whole negotiation as one stream of bytes.
const WHOLE = Buffer.concat([
  Buffer.from('00000003', 'hex'),
  encodeOption(NBD_OPT.STRUCTURED_REPLY, new Uint8Array(0)),
  encodeOption(NBD_OPT.LIST_META_CONTEXT, encodeMetaContextRequest('disk', ['base:'])),
  encodeOption(NBD_OPT.SET_META_CONTEXT, encodeMetaContextRequest('disk', ['base:allocation'])),
  encodeOption(99, new Uint8Array(MAX_OPTION_BYTES + 3)),
  encodeOption(NBD_OPT.GO, encodeInfoRequest('disk', ALL_INFO)),
]);

function replay(pieces: readonly Uint8Array[]): {
  sent: string;
  host: RecordingHost;
  rest: number;
} {
  const host = new RecordingHost([disk, large]);
  const handshake = new ServerHandshake(host, 'off');
  handshake.start();
  let rest = 0;
  for (const piece of pieces) rest += feed(handshake, piece).length;
  return { sent: host.take().toString('hex'), host, rest };
}

test('bytes may come one at a time, or in any pieces', () => {
  const expected = replay([WHOLE]);
  assert.notEqual(expected.host.result, null);
  const single = replay(Array.from(WHOLE, (byte) => Uint8Array.of(byte)));
  assert.equal(single.sent, expected.sent);
  assert.deepEqual(single.host.result, expected.host.result);
  fc.assert(
    fc.property(fc.array(fc.nat(WHOLE.length), { maxLength: 20 }), (cuts) => {
      const sorted = [0, ...cuts.toSorted((a, b) => a - b), WHOLE.length];
      const pieces = sorted.slice(1).map((end, i) => WHOLE.subarray(sorted[i], end));
      const { sent, host } = replay(pieces);
      assert.equal(sent, expected.sent);
      assert.deepEqual(host.result, expected.host.result);
    }),
    { numRuns: 50 },
  );
});

test('every prefix of a negotiation is waited on', () => {
  for (let end = 0; end < WHOLE.length; end += end > 300 && end < WHOLE.length - 300 ? 997 : 1) {
    const { host } = replay([WHOLE.subarray(0, end)]);
    assert.equal(host.result, null);
    assert.equal(host.closed, null);
  }
});

test('what follows GO is left for the transmission phase', () => {
  assert.equal(replay([Buffer.concat([WHOLE, Buffer.alloc(28)])]).rest, 28);
});

/** Options that are nearly right, and noise. */
const hostileOption: fc.Arbitrary<Uint8Array> = fc
  .oneof(
    fc.record({
      option: fc.oneof(fc.nat(13), fc.nat(0xffffffff)),
      data: fc.oneof(
        fc.uint8Array({ maxLength: 60 }),
        fc.constantFrom('disk', 'large', 'x', '').map((name) => encodeInfoRequest(name, ALL_INFO)),
        fc
          .array(fc.constantFrom('base:', 'base:allocation', 'x', ''), { maxLength: 4 })
          .map((queries) => encodeMetaContextRequest('disk', queries)),
      ),
      flip: fc.option(fc.nat(100), { freq: 3 }),
      value: fc.nat(255),
    }),
  )
  .map(({ option, data, flip, value }) => {
    const bytes = Uint8Array.from(encodeOption(option, data));
    if (flip !== null && flip < bytes.length) bytes[flip] = value;
    return bytes;
  });

test('hostile input never throws, is answered within bounds, and comes to an end', () => {
  fc.assert(
    fc.property(
      fc.constantFrom<TlsMode>('off', 'on', 'require'),
      fc.constantFrom(0, 1, 2, 3, 3, 3, 4),
      fc.array(hostileOption, { maxLength: 12 }),
      fc.uint8Array({ maxLength: 30 }),
      fc.boolean(),
      (tlsMode, flags, options, noise, asynchronous) => {
        const host = new RecordingHost([disk, large]);
        host.asynchronous = asynchronous;
        const handshake = new ServerHandshake(host, tlsMode);
        handshake.start();
        let rest: Uint8Array = Buffer.concat([Uint8Array.of(0, 0, 0, flags), ...options, noise]);
        const given = rest.length;
        for (let turn = 0; turn < 100 && rest.length > 0; turn += 1) {
          rest = feed(handshake, rest);
          if (handshake.state === 'tls') handshake.tlsStarted();
          if (handshake.state === 'opening') host.opening?.(null);
          if (handshake.state === 'done' || handshake.state === 'closed') break;
        }
        const ended = handshake.state === 'done' || handshake.state === 'closed';
        assert.ok(ended || rest.length === 0, 'neither ended nor consumed');
        assert.equal(handshake.state === 'closed', host.closed !== null);
        assert.equal(handshake.state === 'done', host.result !== null);
        // Each option costs 16 bytes at least, and no answer here is longer than 300.
        assert.ok(host.sentBytes <= 18 + (given / 16 + 1) * 300, `${host.sentBytes} for ${given}`);
        assert.equal(handshake.receive(Uint8Array.of(1)) === 0, ended);
      },
    ),
    { numRuns: 3000 },
  );
});
