import type { VhostUserBlkListen } from '../../server/config.ts';
import { shellQuote, type AttachCommand } from './attach.ts';

/** The guest's memory is where the requests and their data are: it has to be shared with the server. */
const SHARED_MEMORY =
  '-m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem';

/** Exact command lines that give a device to a virtual machine, for a shell. None for a descriptor, whose giver knows. */
export function attachVhostUserBlk({ address, connect }: VhostUserBlkListen): AttachCommand[] {
  if (address.kind === 'fd') return [];
  const { path } = address;
  // [qemu(1)] a comma in a value is doubled. reconnect-ms came with 9.2, which deprecated reconnect=SECONDS.
  const chardev = `socket,id=holdfast0,path=${path.replaceAll(',', ',,')}`;
  const qemu = (how: string, more: string): string =>
    `qemu-system-x86_64 ${SHARED_MEMORY} -chardev ${shellQuote(`${chardev},${how}`)} ` +
    `-device vhost-user-blk-pci,chardev=holdfast0${more}`;
  if (connect === true) {
    return [
      { label: 'QEMU', command: qemu('server=on', '') },
      { label: 'boot from it', command: qemu('server=on', ',bootindex=0') },
    ];
  }
  const commands = [
    { label: 'QEMU 9.2', command: qemu('reconnect-ms=1000', '') },
    { label: 'boot from it', command: qemu('reconnect-ms=1000', ',bootindex=0') },
    { label: 'older QEMU', command: qemu('reconnect=1', '') },
  ];
  // Their options have no way to write a comma.
  if (path.includes(',')) return commands;
  const word = shellQuote(path);
  return [
    ...commands,
    {
      label: 'CH',
      command: `cloud-hypervisor --kernel vmlinux --memory size=1G,shared=on --disk vhost_user=true,socket=${word}`,
    },
    {
      label: 'qemu-img',
      command: `qemu-img info --image-opts driver=virtio-blk-vhost-user,path=${word},cache.direct=on`,
    },
  ];
}
