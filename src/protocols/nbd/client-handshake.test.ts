import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { feed, makeExport, RecordingHost } from '../../../test/support/nbd-handshake.ts';
import { ProtocolError } from '../../base/errors.ts';
import { encodeText, Writer } from './bytes.ts';
import {
  ClientHandshake,
  type ClientHandshakeHost,
  type ClientOptions,
  NbdOptionError,
  type NegotiatedExport,
} from './client-handshake.ts';
import { exportFlags, ServerHandshake, type TlsMode } from './handshake.ts';
import {
  encodeExport,
  encodeGreeting,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeMetaContext,
  encodeServerReply,
  type ListedExport,
  NBD_FLAG,
  NBD_OPT,
  NBD_REP,
  NBD_REP_ERR,
  writeOptionReply,
} from './wire.ts';

const exports = [
  makeExport('', { sizeBytes: 2 ** 40 }, { description: 'the default' }),
  makeExport('large', { blockBytes: 4096, preferredBytes: 65536 }),
];

/** Our client and our server with nothing in between but a knife. */
class Loopback<T> {
  readonly host: RecordingHost = new RecordingHost(exports);
  readonly server: ServerHandshake;
  readonly client: ClientHandshake<T>;
  #toServer: Uint8Array[] = [];

  constructor(begin: (host: ClientHandshakeHost) => ClientHandshake<T>, tlsMode: TlsMode) {
    this.server = new ServerHandshake(this.host, tlsMode);
    this.server.start();
    this.client = begin({
      send: (bytes) => this.#toServer.push(bytes),
      startTls: () => undefined,
    });
  }

  /** Runs to the end, in pieces of at most `piece` bytes. */
  run(piece = 1e9): this {
    for (let turn = 0; turn < 100 && !this.client.finished; turn += 1) {
      const toClient = this.host.take();
      let at = 0;
      while (at < toClient.length && !this.client.finished) {
        at += this.client.receive(toClient.subarray(at, at + piece));
      }
      if (this.server.state === 'tls') {
        this.server.tlsStarted();
        this.client.tlsStarted();
      }
      const toServer = Buffer.concat(this.#toServer.splice(0));
      for (let i = 0; i < toServer.length; i += piece) {
        assert.equal(feed(this.server, toServer.subarray(i, i + piece)).length, 0);
      }
    }
    assert.ok(this.client.finished, 'the two do not come to an end');
    return this;
  }
}

function enter(options: ClientOptions, tlsMode: TlsMode = 'off'): Loopback<NegotiatedExport> {
  return new Loopback((host) => ClientHandshake.enter(host, options), tlsMode);
}

test('client and server agree on everything by default', () => {
  for (const piece of [1, 7, 1e9]) {
    const { client, host } = enter({ exportName: 'large' }).run(piece);
    const { transmissionFlags } = host.result as NonNullable<typeof host.result>;
    assert.deepEqual(client.outcome, {
      sizeBytes: 1048576,
      transmissionFlags,
      canonicalName: 'large',
      description: null,
      blockSizes: { minimum: 4096, preferred: 65536, maximumPayload: 33554432 },
      structured: false,
      extended: true,
      baseAllocationId: host.result?.baseAllocationId,
      tls: false,
      entered: 'go',
    });
    assert.equal(host.result?.extended, true);
    assert.equal(host.result?.blockSizeNegotiated, true);
    assert.notEqual(host.result?.baseAllocationId, null);
    assert.ok(transmissionFlags & NBD_FLAG.BLOCK_STATUS_PAYLOAD);
  }
});

test('each feature can be turned off', () => {
  const all = { exportName: '' };
  const structured = enter({ ...all, extendedHeaders: false }).run();
  assert.equal(structured.host.result?.structured, true);
  assert.equal(structured.host.result?.extended, false);
  assert.equal(structured.client.outcome.structured, true);
  const simple = enter({ ...all, extendedHeaders: false, structuredReplies: false }).run();
  assert.equal(simple.host.result?.structured, false);
  assert.equal(simple.client.outcome.structured, false);
  assert.equal(simple.client.outcome.baseAllocationId, null);
  const noMap = enter({ ...all, allocation: false }).run();
  assert.equal(noMap.host.result?.baseAllocationId, null);
  const noSizes = enter({ ...all, blockSize: false }).run();
  assert.equal(noSizes.host.result?.blockSizeNegotiated, false);
  assert.equal(noSizes.client.outcome.blockSizes, null);
});

test('the old way in works, with structured replies or without', () => {
  for (const structuredReplies of [true, false]) {
    const { client, host } = enter({ exportName: '', enter: 'exportName', structuredReplies }).run(
      3,
    );
    assert.equal(client.outcome.entered, 'exportName');
    assert.equal(client.outcome.sizeBytes, 2 ** 40);
    assert.equal(client.outcome.structured, structuredReplies);
    assert.equal(client.outcome.transmissionFlags, host.result?.transmissionFlags);
    assert.equal(client.outcome.baseAllocationId, host.result?.baseAllocationId);
  }
});

test('TLS comes first', () => {
  for (const mode of ['on', 'require'] as const) {
    const { client, host } = enter({ exportName: '', tls: true }, mode).run(5);
    assert.equal(client.outcome.tls, true);
    assert.equal(client.outcome.extended, true);
    assert.equal(host.result?.tls, true);
    assert.equal(host.tlsStarts, 1);
  }
});

function refused(options: ClientOptions, mode: TlsMode = 'off'): NbdOptionError {
  let error: unknown = null;
  try {
    assert.ok(enter(options, mode).run().client.outcome);
  } catch (caught) {
    error = caught;
  }
  assert.ok(error instanceof NbdOptionError);
  return error;
}

test('refusals say what the server said', () => {
  const unknown = refused({ exportName: 'nothing' });
  assert.equal(unknown.reply, NBD_REP_ERR.UNKNOWN);
  assert.match(unknown.message, /NBD_OPT_GO \(NBD_REP_ERR_UNKNOWN\): no such export/);
  assert.equal(refused({ exportName: '', tls: true }).reply, NBD_REP_ERR.POLICY);
  assert.equal(refused({ exportName: '' }, 'require').reply, NBD_REP_ERR.TLS_REQD);
  const blind = refused({ exportName: 'large', blockSize: false });
  assert.equal(blind.reply, NBD_REP_ERR.BLOCK_SIZE_REQD);
});

test('a server lists its exports', () => {
  const loopback = new Loopback<readonly ListedExport[]>(
    (host) => ClientHandshake.list(host, false),
    'off',
  );
  assert.deepEqual(loopback.run(2).client.outcome, [
    { name: '', description: 'the default' },
    { name: 'large', description: '' },
  ]);
});

// A server written by hand, one answer for each thing the client says.

function reply(option: number, ...replies: (readonly [number, Uint8Array?])[]): Uint8Array {
  const out = new Writer();
  for (const [type, payload] of replies) {
    writeOptionReply(out, option, type, payload ?? new Uint8Array(0));
  }
  return out.finish();
}

function against(
  answers: readonly Uint8Array[],
  options: ClientOptions = { exportName: 'x' },
): { client: ClientHandshake<NegotiatedExport>; said: string[] } {
  const said: string[] = [];
  const client = ClientHandshake.enter(
    {
      send: (bytes) => said.push(Buffer.from(bytes).toString('hex')),
      startTls: () => said.push('tls'),
    },
    options,
  );
  for (const answer of answers) client.receive(answer);
  return { client, said };
}

const GREETING = encodeGreeting(3);
const NO_EXT = reply(NBD_OPT.EXTENDED_HEADERS, [NBD_REP_ERR.UNSUP]);
const NO_SR = reply(NBD_OPT.STRUCTURED_REPLY, [NBD_REP_ERR.UNSUP]);
const SR = reply(NBD_OPT.STRUCTURED_REPLY, [NBD_REP.ACK]);
const FLAGS = exportFlags(makeExport('x'));
const EXPORT = encodeInfoExport(4096, FLAGS);

test('an old server without GO is entered by name', () => {
  const { client, said } = against([
    GREETING,
    NO_EXT,
    NO_SR,
    reply(NBD_OPT.GO, [NBD_REP_ERR.UNSUP]),
    encodeExport(4096, FLAGS, true),
  ]);
  assert.equal(client.outcome.entered, 'exportName');
  assert.ok(said.at(-1)?.endsWith('000000010000000178'), said.at(-1));
});

test('a server of before fixed newstyle is entered by name at once', () => {
  const { client, said } = against([encodeGreeting(0), encodeExport(4096, 1, false)]);
  assert.equal(client.outcome.entered, 'exportName');
  assert.deepEqual(said[0], '00000000');
  assert.equal(said.length, 2);
});

test('a server without metadata contexts is used without', () => {
  const { client } = against([
    GREETING,
    NO_EXT,
    SR,
    reply(NBD_OPT.SET_META_CONTEXT, [NBD_REP_ERR.UNSUP]),
    reply(NBD_OPT.GO, [NBD_REP.INFO, EXPORT], [NBD_REP.ACK]),
  ]);
  assert.equal(client.outcome.baseAllocationId, null);
  assert.equal(client.outcome.blockSizes, null);
});

test('flags without HAS_FLAGS are no flags, and unknown information is passed over', () => {
  const { client } = against([
    GREETING,
    NO_EXT,
    NO_SR,
    reply(
      NBD_OPT.GO,
      [NBD_REP.INFO, Buffer.from('7fff0102', 'hex')],
      [NBD_REP.INFO, encodeInfoExport(4096, 0xfffe)],
      [NBD_REP.ACK],
    ),
  ]);
  assert.equal(client.outcome.transmissionFlags, 0);
});

const BROKEN: readonly (readonly [string, RegExp, readonly Uint8Array[], ClientOptions?])[] = [
  ['a web server', /not an NBD server: it said 'HTTP/, [encodeText('HTTP/1.1 400 Bad R')]],
  ['an oldstyle server', /oldstyle/, [Buffer.from('4e42444d4147494300004202818612530000', 'hex')]],
  ['a reply without magic', /magic/, [GREETING, new Uint8Array(20)]],
  [
    'a reply to something else',
    /NBD_OPT_LIST, which/,
    [GREETING, reply(NBD_OPT.LIST, [NBD_REP.ACK])],
  ],
  [
    'a reply of 4 GiB',
    /4294967295 bytes/,
    [GREETING, Buffer.from('0003e889045565a90000000b00000001ffffffff', 'hex')],
  ],
  [
    'GO without an export',
    /without NBD_INFO_EXPORT/,
    [GREETING, NO_EXT, NO_SR, reply(NBD_OPT.GO, [NBD_REP.ACK])],
  ],
  [
    'a short NBD_INFO_EXPORT',
    /malformed NBD_REP_INFO/,
    [GREETING, NO_EXT, NO_SR, reply(NBD_OPT.GO, [NBD_REP.INFO, EXPORT.subarray(1)], [NBD_REP.ACK])],
  ],
  [
    'a reply that is no information',
    /malformed NBD_REP_INFO/,
    [GREETING, NO_EXT, NO_SR, reply(NBD_OPT.GO, [NBD_REP.SERVER, EXPORT], [NBD_REP.ACK])],
  ],
  [
    'a malformed context',
    /META_CONTEXT/,
    [GREETING, NO_EXT, SR, reply(NBD_OPT.SET_META_CONTEXT, [NBD_REP.META_CONTEXT], [NBD_REP.ACK])],
  ],
  [
    'data in the clear behind STARTTLS',
    /clear/,
    [GREETING, Buffer.concat([reply(NBD_OPT.STARTTLS, [NBD_REP.ACK]), Uint8Array.of(0)])],
    { exportName: 'x', tls: true },
  ],
  ['TLS with an old server', /too old for TLS/, [encodeGreeting(2)], { exportName: '', tls: true }],
  ...[
    [3, 4096, 8192],
    [0, 4096, 8192],
    [131072, 131072, 262144],
    [512, 256, 8192],
    [512, 1000, 8192],
    [512, 4096, 100],
  ].map(
    ([minimum = 0, preferred = 0, maximumPayload = 0]) =>
      [
        `block sizes ${minimum}, ${preferred}, ${maximumPayload}`,
        /impossible block sizes/,
        [
          GREETING,
          NO_EXT,
          NO_SR,
          reply(
            NBD_OPT.GO,
            [NBD_REP.INFO, EXPORT],
            [NBD_REP.INFO, encodeInfoBlockSize({ minimum, preferred, maximumPayload })],
            [NBD_REP.ACK],
          ),
        ],
      ] as const,
  ),
];

for (const [what, message, answers, options] of BROKEN) {
  test(`a server that breaks the protocol: ${what}`, () => {
    const { client } = against(answers, options);
    assert.ok(client.finished);
    assert.throws(
      () => client.outcome,
      (error) => error instanceof ProtocolError && message.test(error.message),
    );
  });
}

test('a list without end is ended', () => {
  const client = ClientHandshake.list({ send: () => undefined, startTls: () => undefined }, false);
  client.receive(GREETING);
  const more = reply(NBD_OPT.LIST, [NBD_REP.SERVER, encodeServerReply('x'.repeat(4000), '')]);
  for (let i = 0; i < 10_000 && !client.finished; i += 1) client.receive(more);
  assert.throws(() => client.outcome, /without end/);
});

test('a connection that breaks ends the negotiation', () => {
  const { client } = against([GREETING]);
  client.fail(new Error('gone'));
  assert.throws(() => client.outcome, /gone/);
  assert.equal(client.receive(NO_EXT), 0);
});

test('the outcome is not there before the end', () => {
  assert.throws(() => against([GREETING]).client.outcome, /not over/);
});

test('a hostile server never makes the client throw or wait on what it will not read', () => {
  const piece = fc.oneof(
    fc.constant(GREETING),
    fc.constantFrom(NO_EXT, NO_SR, SR, encodeExport(4096, FLAGS, true)),
    fc
      .tuple(
        fc.constantFrom(...Object.values(NBD_OPT)),
        fc.constantFrom(...Object.values(NBD_REP), ...Object.values(NBD_REP_ERR), 77),
        fc.oneof(
          fc.constantFrom(EXPORT, encodeMetaContext(1, 'base:allocation'), new Uint8Array(0)),
          fc.uint8Array({ maxLength: 40 }),
        ),
      )
      .map(([option, type, payload]) => reply(option, [type, payload])),
    fc.uint8Array({ maxLength: 30 }),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 10 }), fc.boolean(), (pieces, tls) => {
      const { client, said } = against([GREETING], { exportName: 'x', tls });
      for (const bytes of pieces) {
        const used = client.receive(bytes);
        assert.ok(used === bytes.length || client.finished || said.includes('tls'));
        if (said.at(-1) === 'tls') client.tlsStarted();
      }
      assert.ok(said.length <= 8);
    }),
    { numRuns: 2000 },
  );
});
