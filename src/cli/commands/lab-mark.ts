import { UsageError } from '../../base/errors.ts';
import { EXIT } from '../exit-codes.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { askControl } from '../serve/control-socket.ts';
import { switchOption, textOption } from '../serve/options.ts';

/** `holdfast lab mark TEXT`. What it tells of was there before this process; starting it has taken a while. */
export async function runLabMark(
  [text = '']: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const socket = textOption(options, 'control');
  if (socket === undefined) {
    throw new UsageError('say which server records: --control PATH, or HOLDFAST_CONTROL');
  }
  const kind = switchOption(options, 'ack') ? 'ack' : 'note';
  const answer = await askControl(socket, { op: 'mark', kind, text, agoMs: performance.now() });
  if (answer.ok) return EXIT.OK;
  output.warn(answer.error);
  return EXIT.FAILED;
}
