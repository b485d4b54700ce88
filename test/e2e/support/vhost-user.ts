import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Machine } from '../guest.ts';
import { startHoldfast, workspace } from './holdfast.ts';
import type { Holdfast, StartOptions } from './holdfast.ts';

export interface VhostUserDiskOptions {
  readonly queues?: number;
  readonly packed?: boolean;
  /** QEMU connects again when the back-end went away. */
  readonly reconnect?: boolean;
  /** The firmware boots from it. */
  readonly bootable?: boolean;
  readonly index?: number;
}

/** How soon QEMU tries again; 7.2 counts in whole seconds, 11.1 has no seconds any more [QEMU "-chardev socket"]. */
const RECONNECT = { system: 'reconnect=1', peers: 'reconnect-ms=200' } as const;

/** QEMU arguments for the disk that a vhost-user-blk back-end serves at a Unix socket. */
export function vhostUserDisk(
  socket: string,
  machine: Machine,
  options: VhostUserDiskOptions = {},
): string[] {
  const id = `vub${options.index ?? 0}`;
  const again = options.reconnect === true ? `,${RECONNECT[machine.qemu]}` : '';
  const properties = [
    `vhost-user-blk-pci,chardev=${id}`,
    `num-queues=${options.queues ?? 1}`,
    `packed=${options.packed === true ? 'on' : 'off'}`,
    ...(options.bootable === true ? ['bootindex=0'] : []),
  ];
  return ['-chardev', `socket,id=${id},path=${socket}${again}`, '-device', properties.join(',')];
}

export interface VhostUserOptions extends StartOptions {
  /** What follows the socket's path: '?export=NAME&queues=2'. */
  readonly query?: string;
}

/** Starts `holdfast serve ARGS --listen vhost-user-blk:SOCKET` and waits until it has said that it listens. */
export async function startVhostUser(
  t: TestContext,
  args: readonly string[],
  options: VhostUserOptions = {},
): Promise<Holdfast> {
  const socket = options.socket ?? join(workspace(t), 'blk.sock');
  const server = await startHoldfast(
    t,
    [...args, '--verbose', '--listen', `vhost-user-blk:${socket}${options.query ?? ''}`],
    {
      ...options,
      socket,
      readyLine: /vhost-user-blk/,
    },
  );
  t.after(() => {
    if ('passed' in t && t.passed !== true) t.diagnostic(`${socket}: ${server.stderr}`);
  });
  return server;
}
