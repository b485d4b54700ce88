import { UsageError } from '../../base/errors.ts';
import type { VhostUserBlkListen } from '../../server/config.ts';
import { EXIT } from '../exit-codes.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { parseDisks } from '../serve/disks.ts';
import { socketPath } from '../serve/listen.ts';
import { DEFAULT_MAX_CONNECTIONS, parseInteger, textOption } from '../serve/options.ts';
import { runServer } from '../serve/run-server.ts';
import { checkSerial, parseQueues } from '../serve/vhost-user.ts';

const NAME = 'vhost-user-blk';

/** Descriptors 0, 1 and 2 have their usual meaning [vhost-user "Back-end program conventions"]. */
const LEAST_FD = 3;
/** As many as a kernel can be set to allow (fs.nr_open); catches slips of the hand. */
const MOST_FD = 2 ** 30;

/**
 * Whether a command line asks for nothing but the capabilities: "Other options and arguments should be ignored"
 * [vhost-user "Back-end program conventions"], so it is looked for before the line is checked.
 */
export function asksForCapabilities(argv: readonly string[]): boolean {
  return argv[0] === NAME && argv.some((word) => word === '--print-capabilities' || word === '-c');
}

/** The answer, as QEMU's docs/interop/vhost-user.json has it: VHostUserBackendCapabilities of a block back-end. */
export function capabilities(): string {
  return JSON.stringify({ type: 'block', features: ['read-only', 'blk-file'] }, null, 2);
}

/** `holdfast vhost-user-blk`. */
export async function runVhostUserBlk(options: OptionValues, output: Output): Promise<number> {
  const path = textOption(options, 'socketPath');
  const fd = textOption(options, 'fd');
  if (options['printCapabilities'] === true) {
    output.data(capabilities());
    return EXIT.OK;
  }
  if ((path === undefined) === (fd === undefined)) {
    throw new UsageError(`${NAME} needs --socket-path PATH or --fd FDNUM, one of the two`);
  }
  const file = textOption(options, 'blkFile');
  if (file === undefined) throw new UsageError(`${NAME} needs --blk-file PATH: the disk`);
  const queues = textOption(options, 'numQueues');
  const serial = textOption(options, 'serial');
  if (serial !== undefined) checkSerial('--serial', serial);
  const where: VhostUserBlkListen = {
    protocol: NAME,
    address:
      path === undefined
        ? { kind: 'fd', fd: parseInteger('--fd', fd ?? '', LEAST_FD, MOST_FD) }
        : { kind: 'unix', path: socketPath(path) },
    exportName: '',
    ...(queues === undefined ? {} : { queues: parseQueues('--num-queues', queues) }),
    ...(serial === undefined ? {} : { serial }),
  };
  return runServer(
    {
      disks: parseDisks([`=${file}`], options),
      listen: [where],
      tls: { mode: 'off' },
      maxConnections: DEFAULT_MAX_CONNECTIONS,
      reactor: 'io_uring',
      formatNamed: false,
      exitWithParent: false,
      quiet: true,
      json: false,
    },
    output,
  );
}
