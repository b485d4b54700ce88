import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { GiB } from '../../base/units.ts';
import { NBD_DEFAULT_PORT } from '../../protocols/nbd/wire.ts';
import { createImage } from '../../stores/file/create.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { cacheMode } from '../serve/disks.ts';
import { MOST_SOCKET_PATH_BYTES, type NbdChoice } from '../serve/listen.ts';
import { DEFAULT_MAX_CONNECTIONS, parsePort, reactorKind, textOption } from '../serve/options.ts';
import { runServer } from '../serve/run-server.ts';

const DEMO_BYTES = 1 * GiB;

/** `holdfast demo`: a disk that is made once, served on loopback and on a Unix socket beside it. */
export async function runDemo(options: OptionValues, output: Output): Promise<number> {
  const disk = resolve(textOption(options, 'disk') ?? join('.data', 'demo.img'));
  const portText = textOption(options, 'port');
  const port = portText === undefined ? NBD_DEFAULT_PORT : parsePort('--port', portText);
  prepareDisk(disk, output);
  return runServer(
    {
      disks: [
        {
          disk,
          exportName: '',
          description: 'Holdfast demo disk',
          cache: cacheMode(options),
          readOnly: false,
          onSyncError: 'poison',
        },
      ],
      listen: [demoSocket(disk), { kind: 'tcp', host: '127.0.0.1', port }],
      tls: { mode: 'off' },
      maxConnections: DEFAULT_MAX_CONNECTIONS,
      reactor: reactorKind(options),
      // It is ours, and raw; what a guest puts on it is the guest's.
      formatNamed: true,
      exitWithParent: false,
      quiet: options['quiet'] === true,
      json: false,
    },
    output,
  );
}

function prepareDisk(disk: string, output: Output): void {
  if (existsSync(disk)) return;
  try {
    mkdirSync(dirname(disk), { recursive: true });
  } catch (error) {
    throw new ConfigError(`cannot make the directory ${dirname(disk)}`, messageOf(error), {
      cause: error,
    });
  }
  createImage(disk, DEMO_BYTES, { overwrite: false });
  output.info(`made ${disk}, 1 GiB and sparse`);
}

/** demo.img gets demo.sock; a path too long for the kernel gets a private socket instead. */
function demoSocket(disk: string): NbdChoice {
  const path = `${disk.replace(/\.[^./]*$/, '')}.sock`;
  if (Buffer.byteLength(path) > MOST_SOCKET_PATH_BYTES) return 'private';
  return { kind: 'unix', path };
}
