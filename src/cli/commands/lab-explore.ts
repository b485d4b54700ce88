import { closeSync, existsSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { relative } from 'node:path';
import { ConfigError, messageOf, UsageError } from '../../base/errors.ts';
import { parseDuration, parseSize } from '../../base/units.ts';
import type { Exploration, ExploreOptions, Progress } from '../../lab/explore/types.ts';
import { investigate, type Investigation } from '../../lab/investigate.ts';
import type { CrashModel, ModelName, ModelOptions } from '../../lab/model/types.ts';
import { coverageSentence, findingName } from '../../lab/report/coverage.ts';
import { renderReport } from '../../lab/report/report.ts';
import { packageVersion } from '../../server/version.ts';
import { EXIT } from '../exit-codes.ts';
import { chooseChecker } from '../lab/checker-choice.ts';
import { untilInterrupted } from '../lab/interrupt.ts';
import { ProgressBar } from '../lab/progress-bar.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { parseInteger, switchOption, textOption } from '../serve/options.ts';

/** Something fails; something could not be judged. */
const EXIT_FAILS = 1;
const EXIT_DOUBT = 2;

const MOST_JOBS = 64;
const MOST_STATES = 1e12;
/** Kinds of failure that are explained, and states asked for each. */
const MOST_CAUSES = 8;
const STATES_FOR_CAUSE = 400;

/** `holdfast lab explore TRACE`. */
export async function runLabExplore(
  [tracePath = '']: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const check = textOption(options, 'check') ?? 'old-or-new';
  const explore = exploreOptions(tracePath, check, options);
  const report = textOption(options, 'report');
  if (report !== undefined) mustBeWritable(report);
  const bar = new ProgressBar(process.stderr, options['quiet'] === true);
  const { signal, done } = untilInterrupted();
  try {
    return await investigate(
      { explore, mostCauses: MOST_CAUSES, statesForCause: STATES_FOR_CAUSE },
      {
        progress: (progress) => bar.show(progressLine(progress, explore.budgetMs)),
        interrupted: signal,
        explaining: (finding) => bar.show(`looking for the cause of: ${findingName(finding)}`),
        remark: (line) => output.info(line),
      },
      (model, found) => {
        bar.end();
        return conclude(model, found, check, options, output);
      },
    );
  } finally {
    bar.end();
    done();
  }
}

/** Before it is looked for an hour for something to write there. */
function mustBeWritable(path: string): void {
  try {
    const isNew = !existsSync(path);
    closeSync(openSync(path, 'a'));
    if (isNew) rmSync(path);
  } catch (error) {
    throw new ConfigError(
      `the report cannot be written: ${messageOf(error)}`,
      'name another file with --report',
      { cause: error },
    );
  }
}

function exploreOptions(tracePath: string, check: string, options: OptionValues): ExploreOptions {
  const timeoutMs = parseDuration(textOption(options, 'timeout') ?? '10s');
  const states = textOption(options, 'states');
  const jobs = textOption(options, 'jobs');
  return {
    tracePath,
    model: modelOptions(options),
    checker: chooseChecker(check, textOption(options, 'mount'), timeoutMs),
    jobs: jobs === undefined ? availableParallelism() : parseInteger('--jobs', jobs, 1, MOST_JOBS),
    budgetMs: parseDuration(textOption(options, 'budget') ?? '5m'),
    ...(states === undefined
      ? {}
      : { maxStates: parseInteger('--states', states, 1, MOST_STATES) }),
    seed: parseInteger('--seed', textOption(options, 'seed') ?? '1', 0, 2 ** 32 - 1),
    readGuided: options['readGuided'] !== false,
    checkBase: switchOption(options, 'checkBase'),
    progressPath: textOption(options, 'progress') ?? null,
  };
}

function modelOptions(options: OptionValues): ModelOptions {
  const unitBytes = parseSize(textOption(options, 'unit') ?? '512');
  if (unitBytes < 512 || unitBytes > 2 ** 20 || !Number.isInteger(Math.log2(unitBytes))) {
    throw new UsageError(`--unit must be a power of two from 512 to 1M, not ${unitBytes}`);
  }
  return {
    // Its choices were checked while parsing.
    model: (textOption(options, 'model') ?? 'M2') as ModelName,
    unitBytes,
    overlap: textOption(options, 'overlap') === 'any' ? 'any' : 'issued',
    poison: switchOption(options, 'poison'),
  };
}

function progressLine(progress: Progress, budgetMs: number): string {
  const share = Math.min(100, Math.floor((progress.elapsedMs / budgetMs) * 100));
  return (
    `${share} % of the time; ${progress.statesDecided} states (${Math.round(progress.statesPerSecond)}/s), ` +
    `${progress.checkerRuns} runs (${Math.round(progress.runsPerSecond)}/s), ${progress.failures} failing; ` +
    `${progress.rung}; ${progress.cutsExact} of ${progress.cuts} cuts exact`
  );
}

function conclude(
  model: CrashModel,
  found: Investigation,
  check: string,
  options: OptionValues,
  output: Output,
): number {
  const { exploration, causes } = found;
  for (const { name, ignoresFlush } of model.trace.disks) {
    if (ignoresFlush !== true) continue;
    output.warn(
      `${name} was served with cache mode unsafe: FLUSHes were answered and not done, so nothing was ever stable`,
    );
  }
  if (!model.trace.complete) {
    output.warn(`${model.trace.path} is cut short: it was read to its last whole record`);
  }
  const report = textOption(options, 'report');
  if (report !== undefined) {
    const replayOptions = `--trace ${relative('.', model.trace.path)}`;
    const version = packageVersion();
    const page = renderReport({
      model,
      exploration,
      causes,
      checker: check,
      replayOptions,
      version,
    });
    writeFileSync(report, page);
  }
  if (switchOption(options, 'json')) output.data(JSON.stringify({ exploration, causes }));
  else for (const line of summary(found, model)) output.data(line);
  if (report !== undefined) output.info(`wrote ${report}`);
  return exitCode(exploration);
}

function exitCode({ findings, ended }: Exploration): number {
  if (findings.some(({ verdict }) => verdict.outcome === 'fail')) return EXIT_FAILS;
  if (findings.some(({ verdict }) => verdict.outcome !== 'skip')) return EXIT_DOUBT;
  return ended === 'interrupted' ? EXIT.SIGINT : EXIT.OK;
}

function summary({ exploration, causes }: Investigation, model: CrashModel): string[] {
  const explained = new Set(causes.map(({ finding }) => finding.id));
  const lines = causes.flatMap((cause) => [
    `FAIL ${findingName(cause.finding)} (${cause.finding.count} states)`,
    `     ${cause.sentence}`,
    ...cause.whatIf.map(({ words }) => `     would help: ${words}`),
    `     ${cause.id}`,
  ]);
  for (const finding of exploration.findings) {
    if (explained.has(finding.id)) continue;
    lines.push(
      `${finding.verdict.outcome.toUpperCase()} ${findingName(finding)} (${finding.count} states)`,
    );
    lines.push(`     ${finding.id}`);
  }
  if (lines.length === 0) {
    lines.push(exploration.ended === 'interrupted' ? 'NO FAILURE SO FAR' : 'PASS');
  }
  const { statesDecided, checkerRuns, elapsedMs, ended } = exploration;
  lines.push(
    `${statesDecided} states decided under ${model.options.model} by ${checkerRuns} runs of the checker ` +
      `in ${(elapsedMs / 1000).toFixed(1)} s; ended: ${ended}`,
    coverageSentence(exploration.coverage),
  );
  return lines;
}
