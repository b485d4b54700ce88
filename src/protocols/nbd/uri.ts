/**
 * NBD URIs, after doc/uri.md of github.com/NetworkBlockDevice/nbd and RFC 3986.
 *
 *     nbd://host:10809/export      nbd+unix:///export?socket=/run/x.sock      nbds:, nbds+unix: the same over TLS
 */

import { isIPv6 } from 'node:net';
import { UsageError } from '../../base/errors.ts';
import type { SocketAddress } from '../../reactor/reactor.ts';
import { decodeText, encodeText } from './bytes.ts';
import { MAX_STRING_BYTES } from './limits.ts';
import { NBD_DEFAULT_PORT } from './wire.ts';

/** Where an NBD URI can point: a listening descriptor has no URI. */
export type UriAddress = Exclude<SocketAddress, { readonly kind: 'fd' }>;

/** What a URI says about TLS; absent fields were not given. */
export interface UriTls {
  readonly type?: 'anon' | 'x509' | 'psk';
  /** The name to verify the server's certificate against, instead of the host. */
  readonly hostname?: string;
  readonly verifyPeer?: boolean;
  /** For PSK. */
  readonly username?: string;
  /** libnbd's key: a directory of certificates. */
  readonly certificates?: string;
  /** libnbd's key: a file of keys. */
  readonly pskFile?: string;
}

export interface NbdUri {
  readonly address: UriAddress;
  /** '' is the default export. */
  readonly exportName: string;
  /** Null for nbd: and nbd+unix:, which we take as unencrypted. Otherwise TLS or no connection. */
  readonly tls: UriTls | null;
}

const SCHEME = /^(nbds?)(\+unix)?:/i;
// [RFC 3986 appendix B], without the scheme.
const PARTS = /^(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?(#.*)?$/s;
const AUTHORITY = /^(?:([^@]*)@)?(\[[^\]]*\]|[^:@[\]]*)(?::(\d*))?$/;
const TLS_KEYS = [
  'tls-type',
  'tls-hostname',
  'tls-verify-peer',
  'tls-certificates',
  'tls-psk-file',
];

/** Whether a text is meant as an NBD URI, so that a mistake in it is a mistake and not a file name. */
export function isNbdUri(text: string): boolean {
  return SCHEME.test(text);
}

/** Parses an NBD URI. Throws a UsageError that names the mistake. */
export function parseNbdUri(text: string): NbdUri {
  const scheme = SCHEME.exec(text);
  if (scheme === null) {
    throw wrong(text, 'it does not start with nbd:, nbds:, nbd+unix: or nbds+unix:');
  }
  const parts = PARTS.exec(text.slice(scheme[0].length));
  if (parts === null) throw wrong(text, 'it is not a URI');
  if (parts[4] !== undefined) throw wrong(text, "a '#' in a name is written %23");
  const path = parts[2] ?? '';
  if (path !== '' && !path.startsWith('/'))
    throw wrong(text, "the name follows '//host/' or '///'");
  const parameters = parseQuery(text, parts[3]);
  const { username, host, port } = parseAuthority(text, parts[1] ?? '');
  const address =
    scheme[2] === undefined
      ? tcpAddress(text, host, port, parameters)
      : unixAddress(text, host, port, parameters);
  const tls = parseTls(text, scheme[1]?.toLowerCase() === 'nbds', username, parameters);
  return { address, exportName: decodeExportName(text, path.slice(1)), tls };
}

function wrong(text: string, why: string): UsageError {
  return new UsageError(`not an NBD URI: '${text}': ${why}`);
}

/** Percent-decodes to bytes, then to text [RFC 3986 §2.1]. */
function decode(text: string, part: string): Uint8Array {
  if (/%(?![0-9a-f]{2})/i.test(part)) throw wrong(text, "a '%' is written %25");
  const bytes = encodeText(part);
  const out: number[] = [];
  for (let i = 0; i < bytes.length; i += 1) {
    if (bytes[i] === 0x25) {
      out.push(Number.parseInt(String.fromCharCode(...bytes.subarray(i + 1, i + 3)), 16));
      i += 2;
    } else {
      out.push(bytes[i] as number);
    }
  }
  return Uint8Array.from(out);
}

function decodeWord(text: string, part: string, what: string): string {
  const word = decodeText(decode(text, part));
  if (word === null) throw wrong(text, `${what} is not UTF-8 text`);
  return word;
}

function decodeExportName(text: string, part: string): string {
  const name = decodeWord(text, part, 'the export name');
  if (encodeText(name).length > MAX_STRING_BYTES) {
    throw wrong(text, `an export name has at most ${MAX_STRING_BYTES} bytes`);
  }
  return name;
}

function parseQuery(text: string, query: string | undefined): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const pair of (query ?? '').split(/[&;]/)) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const key = decodeWord(text, equals < 0 ? pair : pair.slice(0, equals), 'a parameter');
    // "Any other query parameters which the client does not understand SHOULD be diagnosed by the parser."
    if (key !== 'socket' && !TLS_KEYS.includes(key)) {
      throw wrong(
        text,
        `the parameter '${key}' is not known (known: socket, ${TLS_KEYS.join(', ')})`,
      );
    }
    if (parameters.has(key)) throw wrong(text, `the parameter '${key}' is there twice`);
    parameters.set(key, equals < 0 ? '' : pair.slice(equals + 1));
  }
  return parameters;
}

function parseAuthority(
  text: string,
  authority: string,
): { username: string; host: string; port: number | null } {
  const match = AUTHORITY.exec(authority);
  if (match === null) throw wrong(text, `'${authority}' is not a host, host:port or [IPv6]:port`);
  const username = decodeWord(text, match[1] ?? '', 'the user name');
  let host = decodeWord(text, match[2] ?? '', 'the host');
  if (host.startsWith('[')) {
    host = host.slice(1, -1);
    if (!isIPv6(host)) throw wrong(text, `'${host}' is not an IPv6 address`);
  } else if (/[\s/:@?#]/.test(host)) {
    throw wrong(text, `'${host}' is not a host name`);
  }
  const digits = match[3] ?? '';
  const port = digits === '' ? null : Number(digits);
  if (port !== null && port > 65535) throw wrong(text, `${digits} is not a port (0 to 65535)`);
  return { username, host, port };
}

function tcpAddress(
  text: string,
  host: string,
  port: number | null,
  parameters: ReadonlyMap<string, string>,
): UriAddress {
  if (parameters.has('socket')) {
    throw wrong(text, 'a socket parameter needs the scheme nbd+unix: or nbds+unix:');
  }
  return { kind: 'tcp', host: host === '' ? 'localhost' : host, port: port ?? NBD_DEFAULT_PORT };
}

function unixAddress(
  text: string,
  host: string,
  port: number | null,
  parameters: ReadonlyMap<string, string>,
): UriAddress {
  if (host !== '' || port !== null) {
    throw wrong(text, 'a Unix socket has no host: the name follows three slashes');
  }
  const socket = parameters.get('socket') ?? '';
  if (socket === '') throw wrong(text, 'a Unix socket is named by ?socket=/path');
  const bytes = decode(text, socket);
  // A leading NUL is Linux's abstract namespace, and has no other place [NBD uri "NBD URI socket parameter"].
  const path = decodeText(bytes[0] === 0 ? bytes.subarray(1) : bytes);
  if (path === null) throw wrong(text, 'the socket is not UTF-8 text');
  return { kind: 'unix', path: bytes[0] === 0 ? `\0${path}` : path };
}

function parseTls(
  text: string,
  encrypted: boolean,
  username: string,
  parameters: ReadonlyMap<string, string>,
): UriTls | null {
  if (!encrypted) {
    const key = TLS_KEYS.find((each) => parameters.has(each));
    if (key !== undefined) throw wrong(text, `${key} needs the scheme nbds: or nbds+unix:`);
    return null;
  }
  const get = (key: string): string | null => {
    const value = parameters.get(key);
    return value === undefined ? null : decodeWord(text, value, key);
  };
  const type = get('tls-type');
  if (type !== null && type !== 'anon' && type !== 'x509' && type !== 'psk') {
    throw wrong(text, `tls-type is anon, x509 or psk, not '${type}'`);
  }
  const verify = get('tls-verify-peer');
  if (verify !== null && verify !== '0' && verify !== '1') {
    throw wrong(text, `tls-verify-peer is 0 or 1, not '${verify}'`);
  }
  const hostname = get('tls-hostname');
  const certificates = get('tls-certificates');
  const pskFile = get('tls-psk-file');
  return {
    ...(type === null ? {} : { type }),
    ...(hostname === null ? {} : { hostname }),
    ...(verify === null ? {} : { verifyPeer: verify === '1' }),
    ...(username === '' ? {} : { username }),
    ...(certificates === null ? {} : { certificates }),
    ...(pskFile === null ? {} : { pskFile }),
  };
}

/** Quotes everything but letters, digits and '-._~' [RFC 3986 §2.3]. */
function quote(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** The same for a path or a query, where '/', ':' and '@' may stand for themselves. */
function encode(text: string): string {
  return quote(text).replaceAll('%2F', '/').replaceAll('%3A', ':').replaceAll('%40', '@');
}

/** The URI of an export; `parseNbdUri` gives the same back. */
export function formatNbdUri(uri: NbdUri): string {
  const { address, tls } = uri;
  const user = tls?.username === undefined ? '' : `${quote(tls.username)}@`;
  const query: string[] = [];
  let authority = user;
  if (address.kind === 'tcp') {
    authority += address.host.includes(':') ? `[${address.host}]` : encode(address.host);
    if (address.port !== NBD_DEFAULT_PORT) authority += `:${address.port}`;
  } else {
    query.push(`socket=${encode(address.path)}`);
  }
  if (tls?.type !== undefined) query.push(`tls-type=${tls.type}`);
  if (tls?.hostname !== undefined) query.push(`tls-hostname=${encode(tls.hostname)}`);
  if (tls?.verifyPeer !== undefined) query.push(`tls-verify-peer=${tls.verifyPeer ? '1' : '0'}`);
  if (tls?.certificates !== undefined) query.push(`tls-certificates=${encode(tls.certificates)}`);
  if (tls?.pskFile !== undefined) query.push(`tls-psk-file=${encode(tls.pskFile)}`);
  const scheme = (tls === null ? 'nbd' : 'nbds') + (address.kind === 'unix' ? '+unix' : '');
  const path = `/${encode(uri.exportName)}`;
  return `${scheme}://${authority}${path}${query.length === 0 ? '' : `?${query.join('&')}`}`;
}
