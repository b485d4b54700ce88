/** Where a client connects. */
export type Endpoint =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export interface AttachOptions {
  readonly uri: string;
  readonly endpoint: Endpoint;
  readonly exportName: string;
  readonly readOnly: boolean;
  /** Clients need certificates or a key as well, which is described in the documentation. */
  readonly tls: boolean;
}

export interface AttachCommand {
  readonly label: string;
  readonly command: string;
}

/** Exact command lines that put an export to use, for a shell. */
export function attachCommands(options: AttachOptions): AttachCommand[] {
  const { uri, readOnly } = options;
  if (options.tls) {
    // The others need options for keys whose places only the operator knows.
    return [{ label: 'nbdinfo', command: `nbdinfo ${shellQuote(uri)}` }];
  }
  const access = readOnly ? ',readonly=on' : ',discard=unmap';
  const drive = `file=${uri.replaceAll(',', ',,')},format=raw,if=virtio${access}`;
  const commands = [
    { label: 'QEMU', command: `qemu-system-x86_64 -m 1G -drive ${shellQuote(drive)}` },
    { label: 'or', command: `qemu-system-x86_64 -m 1G ${blockdev(options)}` },
    { label: 'qemu-img', command: `qemu-img info ${shellQuote(uri)}` },
    { label: 'nbdinfo', command: `nbdinfo ${shellQuote(uri)}` },
    { label: 'Linux', command: `sudo modprobe nbd && sudo ${nbdClient(options)}` },
  ];
  if (readOnly) commands.push({ label: '', command: 'sudo mount -r /dev/nbd0 /mnt' });
  else
    commands.push({ label: '', command: 'sudo mkfs.ext4 /dev/nbd0 && sudo mount /dev/nbd0 /mnt' });
  commands.push({ label: '', command: 'sudo umount /mnt && sudo nbd-client -d /dev/nbd0' });
  return commands;
}

/** [qemu(1) -blockdev] as JSON, which needs no escapes but the shell's. */
function blockdev({ endpoint, exportName, readOnly }: AttachOptions): string {
  const server =
    endpoint.kind === 'unix'
      ? { type: 'unix', path: endpoint.path }
      : { type: 'inet', host: endpoint.host, port: String(endpoint.port) };
  const node = {
    driver: 'nbd',
    'node-name': 'holdfast',
    server,
    export: exportName,
    ...(readOnly ? { 'read-only': true } : { discard: 'unmap' }),
  };
  return `-blockdev ${shellQuote(JSON.stringify(node))} -device virtio-blk-pci,drive=holdfast`;
}

/** [nbd-client(8)] -N names the export; without it the default one is asked for. */
function nbdClient({ endpoint, exportName, readOnly }: AttachOptions): string {
  const where =
    endpoint.kind === 'unix'
      ? `-unix ${shellQuote(endpoint.path)} /dev/nbd0`
      : `${shellQuote(endpoint.host)} ${endpoint.port} /dev/nbd0`;
  const name = exportName === '' ? '' : ` -N ${shellQuote(exportName)}`;
  return `nbd-client ${where}${name}${readOnly ? ' -readonly' : ''}`;
}

/** One word for a POSIX shell. */
export function shellQuote(text: string): string {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
