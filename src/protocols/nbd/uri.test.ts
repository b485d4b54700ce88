import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { UsageError } from '../../base/errors.ts';
import { formatNbdUri, isNbdUri, type NbdUri, parseNbdUri, type UriTls } from './uri.ts';

function tcp(host: string, port: number, exportName: string, tls: UriTls | null = null): NbdUri {
  return { address: { kind: 'tcp', host, port }, exportName, tls };
}

function unix(path: string, exportName: string, tls: UriTls | null = null): NbdUri {
  return { address: { kind: 'unix', path }, exportName, tls };
}

const GOOD: readonly (readonly [string, NbdUri])[] = [
  // [NBD uri "NBD URI export name"], the whole table
  ['nbd://example.com/disk', tcp('example.com', 10809, 'disk')],
  ['nbd+unix:///disk?socket=sock', unix('sock', 'disk')],
  ['nbd://example.com/', tcp('example.com', 10809, '')],
  ['nbd://example.com', tcp('example.com', 10809, '')],
  ['nbd://example.com//disk', tcp('example.com', 10809, '/disk')],
  ['nbd://example.com/hello%20world', tcp('example.com', 10809, 'hello world')],
  // [NBD uri "NBD URI components"] and "NBD URI socket parameter"
  ['nbd://example.com:10809/export', tcp('example.com', 10809, 'export')],
  ['nbd+unix:///export?socket=nbd.sock', unix('nbd.sock', 'export')],
  ['nbd+unix:///?socket=%00/abstract', unix('\0/abstract', '')],
  // [RFC 3986]
  ['NBD://[::1]:7/x', tcp('::1', 7, 'x')],
  ['nbd://[fe80::1]', tcp('fe80::1', 10809, '')],
  ['nbd://localhost:/x', tcp('localhost', 10809, 'x')],
  ['nbd://127.0.0.1:0', tcp('127.0.0.1', 0, '')],
  ['nbd:///x', tcp('localhost', 10809, 'x')],
  ['nbd:/x', tcp('localhost', 10809, 'x')],
  ['nbd:', tcp('localhost', 10809, '')],
  ['nbd://h/a+b&c=d', tcp('h', 10809, 'a+b&c=d')],
  ['nbd://h/%C3%A9%2F%3F', tcp('h', 10809, 'é/?')],
  ['nbd+unix:/x?socket=/a%20b', unix('/a b', 'x')],
  ['nbds://h', tcp('h', 10809, '', {})],
  ['nbds+unix:///?socket=/s', unix('/s', '', {})],
  [
    'nbds://alice@h:1/x?tls-type=psk&tls-hostname=name&tls-verify-peer=0&tls-psk-file=/k',
    tcp('h', 1, 'x', {
      type: 'psk',
      hostname: 'name',
      verifyPeer: false,
      username: 'alice',
      pskFile: '/k',
    }),
  ],
  [
    'nbds+unix://bob@/?tls-certificates=/c;socket=/s',
    unix('/s', '', { username: 'bob', certificates: '/c' }),
  ],
];

for (const [text, parsed] of GOOD) {
  test(`parses ${text}`, () => assert.deepEqual(parseNbdUri(text), parsed));
}

const BAD: readonly (readonly [string, RegExp])[] = [
  ['http://h', /does not start with nbd:/],
  ['nbd', /does not start with nbd:/],
  ['nbd:x', /follows/],
  ['nbd://h/x#y', /%23/],
  ['nbd://h/100%', /%25/],
  ['nbd://h/%FF', /not UTF-8/],
  ['nbd://h/a%00b', /not UTF-8 text/],
  ['nbd://h:65536', /not a port/],
  ['nbd://h:1x', /host:port/],
  ['nbd://::1', /\[IPv6\]/],
  ['nbd://[::g]', /not an IPv6 address/],
  ['nbd://a b', /not a host name/],
  ['nbd://h?socket=/s', /needs the scheme nbd\+unix/],
  ['nbd+unix:///x', /socket=/],
  ['nbd+unix:///x?socket=', /socket=/],
  ['nbd+unix://x?socket=/s', /three slashes/],
  ['nbd+unix://:1/x?socket=/s', /three slashes/],
  ['nbd+unix:///?socket=/a%00b', /not UTF-8 text/],
  ['nbd+unix:///?socket=/a&socket=/b', /twice/],
  ['nbd://h?colour=red', /'colour' is not known/],
  ['nbd://h?x-fast=1', /'x-fast' is not known/],
  ['nbd://h?tls-type=psk', /needs the scheme nbds/],
  ['nbds://h?tls-type=rot13', /not 'rot13'/],
  ['nbds://h?tls-verify-peer=yes', /not 'yes'/],
  [`nbd://h/${'x'.repeat(4097)}`, /4096/],
];

for (const [text, message] of BAD) {
  test(`refuses ${text.slice(0, 60)}`, () => {
    assert.throws(
      () => parseNbdUri(text),
      (error) => error instanceof UsageError && message.test(error.message),
    );
  });
}

test('an NBD URI is told from a file name', () => {
  assert.ok(isNbdUri('nbds+unix:///?socket=x'));
  assert.ok(!isNbdUri('/srv/nbd:disk'));
  assert.ok(!isNbdUri('nbd.img'));
});

test('what is formatted parses to the same', () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 40 }).filter((s) => !s.includes('\0'));
  const word = text.filter((s) => s !== '');
  const tls = fc.option(
    fc.record(
      {
        type: fc.constantFrom('anon', 'x509', 'psk'),
        hostname: text,
        verifyPeer: fc.boolean(),
        username: word,
        certificates: text,
        pskFile: text,
      },
      { requiredKeys: [] },
    ) as fc.Arbitrary<UriTls>,
  );
  const address = fc.oneof(
    fc.record({
      kind: fc.constant('tcp' as const),
      host: fc.oneof(
        fc.domain(),
        fc.ipV4(),
        fc.ipV6().filter((host) => !host.includes('.')),
      ),
      port: fc.nat(65535),
    }),
    fc.record({
      kind: fc.constant('unix' as const),
      path: fc.oneof(
        word,
        word.map((s) => `\0${s}`),
      ),
    }),
  );
  fc.assert(
    fc.property(fc.record({ address, exportName: text, tls }), (uri) => {
      const formatted = formatNbdUri(uri);
      assert.match(formatted, /^[\w:/?&=%@.[\]+~-]+$/, 'a character that is not for URIs');
      assert.deepEqual(parseNbdUri(formatted), structuredClone(uri));
    }),
  );
});

test('any text parses or is a UsageError', () => {
  const tail = fc.string({ unit: fc.constantFrom(...Array.from('nbd:/?#[]@%0aé&=;+socket')) });
  fc.assert(
    fc.property(fc.constantFrom('nbd:', 'nbds+unix:', ''), tail, (scheme, rest) => {
      try {
        parseNbdUri(scheme + rest);
      } catch (error) {
        assert.ok(error instanceof UsageError);
        assert.ok(!error.message.includes('\n') || rest.includes('\n'));
      }
    }),
    { numRuns: 2000 },
  );
});
