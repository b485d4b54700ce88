import { UsageError } from '../../base/errors.ts';
import { EXIT } from '../exit-codes.ts';
import { renderCompletion, type Shell } from '../pages/completion.ts';
import { renderCommandPage, renderProgramPage } from '../pages/roff.ts';
import { findCommand, PROGRAM } from '../spec/program.ts';
import type { Output } from '../output.ts';

/** `holdfast completion SHELL`. The choices of SHELL were checked while parsing. */
export function runCompletion(operands: readonly string[], output: Output): number {
  output.data(renderCompletion(PROGRAM, operands[0] as Shell).trimEnd());
  return EXIT.OK;
}

/** `holdfast man [COMMAND...]`: the words of a command, or its page's name as in `lab-cut`. */
export function runMan(operands: readonly string[], version: string, output: Output): number {
  const name = operands.join(' ');
  if (name === '') {
    output.data(renderProgramPage(PROGRAM, version).trimEnd());
    return EXIT.OK;
  }
  const command = findCommand(name) ?? findCommand(name.replace('-', ' '));
  if (command === undefined) throw new UsageError(`there is no command '${name}' to describe`);
  output.data(renderCommandPage(PROGRAM, command, version).trimEnd());
  return EXIT.OK;
}
