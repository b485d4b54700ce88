import { UsageError } from '../../base/errors.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { parseDisks } from '../serve/disks.ts';
import { fuseFile, nameFuseDisk } from '../serve/fuse.ts';
import {
  DEFAULT_MAX_CONNECTIONS,
  reactorKind,
  switchOption,
  textOption,
} from '../serve/options.ts';
import { runServer } from '../serve/run-server.ts';

/** `holdfast mount DISK FILE`. */
export async function runMount(
  [disk = '', file = '']: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const disks = parseDisks([`=${disk}`], options);
  const pidFile = textOption(options, 'pidFile');
  const control = textOption(options, 'control');
  if (control === undefined && textOption(options, 'onSyncError') === 'stop') {
    throw new UsageError(
      '--on-sync-error stop needs --control PATH: without it nobody could resume',
    );
  }
  const where = { ...fuseFile(file), pageCache: switchOption(options, 'pageCache') };
  return runServer(
    {
      disks,
      listen: [nameFuseDisk(where, disks)],
      tls: { mode: 'off' },
      maxConnections: DEFAULT_MAX_CONNECTIONS,
      reactor: reactorKind(options),
      formatNamed: false,
      exitWithParent: false,
      quiet: options['quiet'] === true,
      json: switchOption(options, 'json'),
      ...(pidFile === undefined ? {} : { pidFile }),
      ...(control === undefined ? {} : { control }),
    },
    output,
  );
}
