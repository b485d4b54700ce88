import { readHost } from '../../stores/file/host.ts';
import { EXIT } from '../exit-codes.ts';
import { explain, explainMemory } from '../explain/explain.ts';
import { explanationLines, hostJson } from '../explain/text.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { cacheMode, checkDisk } from '../serve/disks.ts';
import { switchOption } from '../serve/options.ts';

/** `holdfast explain DISK`. */
export function runExplain(
  operands: readonly string[],
  options: OptionValues,
  output: Output,
): number {
  const disk = checkDisk(operands[0] ?? '');
  const mode = cacheMode(options);
  const facts = disk.startsWith('memory:') ? null : readHost(disk);
  const told = facts === null ? explainMemory(mode) : explain(facts, mode);
  if (switchOption(options, 'json')) {
    const host = facts === null ? null : hostJson(facts);
    output.data(JSON.stringify({ format: 1, disk, cache: mode, host, ...told }));
  } else {
    for (const line of explanationLines(disk, mode, facts, told)) output.data(line);
  }
  return EXIT.OK;
}
