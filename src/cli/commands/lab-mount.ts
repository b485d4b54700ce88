import { UsageError } from '../../base/errors.ts';
import { openStateDisks } from '../../lab/state-device/state-device.ts';
import { mountDevice } from '../../protocols/fuse/mount.ts';
import { sourceOfDevice } from '../../protocols/fuse/source.ts';
import { openReactor } from '../../reactor/open.ts';
import { EXIT } from '../exit-codes.ts';
import { findState } from '../lab/find-trace.ts';
import { untilInterrupted } from '../lab/interrupt.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { parseInteger, textOption } from '../serve/options.ts';

/** `holdfast lab mount ID FILE`. */
export async function runLabMount(
  [id = '', file = '']: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const { model, state } = findState(id, textOption(options, 'trace'));
  const interrupt = untilInterrupted();
  try {
    const disks = openStateDisks(model, false);
    disks.shown.show(state);
    const most = disks.devices.length - 1;
    const number = parseInteger('--disk', textOption(options, 'disk') ?? '0', 0, most);
    const device = disks.devices[number];
    if (device === undefined) throw new UsageError(`the trace has no disk ${number}`);
    const { reactor } = await openReactor('auto', {});
    const ended = new Promise<void>((resolve) => {
      interrupt.signal.addEventListener('abort', () => resolve());
    });
    const mount = await mountDevice(reactor, {
      path: file,
      source: sourceOfDevice(device),
      name: id,
      warn: (line) => output.warn(line),
    });
    output.data(mount.path);
    output.info('writes are thrown away at the end; Ctrl-C ends it');
    await ended;
    await mount.unmount();
    await disks.close();
    await reactor.close();
    return EXIT.OK;
  } finally {
    interrupt.done();
    model.close();
    model.trace.close();
  }
}
