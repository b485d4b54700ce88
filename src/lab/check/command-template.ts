import { UsageError } from '../../base/errors.ts';

// The command line of a checker: what stands in braces is replaced, and where no shell is needed none is started.

/** Where the placeholders of one run lead. */
export interface Places {
  readonly disks: readonly string[];
  readonly acks: string;
  readonly scratch: string;
}

export interface CommandTemplate {
  readonly usesAcks: boolean;
  readonly usesScratch: boolean;
  /** The program and its arguments: a shell's, where the line needs one. */
  argv(places: Places): readonly string[];
  /** Whether a shell stands between us and the program. */
  readonly shell: boolean;
}

const PLACEHOLDER = /\{(disk\d*|acks|scratch)\}/g;
/** Anything but plain words is the shell's to understand. */
const SHELL_NEEDED = /[^\w\s@%+:,./-]/;
/** Words that look plain, and are the shell's own. */
const SHELL_WORDS =
  /^\s*(?:cd|exit|exec|set|export|unset|eval|trap|ulimit|umask|command|type|wait|read|test|if|while|for|case|until|:|\.)\s/;

/** Throws a UsageError when the line names no disk, or one that the trace does not have. */
export function parseCommand(line: string, diskCount: number): CommandTemplate {
  const names = [...line.matchAll(PLACEHOLDER)].map((match) => match[1] as string);
  const numbers = names.filter((name) => name.startsWith('disk')).map(diskNumber);
  if (numbers.length === 0) {
    throw new UsageError(`'${line}' does not say where the disk goes: write {disk} there`);
  }
  const beyond = numbers.find((number) => number >= diskCount);
  if (beyond !== undefined) {
    const there = diskCount === 1 ? 'one disk, {disk}' : `${diskCount} disks, {disk0} and so on`;
    throw new UsageError(`'${line}' names {disk${beyond}}: the trace has ${there}`);
  }
  const shell = SHELL_NEEDED.test(line.replaceAll(PLACEHOLDER, '')) || SHELL_WORDS.test(`${line} `);
  return {
    usesAcks: names.includes('acks'),
    usesScratch: names.includes('scratch'),
    shell,
    argv: (places) => {
      const place = (_whole: string, name: string): string => placeOf(name, places);
      if (!shell) {
        const words = line.trim().split(/\s+/);
        return words.map((word) => word.replaceAll(PLACEHOLDER, place));
      }
      const quoted = (whole: string, name: string): string => quote(place(whole, name));
      return ['/bin/sh', '-c', line.replaceAll(PLACEHOLDER, quoted)];
    },
  };
}

function placeOf(name: string, { disks, acks, scratch }: Places): string {
  if (name === 'acks') return acks;
  if (name === 'scratch') return scratch;
  return disks[diskNumber(name)] as string;
}

/** '{disk}' is the first. */
function diskNumber(name: string): number {
  return name === 'disk' ? 0 : Number(name.slice('disk'.length));
}

/** Plain paths stay as they are, so that they may also stand inside quotes. */
function quote(path: string): string {
  return /^[\w@%+:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`;
}
