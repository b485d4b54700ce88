import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { runLabCalibrate } from './lab-calibrate.ts';
import { runLabExport, runLabImport } from './lab-convert.ts';
import { runLabCut } from './lab-cut.ts';
import { runLabExplore } from './lab-explore.ts';
import { runLabFailFlush } from './lab-fail-flush.ts';
import { runLabMark } from './lab-mark.ts';
import { runLabMount } from './lab-mount.ts';
import { runLabRecord } from './lab-record.ts';
import { runLabShow } from './lab-show.ts';

/** `holdfast lab COMMAND`: one line for each, the commands are in files of their own. */
export async function runLab(
  name: string,
  operands: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  switch (name) {
    case 'lab record':
      return runLabRecord(operands, options, output);
    case 'lab explore':
      return runLabExplore(operands, options, output);
    case 'lab show':
      return runLabShow(operands, options, output);
    case 'lab mount':
      return runLabMount(operands, options, output);
    case 'lab mark':
      return runLabMark(operands, options, output);
    case 'lab import':
      return runLabImport(operands, options, output);
    case 'lab export':
      return runLabExport(operands, options, output);
    case 'lab calibrate':
      return runLabCalibrate(operands, options, output);
    case 'lab cut':
      return runLabCut(operands, options, output);
    case 'lab fail-flush':
      return runLabFailFlush(operands, options, output);
    default:
      throw new Error(`the command ${name} is declared and not there`);
  }
}
