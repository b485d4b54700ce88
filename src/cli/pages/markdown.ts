import {
  argumentText,
  optionFlags,
  optionRemarks,
  usageLine,
  type CommandSpec,
  type OptionSpec,
  type ProgramSpec,
} from '../spec/spec.ts';

/** docs/reference/cli.md. */
export function renderReference(program: ProgramSpec): string {
  const lines = [
    '# The command line',
    '',
    '<!-- Made by scripts/generate-pages.ts from src/cli/spec; do not edit. -->',
    '',
    ...program.details.flatMap((text) => [text, '']),
    'How commands end is on [a page of its own](exit-codes.md).',
    '',
    ...program.commands.map(
      (command) =>
        `- [\`${program.name} ${command.name}\`](#${anchor(program, command)}): ${command.summary}`,
    ),
    '',
    'Every command also takes:',
    '',
    ...program.options.map(optionLine),
    '- `-h, --help`: Print a summary. With `--json`: the whole command tree as JSON.',
    '',
  ];
  for (const command of program.commands) lines.push(...section(program, command));
  return `${lines.join('\n').trimEnd()}\n`;
}

function section(program: ProgramSpec, command: CommandSpec): string[] {
  const lines = [
    `## ${program.name} ${command.name}`,
    '',
    '```',
    usageLine(program, command),
    '```',
    '',
  ];
  lines.push(...command.details.flatMap((text) => [literal(text), '']));
  if (command.arguments.length > 0) {
    for (const argument of command.arguments) {
      const choices =
        argument.choices === undefined ? '' : ` One of: ${argument.choices.join(', ')}.`;
      lines.push(`- \`${argumentText(argument)}\`: ${literal(argument.description)}${choices}`);
    }
    lines.push('');
  }
  if (command.options.length > 0) lines.push(...command.options.map(optionLine), '');
  for (const example of command.examples) {
    lines.push(`${example.text}:`, '', '```sh', example.command, '```', '');
  }
  return lines;
}

function optionLine(option: OptionSpec): string {
  const text = [option.description, ...optionRemarks(option)].join(' ');
  return `- \`${optionFlags(option)}\`: ${literal(text)}`;
}

/** Characters that Markdown would read as markup. */
function literal(text: string): string {
  return text.replaceAll(/[<>*_]/g, (character) => `\\${character}`);
}

function anchor(program: ProgramSpec, command: CommandSpec): string {
  return `${program.name}-${command.name.replaceAll(' ', '-')}`;
}
