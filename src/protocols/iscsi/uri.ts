/**
 * iSCSI URIs, as libiscsi and QEMU read them:
 *
 *     iscsi://[user[%password]@]host[:port]/target/lun[?key=value&...]
 *
 * Names and their rules are in iscsi-name.ts.
 */
import { UsageError } from '../../base/errors.ts';
import { formatIscsiUrl, ISCSI_DEFAULT_PORT, iscsiNameError, type IscsiUrl } from './iscsi-name.ts';

export interface IscsiUri extends IscsiUrl {
  /** CHAP; null: none. */
  readonly user: string | null;
  readonly password: string | null;
  /** What stands behind '?': of KEYS. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** libiscsi's parameters, and what it takes for them. */
const KEYS: ReadonlyMap<string, RegExp> = new Map([
  ['header_digest', /^(?:crc32c|none)$/],
  ['data_digest', /^(?:crc32c|none)$/],
  ['auth', /^(?:md5|sha1|sha-256|sha3-256)$/],
  ['target_user', /./],
  ['target_password', /./],
]);

const MAX_LUN = 16_383;
const SCHEME = /^iscsi:/i;
const FORM =
  /^iscsi:\/\/(?:([^@/?]*)@)?(\[[^\]/?]*\]|[^:/?@[\]]+)(?::(\d+))?\/([^/?]+)\/([^/?]+)(?:\?(.*))?$/is;

/** Whether a text is meant as an iSCSI URI, so that a mistake in it is a mistake and not a file name. */
export function isIscsiUri(text: string): boolean {
  return SCHEME.test(text);
}

/** Parses a full URI. Throws a UsageError that names the mistake. */
export function parseIscsiUri(text: string): IscsiUri {
  const parts = FORM.exec(text);
  if (parts === null) {
    throw wrong(text, 'it has the form iscsi://[user@]host[:port]/target/lun');
  }
  const [, login, bracketed = '', portText, encodedTarget = '', lunText = '', query] = parts;
  const port = portText === undefined ? ISCSI_DEFAULT_PORT : Number(portText);
  if (port < 1 || port > 65_535) throw wrong(text, 'a port is a number from 1 to 65535');
  const target = decode(text, encodedTarget).toLowerCase();
  const error = iscsiNameError(target);
  if (error !== null) throw wrong(text, `of the target's name: ${error}`);
  if (!/^\d{1,5}$/.test(lunText) || Number(lunText) > MAX_LUN) {
    throw wrong(text, `a LUN is a number from 0 to ${MAX_LUN}`);
  }
  const { user, password } = parseLogin(login);
  return {
    host: bracketed.startsWith('[') ? bracketed.slice(1, -1) : bracketed,
    port,
    target,
    lun: Number(lunText),
    user,
    password,
    parameters: parseQuery(text, query ?? ''),
  };
}

/** As `parseIscsiUri` takes it; without the password, which belongs into no message. */
export function formatIscsiUri(uri: IscsiUri): string {
  const plain = formatIscsiUrl(uri);
  const login = uri.user === null ? '' : `${uri.user}@`;
  const parameters = [...uri.parameters].filter(([key]) => key !== 'target_password');
  const query = parameters.map(([key, value]) => `${key}=${value}`).join('&');
  return `iscsi://${login}${plain.slice('iscsi://'.length)}${query === '' ? '' : `?${query}`}`;
}

/** "user%password", or "user:password": libiscsi takes both, and decodes neither. */
function parseLogin(login: string | undefined): { user: string | null; password: string | null } {
  if (login === undefined || login === '') return { user: null, password: null };
  const split = login.includes('%') ? login.indexOf('%') : login.indexOf(':');
  if (split < 0) return { user: login, password: null };
  return { user: login.slice(0, split), password: login.slice(split + 1) };
}

function parseQuery(text: string, query: string): ReadonlyMap<string, string> {
  const parameters = new Map<string, string>();
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const key = equals < 0 ? pair : pair.slice(0, equals);
    const value = equals < 0 ? '' : pair.slice(equals + 1);
    const form = KEYS.get(key);
    if (form === undefined)
      throw wrong(text, `a parameter is one of ${[...KEYS.keys()].join(', ')}`);
    if (!form.test(value)) throw wrong(text, `${key} cannot have this value`);
    parameters.set(key, value);
  }
  return parameters;
}

/** Percent-decodes [RFC 3986 2.1]. */
function decode(text: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw wrong(text, "a '%' in a name is written %25");
  }
}

/** The message shows the text without what may be a password. */
function wrong(text: string, why: string): UsageError {
  const shown = text
    .replace(/^(iscsi:\/\/[^@%:]*)[%:].*@/i, '$1@')
    .replace(/target_password=[^&]*/, 'target_password=...');
  return new UsageError(`not an iSCSI URI: '${shown}': ${why}`);
}
