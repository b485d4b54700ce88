import { UsageError } from '../../base/errors.ts';
import type { DiskConfig, IscsiListen } from '../../server/config.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { takeActivatedSockets } from '../serve/activation.ts';
import { parseDisks } from '../serve/disks.ts';
import { nameFuseDisk } from '../serve/fuse.ts';
import { settleIscsi, type IscsiChoice } from '../serve/iscsi.ts';
import { chooseListen, isNbd, type ListenChoice } from '../serve/listen.ts';
import { maxConnections, reactorKind, switchOption, textOption } from '../serve/options.ts';
import { runServer, type PlaceChoice, type ServeSettings } from '../serve/run-server.ts';
import { readTls } from '../serve/tls.ts';
import { nameDisk } from '../serve/vhost-user.ts';

/** `holdfast serve DISK...`. */
export async function runServe(
  operands: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const disks = parseDisks(operands, options);
  return runServer(await serveSettings(disks, options), output);
}

/** Everything that `serve` was told, checked as far as it can be without touching a disk. */
export async function serveSettings(
  disks: readonly DiskConfig[],
  options: OptionValues,
): Promise<ServeSettings> {
  const command = textOption(options, 'run');
  const json = switchOption(options, 'json');
  if (json && command !== undefined) {
    throw new UsageError('--json and --run exclude each other: standard output is for the command');
  }
  const limit = maxConnections(options);
  // The sockets are taken, and their variables removed, before anything is started from here.
  const activated = takeActivatedSockets(process.env, process.pid);
  const tls = await readTls(options);
  const warnings: string[] = [];
  const listen = settle(chooseListen(options, activated, tls.mode), disks, warnings);
  const pidFile = textOption(options, 'pidFile');
  const control = textOption(options, 'control');
  const record = textOption(options, 'record');
  if (control === undefined && textOption(options, 'onSyncError') === 'stop') {
    throw new UsageError(
      '--on-sync-error stop needs --control PATH: without it nobody could resume',
    );
  }
  return {
    disks,
    listen,
    warnings,
    tls,
    maxConnections: limit,
    reactor: reactorKind(options),
    formatNamed: textOption(options, 'format') !== undefined,
    exitWithParent: switchOption(options, 'exitWithParent'),
    quiet: options['quiet'] === true,
    json,
    ...(command === undefined ? {} : { command }),
    ...(pidFile === undefined ? {} : { pidFile }),
    ...(control === undefined ? {} : { control }),
    ...(record === undefined ? {} : { record: { path: record } }),
  };
}

/** Which disks each place is for, and with which secrets. */
function settle(
  choices: readonly ListenChoice[],
  disks: readonly DiskConfig[],
  warnings: string[],
): PlaceChoice[] {
  // Places of one target have to be seen together.
  const iscsi: IscsiListen[] = settleIscsi(
    choices.filter(
      (choice): choice is IscsiChoice => !isNbd(choice) && choice.protocol === 'iscsi',
    ),
    disks,
    (line) => warnings.push(line),
  );
  return choices.map((choice) => {
    if (isNbd(choice)) return choice;
    if (choice.protocol === 'fuse') return nameFuseDisk(choice, disks);
    return choice.protocol === 'iscsi' ? (iscsi.shift() as IscsiListen) : nameDisk(choice, disks);
  });
}
