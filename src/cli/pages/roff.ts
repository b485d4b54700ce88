import { EXIT_TEXTS } from '../exit-codes.ts';
import {
  argumentText,
  optionRemarks,
  pageName,
  valueText,
  type CommandSpec,
  type OptionSpec,
  type ProgramSpec,
} from '../spec/spec.ts';

/** The manual page of the whole program, as roff for man(7). */
export function renderProgramPage(program: ProgramSpec, version: string): string {
  return [
    ...head(program.name, version, program.summary),
    `.B ${program.name}`,
    '.I COMMAND',
    '.RI [ OPTION ]...',
    '.SH DESCRIPTION',
    ...paragraphs(program.details),
    '.SH COMMANDS',
    ...program.commands.flatMap((command) => [
      '.TP',
      `.BR ${escape(pageName(program, command))} (1)`,
      sentence(command.summary),
    ]),
    '.SH OPTIONS',
    ...program.options.flatMap(optionItem),
    ...item('.BR \\-V ", " \\-\\-version', 'Print the version.'),
    ...item(
      '.BR \\-h ", " \\-\\-help',
      'Print a summary; with --json the whole command tree as JSON.',
    ),
    ...tail(program.commands.map((command) => pageName(program, command))),
  ].join('\n');
}

/** The manual page of one command, as roff for man(7). */
export function renderCommandPage(
  program: ProgramSpec,
  command: CommandSpec,
  version: string,
): string {
  const examples = command.examples.flatMap((example) => [
    '.PP',
    `${escape(example.text)}:`,
    '.PP',
    '.nf',
    '.RS 4',
    escape(example.command),
    '.RE',
    '.fi',
  ]);
  return [
    ...head(pageName(program, command), version, command.summary),
    `.B ${program.name} ${escape(command.name)}`,
    '.RI [ OPTION ]...',
    ...command.arguments.map((argument) => `.I ${escape(argumentText(argument))}`),
    '.SH DESCRIPTION',
    ...paragraphs(command.details),
    ...command.arguments.flatMap((argument) =>
      item(
        `.I ${escape(argument.name)}`,
        argument.description +
          (argument.choices === undefined ? '' : ` One of: ${argument.choices.join(', ')}.`),
      ),
    ),
    '.SH OPTIONS',
    ...[...command.options, ...program.options].flatMap(optionItem),
    ...item('.BR \\-h ", " \\-\\-help', 'Print a summary.'),
    ...(examples.length > 0 ? ['.SH EXAMPLES', ...examples] : []),
    ...tail([program.name]),
  ].join('\n');
}

function head(name: string, version: string, summary: string): string[] {
  return [
    `.TH ${escape(name).toUpperCase()} 1 "" "holdfast ${escape(version)}" "User Commands"`,
    // No hyphenation and no justification: option names and paths stay whole.
    '.nh',
    '.ad l',
    '.SH NAME',
    `${escape(name)} \\- ${escape(summary)}`,
    '.SH SYNOPSIS',
  ];
}

function tail(seeAlso: readonly string[]): string[] {
  const others = seeAlso.map((name, i) => {
    return `.BR ${escape(name)} (1)${i === seeAlso.length - 1 ? '' : ','}`;
  });
  return [
    '.SH EXIT STATUS',
    ...EXIT_TEXTS.flatMap(([code, text]) => item(`.B ${code}`, text)),
    '.SH SEE ALSO',
    ...others,
    '',
  ];
}

function optionItem(option: OptionSpec): string[] {
  const names = [option.short, option.long]
    .filter((name) => name !== undefined)
    .map((name) => `\\fB${escape(name)}\\fR`)
    .join(', ');
  const value = valueText(option) === '' ? '' : ` \\fI${escape(valueText(option))}\\fR`;
  return item(names + value, [option.description, ...optionRemarks(option)].join(' '));
}

function item(label: string, text: string): string[] {
  return ['.TP', label, escape(text)];
}

function paragraphs(texts: readonly string[]): string[] {
  return texts.flatMap((text) => ['.PP', escape(text)]);
}

function sentence(summary: string): string {
  return escape(`${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`);
}

/** Text as roff takes it: the escape character, the minus of options, and control characters at the line's start. */
function escape(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('`', '\\(ga')
    .replaceAll('~', '\\(ti')
    .replaceAll('^', '\\(ha')
    .replace(/^\./, '\\&.');
}
