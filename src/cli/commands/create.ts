import { parseSize } from '../../base/units.ts';
import { createImage } from '../../stores/file/create.ts';
import { EXIT } from '../exit-codes.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { switchOption, textOption } from '../serve/options.ts';

/** `holdfast create PATH SIZE`. */
export function runCreate(
  operands: readonly string[],
  options: OptionValues,
  output: Output,
): number {
  const [path = '', sizeText = ''] = operands;
  const sizeBytes = parseSize(sizeText);
  const preallocate = (textOption(options, 'preallocation') ?? 'off') as 'off' | 'falloc' | 'full';
  createImage(path, sizeBytes, { overwrite: switchOption(options, 'overwrite'), preallocate });
  if (switchOption(options, 'json')) output.data(JSON.stringify({ path, sizeBytes, preallocate }));
  else output.info(`made ${path}, ${sizeBytes} bytes`);
  return EXIT.OK;
}
