import { shellQuote, type AttachCommand } from './attach.ts';

/** Exact command lines that put a disk to use that is shown as a file, for a shell. */
export function attachFuse(path: string, readOnly: boolean): AttachCommand[] {
  const file = shellQuote(path);
  const commands = [
    { label: 'QEMU', command: `qemu-system-x86_64 -m 1G -drive ${drive(path, readOnly)}` },
    { label: 'Linux', command: `sudo losetup --find --show ${readOnly ? '-r ' : ''}${file}` },
  ];
  const access = readOnly ? 'ro,loop' : 'loop';
  commands.push({ label: '', command: `sudo mount -o ${access} ${file} /mnt` });
  commands.push({ label: 'look', command: `file -s ${file}; fdisk -l ${file}` });
  return commands;
}

/** [qemu(1) -drive] a comma in a value is doubled. */
function drive(path: string, readOnly: boolean): string {
  const access = readOnly ? ',readonly=on' : ',discard=unmap';
  return shellQuote(`file=${path.replaceAll(',', ',,')},format=raw,if=virtio${access}`);
}
