import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseSize } from '../../base/units.ts';
import { recordBase } from '../../trace/base.ts';
import { exportDmLogWrites } from '../../trace/dm-log-writes-export.ts';
import { importDmLogWrites } from '../../trace/dm-log-writes.ts';
import { MAX_DISKS } from '../../trace/limits.ts';
import { openTrace } from '../../trace/reader.ts';
import { EXIT } from '../exit-codes.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { parseInteger, textOption } from '../serve/options.ts';

/** `holdfast lab import LOG TRACE`. */
export async function runLabImport(
  [log = '', path = '']: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const image = textOption(options, 'disk');
  const size = textOption(options, 'size');
  const sizeBytes =
    size === undefined ? (image === undefined ? undefined : statSync(image).size) : parseSize(size);
  importDmLogWrites(log, path, {
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    ...(image === undefined ? {} : { base: recordBase(image, resolve(image)) }),
  });
  const trace = openTrace(path);
  output.info(`${path}: ${trace.requests.count} requests, ${trace.marks.length} marks`);
  trace.close();
  return EXIT.OK;
}

/** `holdfast lab export TRACE LOG`. */
export async function runLabExport(
  [path = '', log = '']: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const disk = parseInteger('--disk', textOption(options, 'disk') ?? '0', 0, MAX_DISKS);
  const trace = openTrace(path);
  try {
    exportDmLogWrites(trace, log, { disk });
    output.info(`wrote ${log}; issue times and what was in flight are not in it`);
    return EXIT.OK;
  } finally {
    trace.close();
  }
}
