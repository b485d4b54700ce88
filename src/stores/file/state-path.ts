import { join, resolve } from 'node:path';
import { statePathOf } from '../../durability/state-file.ts';

/**
 * Where the state of a disk lies that has no directory of its own to write to: under `directory`, by a name made of
 * `id`, which is what stays the same when the kernel numbers devices anew.
 */
export function statePathUnder(directory: string, id: string): string {
  return statePathOf(join(resolve(directory), escapeId(id)));
}

/** systemd's state directory of this service [systemd.exec(5) "StateDirectory="], or where it would be. */
export function defaultStateDirectory(environment: NodeJS.ProcessEnv): string {
  return environment['STATE_DIRECTORY']?.split(':')[0] ?? '/var/lib/holdfast';
}

/** Like systemd-escape: letters, digits, and a few signs stay, all else becomes \xNN. */
export function escapeId(id: string): string {
  const name = id.startsWith('/dev/') ? id.slice('/dev/'.length) : id;
  return Array.from(Buffer.from(name), (byte) => {
    const sign = String.fromCharCode(byte);
    if (/[A-Za-z0-9:_.]/.test(sign)) return sign;
    return sign === '/' ? '-' : `\\x${byte.toString(16).padStart(2, '0')}`;
  }).join('');
}
