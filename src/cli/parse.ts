import { Command, CommanderError, Option } from 'commander';
import { UsageError } from '../base/errors.ts';
import { renderCommandHelp, renderGroupHelp, renderProgramHelp } from './pages/help.ts';
import type { CommandSpec, OptionSpec, ProgramSpec } from './spec/spec.ts';

/** The values of options by the camel case of their long names; switches are true or absent. */
export type OptionValues = Readonly<
  Record<string, string | readonly string[] | boolean | undefined>
>;

export type Parsed =
  | {
      readonly kind: 'command';
      readonly name: string;
      /** In the order of the declaration; a variadic argument's values come last. */
      readonly operands: readonly string[];
      readonly options: OptionValues;
    }
  /** Text that was asked for, for stdout. */
  | { readonly kind: 'text'; readonly text: string };

/** Reads a command line (without node and the script). Throws UsageError with one line. */
export function parseCommandLine(
  spec: ProgramSpec,
  version: string,
  argv: readonly string[],
): Parsed {
  let text = '';
  let parsed: Parsed | null = null;
  const program = configure(new Command(spec.name), (line) => (text += line));
  program.configureHelp({ formatHelp: () => renderProgramHelp(spec) });
  program.version(version, '-V, --version').enablePositionalOptions();
  for (const option of spec.options) addOption(program, option);
  const parents = addGroups(program, spec);
  for (const command of spec.commands) {
    addCommand(parents, spec, command, (operands, options) => {
      parsed = { kind: 'command', name: command.name, operands, options };
    });
  }
  if (argv.length === 0) throw new UsageError(`no command given; see '${spec.name} --help'`);
  try {
    program.parse(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode !== 0) {
      const group = spec.groups.find(({ name }) => startsWith(argv, name));
      // Commander's way to say that a group stands alone.
      if (error.code === 'commander.help' && group !== undefined) {
        return { kind: 'text', text: renderGroupHelp(spec, group) };
      }
      throw new UsageError(usageMessage(spec, argv, error.message));
    }
  }
  return parsed ?? { kind: 'text', text };
}

/** What commands are added to, by the name of their group; '' for the program itself. */
function addGroups(program: Command, spec: ProgramSpec): ReadonlyMap<string, Command> {
  const parents = new Map([['', program]]);
  for (const group of spec.groups) {
    const made = program.command(group.name).description(group.summary);
    made.configureHelp({ formatHelp: () => renderGroupHelp(spec, group) });
    made.enablePositionalOptions();
    for (const option of spec.options) addOption(made, option);
    parents.set(group.name, made);
  }
  return parents;
}

function addCommand(
  parents: ReadonlyMap<string, Command>,
  spec: ProgramSpec,
  command: CommandSpec,
  found: (operands: string[], options: OptionValues) => void,
): void {
  const [word, group] = command.name.split(' ').toReversed() as [string, string?];
  const parent = parents.get(group ?? '');
  if (parent === undefined) throw new Error(`the command ${command.name} is in no declared group`);
  const target = parent.command(word).description(command.summary);
  target.configureHelp({ formatHelp: () => renderCommandHelp(spec, command) });
  for (const argument of command.arguments) {
    const { name } = argument;
    const inner = argument.variadic === true ? `${name}...` : name;
    const made = target.createArgument(argument.required ? `<${inner}>` : `[${inner}]`);
    if (argument.choices !== undefined) made.choices([...argument.choices]);
    target.addArgument(made);
  }
  for (const option of [...command.options, ...spec.options]) addOption(target, option);
  target.action(() => found(target.args, target.optsWithGlobals<OptionValues>()));
}

function configure(command: Command, write: (text: string) => void): Command {
  return command.exitOverride().configureOutput({
    writeOut: write,
    // Errors arrive as exceptions; the same text on stderr would be a second line.
    writeErr: () => undefined,
  });
}

function addOption(command: Command, option: OptionSpec): void {
  const value = valueSpec(option);
  const names = option.short === undefined ? option.long : `${option.short}, ${option.long}`;
  const made = new Option(`${names}${value}`, option.description);
  if (option.choices !== undefined) made.choices([...option.choices]);
  if (option.env !== undefined) made.env(option.env);
  if (option.repeatable === true) {
    made.argParser((text: string, before: readonly string[] | undefined) => [
      ...(before ?? []),
      text,
    ]);
  }
  command.addOption(made);
  for (const alias of option.aliases ?? []) {
    // Commander knows two spellings of an option; a further one is an option of its own that sets the same value.
    const other = new Option(`${alias}${value}`).hideHelp();
    command.addOption(other);
    command.on(`option:${other.name()}`, (text: string) => {
      const key = made.attributeName();
      const before = command.getOptionValue(key) as readonly string[] | undefined;
      const now = option.repeatable === true ? [...(before ?? []), text] : text;
      command.setOptionValueWithSource(key, now, 'cli');
    });
  }
}

/** As Commander writes it. */
function valueSpec({ placeholder, optionalValue }: OptionSpec): string {
  if (placeholder === undefined) return '';
  return optionalValue === true ? ` [${placeholder}]` : ` <${placeholder}>`;
}

/** Whether the command line's first words, switches aside, are those of `name`. */
function startsWith(argv: readonly string[], name: string): boolean {
  const words = argv.filter((word) => !word.startsWith('-'));
  return name === words.slice(0, name.split(' ').length).join(' ');
}

function usageMessage(spec: ProgramSpec, argv: readonly string[], message: string): string {
  const named = [...spec.commands, ...spec.groups].find((one) => startsWith(argv, one.name));
  const name = named?.name;
  const help = name === undefined ? `${spec.name} --help` : `${spec.name} ${name} --help`;
  const what = message
    .replace(/^error: /, '')
    .replaceAll(/\s*\n\s*/g, ' ')
    .replace(/\.$/, '');
  return `${what}; see '${help}'`;
}
