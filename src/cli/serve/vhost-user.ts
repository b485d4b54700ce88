import { UsageError } from '../../base/errors.ts';
import { MAX_QUEUES } from '../../protocols/vhost-user/limits.ts';
import { VIRTIO_BLK_ID_BYTES } from '../../protocols/virtio/blk.ts';
import { type DiskConfig, type VhostUserBlkListen } from '../../server/config.ts';
import { parseInteger } from './options.ts';
import { PlaceText } from './place-keys.ts';

/** As --listen has it: which disk it is may be left open while there is one only. */
export type VhostUserBlkChoice = Omit<VhostUserBlkListen, 'exportName'> & {
  readonly exportName: string | null;
};

const PREFIX = 'vhost-user-blk:';
const KEYS = ['export', 'queues', 'serial', 'fua', 'connect'];

/** Whether a text is meant as a place for vhost-user-blk, so that a mistake in it is a mistake and no file name. */
export function isVhostUserBlk(text: string): boolean {
  return text.startsWith(PREFIX);
}

/**
 * Reads vhost-user-blk:PATH[?KEY=VALUE[&KEY=VALUE]...], or fd:NUMBER in place of PATH. '%', '?', and '&' in a path or a
 * value are written as in a URI. Throws a UsageError that names the mistake.
 */
export function parseVhostUserBlk(text: string): VhostUserBlkChoice {
  const rest = text.slice(PREFIX.length);
  const question = rest.indexOf('?');
  const where = question < 0 ? rest : rest.slice(0, question);
  const place = new PlaceText('not a place for vhost-user-blk', text);
  const keys = place.keys(question < 0 ? '' : rest.slice(question + 1), KEYS);
  const address = parseAddress(place, where);
  const queues = keys.get('queues');
  const serial = keys.get('serial');
  const connect = place.switch('connect', keys.get('connect'));
  if (connect && address.kind === 'fd') throw place.wrong('a descriptor is connected already');
  if (serial !== undefined) checkSerial(`'${text}': serial`, serial);
  return {
    protocol: 'vhost-user-blk',
    address,
    exportName: keys.get('export') ?? null,
    ...(queues === undefined ? {} : { queues: parseQueues(`'${text}': queues`, queues) }),
    ...(serial === undefined ? {} : { serial }),
    offerFua: place.switch('fua', keys.get('fua')),
    connect,
  };
}

export function parseQueues(what: string, text: string): number {
  return parseInteger(what, text, 1, MAX_QUEUES);
}

/** [virtio 5.2.6] GET_ID has room for 20 bytes. */
export function checkSerial(what: string, text: string): void {
  if (/^[ -~]+$/.test(text) && text.length <= VIRTIO_BLK_ID_BYTES) return;
  throw new UsageError(`${what} has 1 to ${VIRTIO_BLK_ID_BYTES} printable ASCII characters`);
}

/** Settles which disk it is. Throws a UsageError when that cannot be known. */
export function nameDisk(
  choice: VhostUserBlkChoice,
  disks: readonly DiskConfig[],
): VhostUserBlkListen {
  const names = disks.map(({ exportName }) => exportName);
  const list = names.map((name) => `'${name}'`).join(', ');
  const place = vhostUserBlkName(choice);
  const { exportName } = choice;
  if (exportName === null) {
    const [only] = names;
    if (names.length === 1 && only !== undefined) return { ...choice, exportName: only };
    throw new UsageError(`${place} serves one disk; add ?export=NAME, one of ${list}`);
  }
  if (names.includes(exportName)) return { ...choice, exportName };
  throw new UsageError(`${place}: no disk is named '${exportName}'; there is ${list}`);
}

/** How the place is shown. */
export function vhostUserBlkName({ address }: Pick<VhostUserBlkListen, 'address'>): string {
  return `${PREFIX}${address.kind === 'fd' ? `fd:${address.fd}` : address.path}`;
}

function parseAddress(place: PlaceText, where: string): VhostUserBlkListen['address'] {
  const fd = /^fd:(\d{1,6})$/.exec(where);
  if (fd !== null) return { kind: 'fd', fd: Number(fd[1]) };
  if (where.startsWith('fd:')) {
    throw place.wrong('fd: is followed by a number; a path that begins so is written ./fd:');
  }
  const path = place.decode(where);
  if (path === '') throw place.wrong('the path of the socket is missing');
  if (path.includes('\0')) throw place.wrong('a path has no NUL');
  return { kind: 'unix', path };
}
