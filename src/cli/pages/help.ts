import {
  argumentText,
  commandsOf,
  firstWords,
  optionFlags,
  optionRemarks,
  usageLine,
  type CommandSpec,
  type GroupSpec,
  type OptionSpec,
  type ProgramSpec,
} from '../spec/spec.ts';
import { wrap } from './wrap.ts';

const COLUMNS = 80;
const INDENT = 24;

/** `holdfast --help`. */
export function renderProgramHelp(program: ProgramSpec): string {
  const commands = firstWords(program).map(({ name, summary }) => entry(name, summary));
  const own = [
    ...program.options,
    { long: '--version', short: '-V', description: 'Print the version.' },
    { long: '--help', short: '-h', description: 'Print this; with --json the whole command tree.' },
  ];
  return [
    `Usage: ${program.name} COMMAND [OPTION]...`,
    '',
    ...program.details.flatMap((text) => [...wrap(text, COLUMNS, 0), '']),
    'Commands:',
    ...commands.flat(),
    '',
    'Options:',
    ...own.flatMap(optionEntry),
    '',
    `'${program.name} COMMAND --help' says more about one, and so does '${program.name} man COMMAND | man -l -'.`,
    '',
  ].join('\n');
}

/** `holdfast GROUP` and `holdfast GROUP --help`. */
export function renderGroupHelp(program: ProgramSpec, group: GroupSpec): string {
  const start = `${program.name} ${group.name}`;
  return [
    `Usage: ${start} COMMAND [OPTION]...`,
    '',
    ...group.details.flatMap((text) => [...wrap(text, COLUMNS, 0), '']),
    'Commands:',
    ...commandsOf(program, group).flatMap(({ word, command }) => entry(word, command.summary)),
    '',
    `'${start} COMMAND --help' says more about one.`,
    '',
  ].join('\n');
}

/** `holdfast COMMAND --help`. */
export function renderCommandHelp(program: ProgramSpec, command: CommandSpec): string {
  const options = [
    ...command.options,
    ...program.options,
    { long: '--help', short: '-h', description: 'Print this.' },
  ];
  const lines = [`Usage: ${usageLine(program, command)}`, ''];
  for (const text of command.details) lines.push(...wrap(text, COLUMNS, 0), '');
  if (command.arguments.length > 0) {
    lines.push('Arguments:');
    for (const argument of command.arguments) {
      const choices = argument.choices === undefined ? '' : ` ${argument.choices.join(', ')}.`;
      lines.push(...entry(argumentText(argument), argument.description + choices));
    }
    lines.push('');
  }
  lines.push('Options:', ...options.flatMap(optionEntry), '');
  if (command.examples.length > 0) {
    lines.push('Examples:');
    for (const example of command.examples)
      lines.push(`  # ${example.text}`, `  ${example.command}`);
    lines.push('');
  }
  return lines.join('\n');
}

function optionEntry(option: OptionSpec): string[] {
  const flags = option.short === undefined ? `    ${optionFlags(option)}` : optionFlags(option);
  return entry(flags, [option.description, ...optionRemarks(option)].join(' '));
}

function entry(left: string, right: string): string[] {
  const head = `  ${left}`;
  const lines = wrap(right, COLUMNS, INDENT);
  if (head.length >= INDENT - 1) return [head, ...lines];
  return [head.padEnd(INDENT) + (lines[0] ?? '').trimStart(), ...lines.slice(1)];
}
