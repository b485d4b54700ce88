import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseDuration } from '../../base/units.ts';
import type { CutModel, CutReport } from '../../layers/volatile-cache/requests.ts';
import { EXIT } from '../exit-codes.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { askControl } from '../serve/control-socket.ts';
import { parseInteger, textOption } from '../serve/options.ts';

const MOST_SEED = 1e15 - 1;
/** What crypto.randomInt can draw from. */
const MOST_DRAWN = 2 ** 48 - 1;

/** `holdfast lab cut SOCKET [EXPORT]`. The wait before it is ours, so that who changes his mind ends this program. */
export async function runLabCut(
  operands: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const [socket = '', exportName = ''] = operands;
  const seedText = textOption(options, 'seed');
  const seed =
    seedText === undefined ? randomInt(MOST_DRAWN) : parseInteger('--seed', seedText, 0, MOST_SEED);
  const model = (textOption(options, 'model') ?? 'M2') as CutModel;
  const offForMs = parseDuration(textOption(options, 'offFor') ?? '0');
  await sleep(parseDuration(textOption(options, 'after') ?? '0'));
  const answer = await askControl(socket, { op: 'cut', export: exportName, seed, model, offForMs });
  if (!answer.ok || !('cut' in answer)) {
    output.warn(answer.ok ? 'the server did not say what became of the data' : answer.error);
    return EXIT.FAILED;
  }
  output.data(JSON.stringify(answer.cut));
  output.info(describeCut(answer.cut));
  return EXIT.OK;
}

/** One line for people. */
export function describeCut(cut: CutReport): string {
  const parts = [`${cut.kept} kept`, `${cut.dropped} dropped`];
  if (cut.stale > 0) parts.push(`${cut.stale} in an older version`);
  if (cut.garbage > 0) parts.push(`${cut.garbage} garbage`);
  return (
    `export '${cut.export}': power cut with seed ${cut.seed}, model ${cut.model}: of ${cut.units} ` +
    `unflushed units in ${cut.writes} writes ${parts.join(', ')}; ${cut.torn} writes torn, ` +
    `${cut.inFlight} requests not answered`
  );
}
