import { MAX_NAME_BYTES } from './limits.ts';

// iSCSI names and URLs, for the command line and the server.

export const ISCSI_DEFAULT_PORT = 3260;

/** Where an iSCSI URL points. */
export interface IscsiUrl {
  readonly host: string;
  readonly port: number;
  readonly target: string;
  readonly lun: number;
}

/** What is wrong with an iSCSI name [RFC 7143 4.2.7], or null. Names are compared in lower case [RFC 3722]. */
export function iscsiNameError(name: string): string | null {
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) return `it has more than ${MAX_NAME_BYTES} bytes`;
  if (name !== name.toLowerCase()) return 'it is written in lower case';
  if (name.startsWith('iqn.')) {
    return /^iqn\.\d{4}-(?:0[1-9]|1[0-2])\.[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::[a-z0-9.:-]+)?$/.test(
      name,
    )
      ? null
      : "it is 'iqn.', year and month, a domain backwards, and maybe ':' with letters, digits and . - :";
  }
  if (name.startsWith('eui.')) {
    return /^eui\.[0-9a-f]{16}$/.test(name) ? null : "'eui.' is followed by 16 hexadecimal digits";
  }
  if (name.startsWith('naa.')) {
    return /^naa\.(?:[0-9a-f]{16}){1,2}$/.test(name)
      ? null
      : "'naa.' is followed by 16 or 32 hexadecimal digits";
  }
  return "it starts with 'iqn.', 'eui.' or 'naa.'";
}

/** "192.0.2.1:3260", "[2001:db8::1]:3260": as in TargetAddress [RFC 7143 13.8]. */
export function portalText(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** The URL of a logical unit, as libiscsi, QEMU and others have it: iscsi://host[:port]/target/lun. */
export function formatIscsiUrl({ host, port, target, lun }: IscsiUrl): string {
  return `iscsi://${portalText(host, port)}/${target}/${lun}`;
}
