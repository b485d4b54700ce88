import { availableParallelism } from 'node:os';
import { UsageError } from '../../base/errors.ts';
import { parseDuration } from '../../base/units.ts';
import { ROWS } from '../../lab/calibrate/rows.ts';
import { runRow } from '../../lab/calibrate/run-row.ts';
import { rowLine, scoreLines, scoreOf } from '../../lab/calibrate/score.ts';
import type { Row, RowResult } from '../../lab/calibrate/types.ts';
import { packageVersion } from '../../server/version.ts';
import { EXIT } from '../exit-codes.ts';
import { untilInterrupted } from '../lab/interrupt.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { switchOption, textOption } from '../serve/options.ts';

/** `holdfast lab calibrate [ROW...]`. */
export async function runLabCalibrate(
  wanted: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const json = switchOption(options, 'json');
  const interrupt = untilInterrupted();
  const results: RowResult[] = [];
  try {
    for (const row of chooseRows(wanted)) {
      if (interrupt.signal.aborted) break;
      const result = await runRow(row, {
        budgetMs: parseDuration(textOption(options, 'budget') ?? '30s'),
        jobs: availableParallelism(),
        keep: textOption(options, 'keep') ?? null,
        version: packageVersion(),
        signal: interrupt.signal,
        remark: (line) => output.note(line),
      });
      results.push(result);
      if (!json) output.data(rowLine(result));
    }
  } finally {
    interrupt.done();
  }
  const score = scoreOf(results);
  if (json) output.data(JSON.stringify({ rows: results, score }));
  else for (const line of scoreLines(score)) output.data(line);
  return results.some(({ outcome }) => outcome === 'other') ? EXIT.FAILED : EXIT.OK;
}

/** `Q5a` is that row; `F5` is F5a, F5b and all others of that number; `S` all of that letter. */
function chooseRows(wanted: readonly string[]): readonly Row[] {
  if (wanted.length === 0) return ROWS;
  const chosen = new Set(wanted.flatMap((name) => rowsOf(name)));
  return ROWS.filter((row) => chosen.has(row));
}

function rowsOf(name: string): readonly Row[] {
  const row = ROWS.find(({ id }) => id === name);
  if (row !== undefined) return [row];
  const ofNumber = ROWS.filter(({ id }) => id.replace(/[a-z]$/, '') === name);
  const ofLetter = ROWS.filter(({ id }) => /^[A-Z]$/.test(name) && id.startsWith(name));
  if (ofNumber.length + ofLetter.length === 0) {
    throw new UsageError(`no row '${name}'; there are ${ROWS.map(({ id }) => id).join(', ')}`);
  }
  return [...ofNumber, ...ofLetter];
}
