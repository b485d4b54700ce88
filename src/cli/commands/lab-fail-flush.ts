import { UsageError } from '../../base/errors.ts';
import type { FlushFault } from '../../layers/volatile-cache/requests.ts';
import { EXIT } from '../exit-codes.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { askControl } from '../serve/control-socket.ts';
import { switchOption, textOption } from '../serve/options.ts';

const WHEN = ['once', 'always', 'never'] as const;

/** `holdfast lab fail-flush SOCKET [EXPORT]`. */
export async function runLabFailFlush(
  operands: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const [socket = '', exportName = ''] = operands;
  const [when, ...more] = WHEN.filter((name) => switchOption(options, name));
  if (when === undefined || more.length > 0) {
    throw new UsageError('say one of --once, --always and --never');
  }
  const data = (textOption(options, 'data') ?? 'keep') as FlushFault['data'];
  const answer = await askControl(socket, { op: 'fail-flush', export: exportName, when, data });
  if (!answer.ok) {
    output.warn(answer.error);
    return EXIT.FAILED;
  }
  const says = {
    once: 'the next sync fails',
    always: 'every sync fails until --never',
    never: 'syncs succeed again',
  }[when];
  const loses = when !== 'never' && data === 'drop' ? ', and loses its data' : '';
  output.info(`export '${exportName}': ${says}${loses}`);
  return EXIT.OK;
}
