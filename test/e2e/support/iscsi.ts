import type { TestContext } from 'node:test';
import type { Guest, GuestOptions } from '../guest.ts';
import { until } from './command.ts';
import { startHoldfast } from './holdfast.ts';
import type { Holdfast, StartOptions } from './holdfast.ts';

export const IQN = 'iqn.2026-11.org.example:disk';
/** This machine, seen by a guest [QEMU "User mode networking"]. */
const HOST = '10.0.2.2';

export interface IscsiServer {
  readonly server: Holdfast;
  /** Of each portal, in the order asked for. */
  readonly ports: readonly number[];
}

export interface IscsiOptions extends StartOptions {
  /** Of each portal; 0: the kernel chooses one. */
  readonly ports?: readonly number[];
  /** What follows the target's name at the first portal: '?thin=on'. */
  readonly query?: string;
  readonly target?: string;
}

/** Starts `holdfast serve ARGS --listen iscsi://127.0.0.1:PORT/IQN` and waits until it says where it listens. */
export async function startIscsi(
  t: TestContext,
  args: readonly string[],
  options: IscsiOptions = {},
): Promise<IscsiServer> {
  const { ports = [0], query = '', target = IQN, ...start } = options;
  const portals = ports.flatMap((port, i) => [
    '--listen',
    `iscsi://127.0.0.1:${port}/${target}${i === 0 ? query : ''}`,
  ]);
  const words = ['--json', ...args, ...portals];
  const server = await startHoldfast(t, words, { ...start, readyLine: /"iscsi":.*\n/ });
  const { disks } = JSON.parse(server.stdout) as { disks: { iscsi: { url: string }[] }[] };
  const urls = disks[0]?.iscsi.map(({ url }) => new URL(url)) ?? [];
  return { server, ports: urls.map(({ port }) => Number(port === '' ? 3260 : port)) };
}

/** The URL of a LUN, for initiators on this machine. */
export function iscsiUrl(port: number, lun = 0, login = ''): string {
  return `iscsi://${login}127.0.0.1:${port}/${IQN}/${lun}`;
}

/** Programs of open-iscsi that a guest with `initiatorGuest` needs. */
export const INITIATOR_TOOLS = ['iscsiadm', 'iscsid'] as const;

/** A guest with the kernel's initiator, more modules and more programs. */
export function initiatorGuest(
  modules: readonly string[],
  programs: readonly string[],
): Pick<GuestOptions, 'devices' | 'network' | 'modules' | 'programs' | 'memoryMib'> {
  return {
    devices: [],
    network: true,
    memoryMib: 512,
    modules: ['iscsi_tcp', 'sd_mod', 'sg', ...modules],
    programs: [...INITIATOR_TOOLS, ...programs],
  };
}

/** The daemon, which asks who talks to it; and no other settings than these. */
export async function startInitiator(guest: Guest, name: string): Promise<void> {
  await guest.succeed(`
    mkdir -p /etc/iscsi /run/lock/iscsi
    echo 'root:x:0:0::/:/bin/sh' >/etc/passwd
    echo 'InitiatorName=iqn.2026-11.org.example:${name}' >/etc/iscsi/initiatorname.iscsi
    cat >/etc/iscsi/iscsid.conf <<END
node.startup = manual
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 15
node.session.initial_login_retry_max = 2
node.session.iscsi.InitialR2T = No
node.session.iscsi.ImmediateData = Yes
END
    iscsid -c /etc/iscsi/iscsid.conf -i /etc/iscsi/initiatorname.iscsi
  `);
}

/** Where a guest finds a target. */
export interface Portal {
  readonly port: number;
  readonly target?: string;
}

/** What one portal says its targets are. */
export function discover(guest: Guest, { port }: Portal): Promise<string> {
  // What it says of its address is how this machine sees it; the guest could not come by there, so no record is kept.
  return guest.succeed(`iscsiadm -m discovery -t sendtargets -p ${HOST}:${port} -o nonpersistent`);
}

/** Settings of a node record, by name: 'node.conn[0].iscsi.DataDigest'. */
export type NodeSettings = Readonly<Record<string, string>>;

/** Notes a portal down, or other settings of one that is known. */
export async function notePortal(
  guest: Guest,
  portal: Portal,
  settings: NodeSettings = {},
): Promise<void> {
  const node = nodeAt(portal);
  const updates = Object.entries(settings).map(
    ([name, value]) => `${node} -o update -n '${name}' -v '${value}'`,
  );
  await guest.succeed([`${node} || ${node} -o new`, ...updates].join('\n'));
}

/** The command that goes on with '--login' or '--logout'. */
export function nodeAt({ port, target = IQN }: Portal): string {
  return `iscsiadm -m node -T ${target} -p ${HOST}:${port}`;
}

/** Logs in and waits for that many new disks. Returns their paths, by LUN. */
export async function logIn(guest: Guest, portal: Portal, luns = 1): Promise<string[]> {
  const before = new Set((await disksOf(guest)).map(({ path }) => path));
  await guest.succeed(`${nodeAt(portal)} --login`);
  return until(`${luns} new disks`, 20_000, async () => {
    const added = (await disksOf(guest)).filter(({ path }) => !before.has(path));
    return added.length < luns
      ? null
      : added.toSorted((a, b) => a.lun - b.lun).map(({ path }) => path);
  });
}

/** The SCSI disks that a guest has. */
async function disksOf(guest: Guest): Promise<{ path: string; lun: number }[]> {
  const lines = await guest.succeed(`
    for disk in /sys/block/sd*; do
      if [ -e $disk ]; then echo "/dev/\${disk##*/} $(readlink $disk/device)"; fi
    done
  `);
  // The link ends with host:channel:target:lun.
  return [...lines.matchAll(/^(\S+) .*:(\d+)$/gm)].map(([, path = '', lun]) => ({
    path,
    lun: Number(lun),
  }));
}
