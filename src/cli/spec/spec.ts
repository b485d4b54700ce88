/**
 * What the command line consists of, as data. Parsing, help, man pages, the reference page, completions and
 * `--help --json` are all made from it, so that they cannot disagree.
 */
export interface ProgramSpec {
  readonly name: string;
  readonly summary: string;
  readonly details: readonly string[];
  readonly options: readonly OptionSpec[];
  readonly commands: readonly CommandSpec[];
  readonly groups: readonly GroupSpec[];
}

/** The first word that several commands share. */
export interface GroupSpec {
  readonly name: string;
  readonly summary: string;
  readonly details: readonly string[];
}

export interface CommandSpec {
  /** One word, or a group's name and a word: 'lab cut'. */
  readonly name: string;
  readonly summary: string;
  /** Paragraphs for the man page and the reference. */
  readonly details: readonly string[];
  readonly arguments: readonly ArgumentSpec[];
  readonly options: readonly OptionSpec[];
  readonly examples: readonly Example[];
}

export interface ArgumentSpec {
  readonly name: string;
  readonly description: string;
  readonly required: boolean;
  readonly variadic?: boolean;
  readonly choices?: readonly string[];
  readonly value: ValueKind;
}

export interface OptionSpec {
  /** `--long`, without a value. Its camel case is the key of the parsed options. */
  readonly long: string;
  /** `-x`. */
  readonly short?: string;
  /** Other spellings of the same option, as other servers have it. */
  readonly aliases?: readonly string[];
  /** Absent: a switch. */
  readonly placeholder?: string;
  /** The value may be left out: then it is as if the option were a switch. */
  readonly optionalValue?: boolean;
  readonly description: string;
  readonly choices?: readonly string[];
  /** Words for what holds without it. The code that reads the option supplies the value. */
  readonly defaultText?: string;
  readonly repeatable?: boolean;
  /** The environment variable that is read when the option is not given. */
  readonly env?: string;
  readonly value?: ValueKind;
}

/** What a shell should offer for a value. */
export type ValueKind = 'file' | 'directory' | 'text';

export interface Example {
  readonly text: string;
  readonly command: string;
}

/** `-p, --port PORT`: how people see an option. */
export function optionFlags(option: OptionSpec): string {
  const names = option.short === undefined ? option.long : `${option.short}, ${option.long}`;
  const value = valueText(option);
  return value === '' ? names : `${names} ${value}`;
}

/** `PORT`, or `[SIZE]` for a value that may be left out; '' for a switch. */
export function valueText({ placeholder, optionalValue }: OptionSpec): string {
  if (placeholder === undefined) return '';
  return optionalValue === true ? `[${placeholder}]` : placeholder;
}

/** `DISK...` or `[SIZE]`: how people see an argument. */
export function argumentText(argument: ArgumentSpec): string {
  const name = argument.variadic === true ? `${argument.name}...` : argument.name;
  return argument.required ? name : `[${name}]`;
}

/** The commands of a group, and what follows its name in each. */
export function commandsOf(
  program: ProgramSpec,
  group: GroupSpec,
): readonly { readonly word: string; readonly command: CommandSpec }[] {
  const prefix = `${group.name} `;
  return program.commands
    .filter(({ name }) => name.startsWith(prefix))
    .map((command) => ({ word: command.name.slice(prefix.length), command }));
}

/** What may be the first word after the program's name: commands of one word, then groups. */
export function firstWords(program: ProgramSpec): readonly { name: string; summary: string }[] {
  return [...program.commands.filter(({ name }) => !name.includes(' ')), ...program.groups];
}

/** `holdfast-lab-cut`: the name of a command's manual page. */
export function pageName(program: ProgramSpec, command: CommandSpec): string {
  return `${program.name}-${command.name.replaceAll(' ', '-')}`;
}

/** The line after "usage:". */
export function usageLine(program: ProgramSpec, command: CommandSpec): string {
  const parts = [program.name, command.name, '[OPTION]...', ...command.arguments.map(argumentText)];
  return parts.join(' ');
}

/** Everything that is true of an option beyond its description, as sentences. */
export function optionRemarks(option: OptionSpec): string[] {
  const remarks: string[] = [];
  if (option.choices !== undefined) remarks.push(`One of: ${option.choices.join(', ')}.`);
  if (option.defaultText !== undefined) remarks.push(`Default: ${option.defaultText}.`);
  if (option.repeatable === true) remarks.push('May be given more than once.');
  if (option.aliases !== undefined) remarks.push(`Also spelled ${option.aliases.join(', ')}.`);
  if (option.env !== undefined) remarks.push(`Environment: ${option.env}.`);
  return remarks;
}
