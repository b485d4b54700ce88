import { MOUNT_OPTIONS } from '../../lab/oracles/mounted.ts';
import type { DiskOracle, OracleOption } from '../../lab/oracles/types.ts';

/** docs/reference/oracles.md: the ready-made oracles, as the registry has them. */
export function renderOracles(oracles: readonly DiskOracle[]): string {
  const shared = new Set(MOUNT_OPTIONS);
  const sections = oracles.flatMap((oracle) => {
    const mounts = oracle.options.some((option) => shared.has(option));
    const own = oracle.options.filter((option) => !shared.has(option));
    return [
      `## ${oracle.kind}`,
      '',
      `${capitalized(oracle.summary)}.`,
      '',
      ...oracle.details.flatMap((text) => [text, '']),
      ...optionList(own),
      ...(mounts ? ['It also takes [the options of the mount](#options-of-the-mount).', ''] : []),
    ];
  });
  return [
    '# Oracles',
    '',
    '<!-- Made by scripts/generate-pages.ts from src/lab/oracles/list.ts; do not edit. -->',
    '',
    ...INTRODUCTION.flatMap((text) => [text, '']),
    ...oracles.map(({ kind, summary }) => `- [${kind}](#${kind}): ${summary}`),
    '',
    '## Options of the mount',
    '',
    ...MOUNT_INTRODUCTION.flatMap((text) => [text, '']),
    ...optionList(MOUNT_OPTIONS),
    ...sections,
  ]
    .join('\n')
    .trimEnd()
    .concat('\n');
}

const INTRODUCTION: readonly string[] = [
  'An oracle judges what a power cut has left. These are ready-made: `holdfast lab explore TRACE --check ' +
    'NAME:option=value,…`. Each finding has an axis and a class. _Integrity_: the structure is sound. _Atomicity_: each ' +
    'object is old or new, and nothing between. _Durability_: what was acknowledged is there. The class is the same for ' +
    'the same kind of finding, with numbers and names taken out.',
  'Nothing passes in doubt. A checker that is missing, crashes, or says what the oracle does not understand is a ' +
    '_checker error_; one that does not end in time is a _hang_. Neither counts as a failure of the disk.',
  'A workload tells what it has promised by lines on its standard output that begin with `ACK`, with a JSON object after ' +
    'it; which one is said below. It is written when the promise is made, so after the fsync or the commit. Lines that an ' +
    'oracle does not understand are checker errors too.',
];

const MOUNT_INTRODUCTION: readonly string[] = [
  'Oracles of files and applications let the file system recover first, as a machine does that starts after a power cut. ' +
    'On a mount by the kernel everything happens in a mount namespace of its own, so that nothing is left behind, also ' +
    'when a check is killed. The kernel of this machine is shown file systems that may be damaged: it is built for that, ' +
    'but take a machine that may crash.',
];

function optionList(options: readonly OracleOption[]): string[] {
  if (options.length === 0) return [];
  return [...options.map((option) => `- ${describe(option)}`), ''];
}

function describe(option: OracleOption): string {
  const choices = option.choices === undefined ? '' : ` (${option.choices.join(', ')})`;
  const usual =
    option.default === undefined || option.default === '' ? '' : ` Default: \`${option.default}\`.`;
  const required = option.required === true ? ' Required.' : '';
  return `\`${option.name}\`${choices}: ${option.description}${required}${usual}`;
}

function capitalized(text: string): string {
  // Names keep their own spelling.
  return /^(?:ext|xfs|btrfs)/.test(text) ? text : `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}
