import { EXIT } from '../exit-codes.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { askControl, type ControlRequest } from '../serve/control-socket.ts';
import { switchOption } from '../serve/options.ts';

/** `holdfast counters SOCKET`. */
export async function runCounters(operands: readonly string[], output: Output): Promise<number> {
  return ask(operands[0] ?? '', { op: 'counters' }, output);
}

/** `holdfast resume SOCKET [EXPORT]`. */
export async function runResume(
  operands: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const [socket = '', exportName = ''] = operands;
  if (!switchOption(options, 'yes')) {
    output.warn(`export '${exportName}': --yes says that what was lost is repaired or given up`);
    return EXIT.FAILED;
  }
  return ask(socket, { op: 'resume', export: exportName }, output);
}

async function ask(socket: string, request: ControlRequest, output: Output): Promise<number> {
  const answer = await askControl(socket, request);
  if (!answer.ok) {
    output.warn(answer.error);
    return EXIT.FAILED;
  }
  const disks = 'disks' in answer ? answer.disks : [];
  for (const counters of disks) output.data(JSON.stringify(counters));
  return EXIT.OK;
}
