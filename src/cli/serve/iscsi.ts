import { createHash } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { basename, extname } from 'node:path';
import { UsageError } from '../../base/errors.ts';
import {
  ISCSI_DEFAULT_PORT,
  iscsiNameError,
  portalText,
} from '../../protocols/iscsi/iscsi-name.ts';
import type { DiskConfig, IscsiListen, IscsiLun, IscsiTargetConfig } from '../../server/config.ts';
import { readChapFile } from './iscsi-secret.ts';

/** A place for iSCSI as --listen has it. */
export interface IscsiChoice {
  readonly protocol: 'iscsi';
  readonly address: IscsiListen['address'];
  /** Null: named after the first disk. */
  readonly target: string | null;
  /** In their order; those that may be repeated with all their values. */
  readonly keys: ReadonlyMap<string, readonly string[]>;
}

const SCHEME = 'iscsi://';
const ONCE = ['alias', 'chap', 'mutual-chap'];
const REPEATED = ['lun', 'initiator', 'removable', 'thin', 'serial'];
const KEYS = [...REPEATED, ...ONCE];

/** [SAM-5 4.7.5.1] LUNs that are written in two bytes by flat space addressing. */
const MOST_LUN = 16_383;
/** As many as one REPORT LUNS is asked for by every initiator; each costs memory for each session. */
const MOST_LUNS = 256;
/** [RFC 7143 13.7] TargetAlias is at most 255 bytes of UTF-8. */
const MOST_ALIAS_BYTES = 255;
/** What the T10 vendor ID designator has room for beside the vendor, and far more than initiators show. */
const MOST_SERIAL = 32;

/**
 * An iSCSI name needs a domain that its giver owned at that date [RFC 7143 4.2.7.4], and we own none. Under `.local`, which
 * is set aside for names that hold on one's own link [RFC 6762 3], nobody can: the name is legal and collides with no
 * naming authority's. It is the same on every start, and on every host: whoever serves beyond one machine gives names.
 */
const DEFAULT_NAME = 'iqn.2026-11.local.holdfast:';
/** How much of a long or odd export name stays readable in it. */
const READABLE = 64;

/** Whether a text is meant as a place for iSCSI, so that a mistake in it is a mistake and no file name. */
export function isIscsi(text: string): boolean {
  return /^iscsi:/i.test(text);
}

/** Reads iscsi://[HOST][:PORT][/TARGET][?KEY=VALUE[&KEY=VALUE]...]. Throws a UsageError that names the mistake. */
export function parseIscsi(text: string): IscsiChoice {
  if (!text.startsWith(SCHEME)) throw wrong(text, `it is written ${SCHEME}HOST:PORT/TARGET`);
  const [, where = '', query = ''] = /^([^?]*)(?:\?(.*))?$/s.exec(text.slice(SCHEME.length)) ?? [];
  const slash = where.indexOf('/');
  const authority = slash < 0 ? where : where.slice(0, slash);
  const name = slash < 0 ? '' : decode(text, where.slice(slash + 1));
  if (/\/\d*$/.test(name))
    throw wrong(text, 'a LUN is given as ?lun=EXPORT:N, or by the order of the DISKs');
  const why = name === '' ? null : iscsiNameError(name);
  if (why !== null) throw wrong(text, `'${name}' is not an iSCSI name: ${why}`);
  return {
    protocol: 'iscsi',
    address: parseAuthority(text, authority),
    target: name === '' ? null : name,
    keys: parseKeys(text, query),
  };
}

/**
 * Settles which targets and logical units there are, and reads the secrets. `warn`: a file that others can read. Throws
 * UsageError, or ConfigError for the files.
 */
export function settleIscsi(
  choices: readonly IscsiChoice[],
  disks: readonly DiskConfig[],
  warn: (line: string) => void,
): IscsiListen[] {
  const targets = new Map<string, IscsiTargetConfig>();
  return choices.map((choice) => {
    const name = choice.target ?? defaultTargetName(disks);
    let target = targets.get(name);
    if (target === undefined) {
      target = makeTarget(name, choice, disks, warn);
      targets.set(name, target);
    } else if (choice.keys.size > 0) {
      throw new UsageError(
        `${iscsiPlaceName(choice)}: what target ${name} is like is said at its first --listen; this is one more portal of it`,
      );
    }
    return { protocol: 'iscsi', address: choice.address, target };
  });
}

/** The name of a target that was given none: of the first disk's export name, else of its file's. */
export function defaultTargetName(disks: readonly DiskConfig[]): string {
  const [first] = disks;
  const { exportName = '', disk = '' } = first ?? {};
  const file = disk.startsWith('memory:') ? 'memory' : basename(disk, extname(disk));
  const name = exportName === '' ? file : exportName;
  const plain = name.toLowerCase().replaceAll(/[^a-z0-9.:-]/g, '-');
  if (plain === name && name.length <= READABLE) return DEFAULT_NAME + name;
  // Two names that only look alike in letters that are allowed stay two.
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 8);
  return `${DEFAULT_NAME}${plain.slice(0, READABLE)}-${hash}`;
}

/** How the place is shown, without what is secret or long. */
export function iscsiPlaceName({ address: { host, port } }: Pick<IscsiListen, 'address'>): string {
  return `${SCHEME}${portalText(host, port)}`;
}

function makeTarget(
  name: string,
  choice: IscsiChoice,
  disks: readonly DiskConfig[],
  warn: (line: string) => void,
): IscsiTargetConfig {
  const place = iscsiPlaceName(choice);
  const one = (key: string): string | undefined => choice.keys.get(key)?.[0];
  const alias = one('alias') ?? '';
  if (Buffer.byteLength(alias) > MOST_ALIAS_BYTES) {
    throw new UsageError(`${place}: alias has at most ${MOST_ALIAS_BYTES} bytes`);
  }
  const initiators = choice.keys.get('initiator')?.map((each) => {
    const initiator = each.toLowerCase();
    const why = iscsiNameError(initiator);
    if (why !== null)
      throw new UsageError(`${place}: initiator '${each}' is no iSCSI name: ${why}`);
    return initiator;
  });
  const [chapFile, mutualFile] = [one('chap'), one('mutual-chap')];
  if (mutualFile !== undefined && chapFile === undefined) {
    throw new UsageError(
      `${place}: mutual-chap needs chap: a target proves itself to initiators that have proved themselves`,
    );
  }
  const chap = chapFile === undefined ? undefined : readChapFile(chapFile, warn);
  const mutualChap = mutualFile === undefined ? undefined : readChapFile(mutualFile, warn);
  if (chap !== undefined && mutualChap !== undefined) {
    // "initiators and targets MUST NOT use the same secret for both directions" [RFC 7143 9.2.1].
    if (Buffer.compare(chap.secret, mutualChap.secret) === 0) {
      throw new UsageError(`${place}: chap and mutual-chap have the same secret; they must differ`);
    }
  }
  return {
    name,
    alias,
    luns: makeLuns(place, choice, disks),
    ...(chap === undefined ? {} : { chap }),
    ...(mutualChap === undefined ? {} : { mutualChap }),
    ...(initiators === undefined ? {} : { initiators }),
  };
}

/** All disks in their order from LUN 0 on, or those that are named. */
function makeLuns(place: string, choice: IscsiChoice, disks: readonly DiskConfig[]): IscsiLun[] {
  const given = choice.keys.get('lun');
  const luns =
    given === undefined
      ? disks.map(({ exportName }, lun) => ({ lun, exportName }))
      : given.map((text) => namedLun(place, text, disks));
  if (luns.length > MOST_LUNS) {
    throw new UsageError(`${place}: a target has at most ${MOST_LUNS} logical units`);
  }
  for (const [i, { lun }] of luns.entries()) {
    if (luns.findIndex((each) => each.lun === lun) !== i) {
      throw new UsageError(`${place}: LUN ${lun} is there twice`);
    }
  }
  const numbers = luns.map(({ lun }) => lun);
  const removable = perLun(place, choice, 'removable', numbers);
  const thin = perLun(place, choice, 'thin', numbers);
  const serial = perLun(place, choice, 'serial', numbers);
  return luns.map((each) => ({
    ...each,
    ...optional('removable', parseSwitch(place, 'removable', removable.get(each.lun))),
    ...optional('thin', parseSwitch(place, 'thin', thin.get(each.lun))),
    ...optional('serial', parseSerial(place, serial.get(each.lun))),
  }));
}

function optional<K extends string, V>(key: K, value: V | undefined): { readonly [k in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [k in K]: V });
}

/** EXPORT:N */
function namedLun(place: string, text: string, disks: readonly DiskConfig[]): IscsiLun {
  const [, exportName = '', digits] = /^(.*):(\d{1,5})$/s.exec(text) ?? [];
  const lun = digits === undefined ? NaN : Number(digits);
  if (!(lun <= MOST_LUN)) {
    throw new UsageError(`${place}: lun is EXPORT:N with N from 0 to ${MOST_LUN}, not '${text}'`);
  }
  if (disks.some((disk) => disk.exportName === exportName)) return { lun, exportName };
  const list = disks.map((disk) => `'${disk.exportName}'`).join(', ');
  throw new UsageError(`${place}: no disk is named '${exportName}'; there is ${list}`);
}

/** VALUE for all logical units, or N:VALUE for one, which counts more. */
function perLun(
  place: string,
  { keys }: IscsiChoice,
  key: string,
  luns: readonly number[],
): ReadonlyMap<number, string> {
  const found = new Map<number, string>();
  let all: string | undefined;
  for (const text of keys.get(key) ?? []) {
    const [, digits, value = ''] = /^(\d{1,5}):(.*)$/s.exec(text) ?? [];
    const lun = Number(digits);
    if (digits === undefined) {
      if (all !== undefined) throw new UsageError(`${place}: ${key} is there twice`);
      all = text;
    } else if (!luns.includes(lun)) {
      throw new UsageError(`${place}: ${key} is for LUN ${lun}, which is not there`);
    } else if (found.has(lun)) {
      throw new UsageError(`${place}: ${key} for LUN ${lun} is there twice`);
    } else {
      found.set(lun, value);
    }
  }
  if (all === undefined) return found;
  const value = all;
  if (key === 'serial' && luns.length > 1) {
    throw new UsageError(`${place}: each LUN has a serial of its own; write serial=N:TEXT`);
  }
  return new Map(luns.map((lun) => [lun, found.get(lun) ?? value]));
}

function parseSwitch(place: string, key: string, value: string | undefined): boolean | undefined {
  if (value === undefined) return undefined;
  if (value === 'on' || value === 'off') return value === 'on';
  throw new UsageError(`${place}: ${key} is on or off, not '${value}'`);
}

function parseSerial(place: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  if (/^[ -~]+$/.test(text) && text.length <= MOST_SERIAL) return text;
  throw new UsageError(`${place}: serial has 1 to ${MOST_SERIAL} printable ASCII characters`);
}

function parseAuthority(text: string, authority: string): IscsiListen['address'] {
  if (authority.includes('@')) {
    throw wrong(text, 'a name and a secret are given in a file: ?chap=FILE');
  }
  const [match, name = '', digits = ''] =
    /^(\[[^\]]*\]|[^:[\]]*)(?::(\d{1,5}))?$/.exec(authority) ?? [];
  if (match === undefined)
    throw wrong(text, `'${authority}' is not HOST, HOST:PORT or [IPv6]:PORT`);
  const host = name.startsWith('[') ? name.slice(1, -1) : decode(text, name);
  if (name.startsWith('[') && !isIPv6(host)) throw wrong(text, `'${host}' is not an IPv6 address`);
  if (/[\s/?#]/.test(host)) throw wrong(text, `'${host}' is not a host name`);
  const port = digits === '' ? ISCSI_DEFAULT_PORT : Number(digits);
  if (port > 65_535) throw wrong(text, `${digits} is not a port (0 to 65535)`);
  return { kind: 'tcp', host: host === '' ? '127.0.0.1' : host, port };
}

function parseKeys(text: string, query: string): Map<string, string[]> {
  const keys = new Map<string, string[]>();
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const key = equals < 0 ? pair : pair.slice(0, equals);
    if (!KEYS.includes(key)) throw wrong(text, `'${key}' is not known (known: ${KEYS.join(', ')})`);
    if (equals < 0) throw wrong(text, `${key} needs a value`);
    const values = keys.get(key) ?? [];
    if (values.length > 0 && ONCE.includes(key)) throw wrong(text, `${key} is there twice`);
    values.push(decode(text, pair.slice(equals + 1)));
    keys.set(key, values);
  }
  return keys;
}

/** [RFC 3986 2.1] */
function decode(text: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw wrong(text, "a '%' is written %25");
  }
}

function wrong(text: string, why: string): UsageError {
  // What stands before an @ may be a secret: it is not repeated.
  return new UsageError(`not a place for iSCSI: '${text.replace(/\/\/[^/]*@/, '//…@')}': ${why}`);
}
