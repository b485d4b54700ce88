import { closeSync, constants, openSync, readSync } from 'node:fs';

// The first bytes of formats that people serve by mistake, as their specifications have them.
const MAGICS: readonly (readonly [string, string])[] = [
  ['qcow2', 'QFI\u00FB'],
  ['VMDK', 'KDMV'],
  ['VMDK', '# Disk DescriptorFile'],
  ['VHDX', 'vhdxfile'],
  ['VHD', 'conectix'],
  ['QED', 'QED\0'],
];

/** The format a file's first bytes speak of, or null: also when it cannot be read, which opening it will tell. */
export function looksFormatted(path: string): string | null {
  if (path.startsWith('memory:')) return null;
  const head = Buffer.alloc(32);
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      readSync(fd, head, 0, head.length, 0);
    } finally {
      closeSync(fd);
    }
  } catch {
    return null;
  }
  const text = head.toString('latin1');
  return MAGICS.find(([, magic]) => text.startsWith(magic))?.[0] ?? null;
}
