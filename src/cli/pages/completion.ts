import { unreachable } from '../../base/assert.ts';
import {
  commandsOf,
  firstWords,
  type ArgumentSpec,
  type CommandSpec,
  type GroupSpec,
  type OptionSpec,
  type ProgramSpec,
} from '../spec/spec.ts';

export type Shell = 'bash' | 'zsh' | 'fish';

export function renderCompletion(program: ProgramSpec, shell: Shell): string {
  switch (shell) {
    case 'bash':
      return bash(program);
    case 'zsh':
      return zsh(program);
    case 'fish':
      return fish(program);
    default:
      return unreachable(shell);
  }
}

function spellings(option: OptionSpec): string[] {
  const all = [option.short, option.long, ...(option.aliases ?? [])];
  return all.filter((name) => name !== undefined);
}

function allOptions(program: ProgramSpec, command: CommandSpec): OptionSpec[] {
  return [...command.options, ...program.options];
}

// Bash: one function; the word before decides for values, else options or operands.

function bash(program: ProgramSpec): string {
  const names = firstWords(program).map(({ name }) => name);
  return [
    `# bash completion for ${program.name}`,
    `_${program.name}() {`,
    '  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}',
    '  COMPREPLY=()',
    '  if ((COMP_CWORD == 1)); then',
    `    COMPREPLY=($(compgen -W '${names.join(' ')} --help --version' -- "$cur"))`,
    '    return',
    '  fi',
    ...program.groups.flatMap((group) => bashGroup(program, group)),
    '  case $command in',
    ...program.commands.flatMap((command) => bashCommand(program, command)),
    '  esac',
    '}',
    `complete -o filenames -F _${program.name} ${program.name}`,
    '',
  ].join('\n');
}

/** The second word completes the command's name. */
function bashGroup(program: ProgramSpec, group: GroupSpec): string[] {
  const words = commandsOf(program, group).map(({ word }) => word);
  return [
    `  if [[ $command == ${group.name} ]]; then`,
    '    if ((COMP_CWORD == 2)); then',
    `      COMPREPLY=($(compgen -W '${words.join(' ')} --help' -- "$cur"))`,
    '      return',
    '    fi',
    '    command+=" ${COMP_WORDS[2]}"',
    '  fi',
  ];
}

function bashCommand(program: ProgramSpec, command: CommandSpec): string[] {
  const options = allOptions(program, command);
  const valued = options.filter((option) => option.placeholder !== undefined);
  return [
    `    ${quote(command.name)})`,
    '      case $prev in',
    ...valued.map(
      (option) => `        ${spellings(option).join('|')}) ${bashValues(option)}; return ;;`,
    ),
    '      esac',
    '      if [[ $cur == -* ]]; then',
    `        COMPREPLY=($(compgen -W '${options.flatMap(spellings).join(' ')} --help' -- "$cur"))`,
    '      else',
    `        ${bashValues(operand(program, command))}`,
    '      fi',
    '      ;;',
  ];
}

function bashValues(part: { choices?: readonly string[]; value?: string }): string {
  if (part.choices !== undefined) {
    return `COMPREPLY=($(compgen -W '${part.choices.join(' ')}' -- "$cur"))`;
  }
  if (part.value === 'file') return 'COMPREPLY=($(compgen -f -- "$cur"))';
  if (part.value === 'directory') return 'COMPREPLY=($(compgen -d -- "$cur"))';
  return 'COMPREPLY=()';
}

/** What the first operand may be; `man` takes the names of the commands. */
function operand(
  program: ProgramSpec,
  command: CommandSpec,
): { choices?: readonly string[]; value?: string } {
  const argument = command.arguments[0];
  if (argument === undefined) return {};
  const choices = argument.choices ?? commandNames(program, argument);
  return choices === undefined ? { value: argument.value } : { choices };
}

function commandNames(program: ProgramSpec, argument: ArgumentSpec): string[] | undefined {
  if (argument.name !== 'COMMAND') return undefined;
  return program.commands.map((command) => command.name.replaceAll(' ', '-'));
}

// Zsh: _arguments does the work.

function zsh(program: ProgramSpec): string {
  return [
    `#compdef ${program.name}`,
    'local -a commands',
    'commands=(',
    ...firstWords(program).map(({ name, summary }) => `  ${quote(`${name}:${summary}`)}`),
    ')',
    'if (( CURRENT == 2 )); then',
    "  _describe -t commands 'command' commands",
    '  return',
    'fi',
    'local command=$words[2]',
    'shift words; (( CURRENT-- ))',
    ...program.groups.flatMap((group) => zshGroup(program, group)),
    'case $command in',
    ...program.commands.flatMap((command) => [
      `  ${quote(command.name)})`,
      '    _arguments -s -S \\',
      ...allOptions(program, command)
        .flatMap(zshOption)
        .map((line) => `      ${line} \\`),
      `      ${zshOperand(program, command)}`,
      '    ;;',
    ]),
    'esac',
    '',
  ].join('\n');
}

function zshGroup(program: ProgramSpec, group: GroupSpec): string[] {
  const entries = commandsOf(program, group).map(({ word, command }) =>
    quote(`${word}:${command.summary}`),
  );
  return [
    `if [[ $command == ${group.name} ]]; then`,
    '  if (( CURRENT == 2 )); then',
    '    commands=(',
    ...entries.map((entry) => `      ${entry}`),
    '    )',
    "    _describe -t commands 'command' commands",
    '    return',
    '  fi',
    '  command+=" $words[2]"',
    '  shift words; (( CURRENT-- ))',
    'fi',
  ];
}

function zshOption(option: OptionSpec): string[] {
  const text = option.description.replaceAll(/[[\]:\\]/g, '\\$&');
  // Two colons: the value may be left out.
  const colon = option.optionalValue === true ? '::' : ':';
  const value =
    option.placeholder === undefined ? '' : `${colon}${option.placeholder}:${zshValues(option)}`;
  const repeat = option.repeatable === true ? '*' : '';
  return spellings(option).map((name) => quote(`${repeat}${name}[${text}]${value}`));
}

function zshOperand(program: ProgramSpec, command: CommandSpec): string {
  const argument = command.arguments[0];
  if (argument === undefined) return quote('--help[print a summary]');
  const star = argument.variadic === true ? '*' : '1';
  return quote(`${star}:${argument.name}:${zshValues(operand(program, command))}`);
}

function zshValues(part: { choices?: readonly string[]; value?: string }): string {
  if (part.choices !== undefined) return `(${part.choices.join(' ')})`;
  if (part.value === 'file') return '_files';
  if (part.value === 'directory') return '_files -/';
  return ' ';
}

// Fish: one line for each thing.

function fish(program: ProgramSpec): string {
  const lines = [`complete -c ${program.name} -f`];
  for (const { name, summary } of firstWords(program)) {
    lines.push(
      `complete -c ${program.name} -n __fish_use_subcommand -a ${name} -d ${quote(summary)}`,
    );
  }
  for (const group of program.groups) {
    const words = commandsOf(program, group).map(({ word }) => word);
    const seen = `__fish_seen_subcommand_from ${group.name}`;
    const open = quote(`${seen}; and not __fish_seen_subcommand_from ${words.join(' ')}`);
    for (const { word, command } of commandsOf(program, group)) {
      const summary = quote(command.summary);
      lines.push(`complete -c ${program.name} -n ${open} -a ${word} -d ${summary}`);
    }
  }
  for (const command of program.commands) {
    const seen = command.name.split(' ').map((word) => `__fish_seen_subcommand_from ${word}`);
    const here = `complete -c ${program.name} -n '${seen.join('; and ')}'`;
    lines.push(...allOptions(program, command).map((option) => `${here} ${fishOption(option)}`));
    const values = operand(program, command);
    if (values.choices !== undefined) lines.push(`${here} -a ${quote(values.choices.join(' '))}`);
    else if (values.value === 'file') lines.push(`${here} -F`);
  }
  return `${lines.join('\n')}\n`;
}

function fishOption(option: OptionSpec): string {
  const names = spellings(option).map((name) =>
    name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`,
  );
  const parts = [...names, `-d ${quote(option.description)}`];
  if (option.placeholder !== undefined && option.optionalValue !== true) parts.push('-r');
  if (option.choices !== undefined) parts.push(`-a ${quote(option.choices.join(' '))}`);
  else if (option.value === 'file' || option.value === 'directory') parts.push('-F');
  return parts.join(' ');
}

/** Quoted for any of the three shells; no text of ours holds a backslash before a quote. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
