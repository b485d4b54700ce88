import { formatIscsiUrl, portalText } from '../../protocols/iscsi/iscsi-name.ts';
import type { IscsiListen, IscsiLun } from '../../server/config.ts';
import { shellQuote, type AttachCommand } from './attach.ts';
import { reachesBeyondHost } from './listen.ts';

/** The URL of one logical unit at one portal. */
export function iscsiUrl({ address, target }: IscsiListen, { lun }: IscsiLun): string {
  return formatIscsiUrl({ host: address.host, port: address.port, target: target.name, lun });
}

/** Exact command lines that put one logical unit to use, for a shell, without a SCSI disk of the host. */
export function attachIscsiLun(
  portal: IscsiListen,
  lun: IscsiLun,
  readOnly: boolean,
): AttachCommand[] {
  const url = iscsiUrl(portal, lun);
  // The others need the secret, whose file only the operator knows: it is in the documentation.
  if (portal.target.chap !== undefined) return [];
  const { host, port } = portal.address;
  const access = readOnly ? ',readonly=on' : ',discard=unmap';
  const drive = `file=${url.replaceAll(',', ',,')},format=raw,if=virtio${access}`;
  // [qemu(1) -blockdev] as JSON, which needs no escapes but the shell's.
  const node = {
    driver: 'iscsi',
    'node-name': 'holdfast',
    transport: 'tcp',
    portal: portalText(host, port),
    target: portal.target.name,
    lun: lun.lun,
    ...(readOnly ? { 'read-only': true } : { discard: 'unmap' }),
  };
  const blockdev = `-blockdev ${shellQuote(JSON.stringify(node))} -device scsi-block,drive=holdfast`;
  return [
    { label: 'QEMU', command: `qemu-system-x86_64 -m 1G -drive ${shellQuote(drive)}` },
    {
      label: 'or',
      command: `qemu-system-x86_64 -m 1G -device virtio-scsi-pci ${blockdev}`,
    },
    { label: 'qemu-img', command: `qemu-img info ${shellQuote(url)}` },
    { label: 'libiscsi', command: `iscsi-inq ${shellQuote(url)}` },
  ];
}

/** Exact command lines that log in to a target at one of its portals, so that its LUNs are disks of the host. */
export function attachIscsiTarget(portal: IscsiListen): AttachCommand[] {
  const { address, target } = portal;
  const where = shellQuote(portalText(address.host, address.port));
  const { name, chap } = target;
  const record = `sudo iscsiadm -m node -T ${name} -p ${where}`;
  const commands = [
    {
      label: 'libiscsi',
      command: `iscsi-ls -s ${shellQuote(`iscsi://${portalText(address.host, address.port)}`)}`,
    },
    { label: 'Linux', command: `sudo iscsiadm -m discovery -t sendtargets -p ${where}` },
  ];
  if (chap !== undefined) {
    const auth = 'node.session.auth';
    commands.push(
      { label: '', command: `${record} -o update -n ${auth}.authmethod -v CHAP` },
      { label: '', command: `${record} -o update -n ${auth}.username -v ${shellQuote(chap.user)}` },
      // The secret itself is not for the report; where its file lies, the initiator's administrator knows.
      {
        label: '',
        command: `${record} -o update -n ${auth}.password -v "$(cut -d: -f2- CHAP-FILE)"`,
      },
    );
  }
  commands.push(
    { label: '', command: `${record} --login` },
    { label: '', command: `${record} --logout` },
  );
  if (reachesBeyondHost(address)) commands.push(...windows(portal));
  return commands;
}

function windows({
  address: { host, port },
  target: { name, chap },
}: IscsiListen): AttachCommand[] {
  const secret =
    chap === undefined
      ? ''
      : ` -AuthenticationType ONEWAYCHAP -ChapUsername ${powershellQuote(chap.user)} -ChapSecret (Read-Host)`;
  return [
    {
      label: 'Windows',
      command: `New-IscsiTargetPortal -TargetPortalAddress ${powershellQuote(host)} -TargetPortalPortNumber ${port}`,
    },
    {
      label: '',
      command: `Connect-IscsiTarget -NodeAddress ${powershellQuote(name)} -IsPersistent $true${secret}`,
    },
  ];
}

/** One word for PowerShell: in single quotes, which are doubled inside. */
function powershellQuote(text: string): string {
  return /^[\w.:-]+$/.test(text) ? text : `'${text.replaceAll("'", "''")}'`;
}
