import { UsageError } from '../../base/errors.ts';
import { parseSize } from '../../base/units.ts';
import type { CacheMode } from '../../durability/modes.ts';
import { FILE_SYSTEMS } from '../../lab/record/file-system.ts';
import { type FileSystemChoice, record, type RecordFace } from '../../lab/record/record.ts';
import { OP } from '../../block/io.ts';
import { openTrace } from '../../trace/reader.ts';
import { EXIT } from '../exit-codes.ts';
import { splitType } from '../lab/checker-choice.ts';
import { untilInterrupted } from '../lab/interrupt.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { openControl } from '../serve/control-socket.ts';
import { textOption } from '../serve/options.ts';

const DEFAULT_SIZE = '64M';
const DEFAULT_ACK = String.raw`^ACK\b\s*(.*)`;

/** `holdfast lab record -o TRACE -- COMMAND`. Ends with the exit code of the workload. */
export async function runLabRecord(
  command: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const out = textOption(options, 'out');
  if (out === undefined) throw new UsageError('--out TRACE is needed: where to write the trace');
  const image = textOption(options, 'disk') ?? null;
  const size = textOption(options, 'size');
  if (image !== null && size !== undefined) {
    throw new UsageError('--size is for a disk of zeroes; one of --disk IMAGE has its size');
  }
  const interrupt = untilInterrupted();
  try {
    const code = await record(
      {
        image,
        sizeBytes: parseSize(size ?? DEFAULT_SIZE),
        face: (textOption(options, 'face') ?? 'fuse') as RecordFace,
        cache: (textOption(options, 'cache') ?? 'writeback') as CacheMode,
        out,
        command,
        fileSystem: fileSystemChoice(options),
        prepare: null,
        ackPattern: ackPattern(textOption(options, 'ack') ?? DEFAULT_ACK),
        signal: interrupt.signal,
      },
      {
        line: (line) => output.data(line),
        warn: (line) => output.warn(line),
        serving: (server, path) => openControl(path, server),
      },
    );
    const isWhole = report(out, output);
    if (code !== EXIT.OK) output.warn(`the workload ended with ${code}`);
    return code === EXIT.OK && !isWhole ? EXIT.FAILED : code;
  } finally {
    interrupt.done();
  }
}

function fileSystemChoice(options: OptionValues): FileSystemChoice | null {
  const mkfs = textOption(options, 'mkfs');
  const mount = textOption(options, 'mount');
  if (mkfs === undefined && mount === undefined) return null;
  const [type, words] = splitType(mkfs ?? mount ?? '');
  if (!FILE_SYSTEMS.includes(type)) {
    throw new UsageError(`no file system '${type}'; there are ${FILE_SYSTEMS.join(', ')}`);
  }
  return {
    type,
    make: mkfs === undefined ? null : words.split(/\s+/).filter((word) => word !== ''),
    mountOptions: mount === undefined ? '' : splitType(mount)[1],
  };
}

function ackPattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new UsageError(`--ack '${text}' is no regular expression`, { cause: error });
  }
}

/** What was recorded, and what anyone should know who trusts it. False: not all of it was. */
function report(out: string, output: Output): boolean {
  const trace = openTrace(out);
  const { complete, disks } = trace;
  const { count, op, failed, source } = trace.requests;
  let [writes, flushes, failures] = [0, 0, 0];
  for (let r = 0; r < count; r += 1) {
    // Source 0 is the server, which flushes when it ends.
    if (op[r] === OP.FLUSH) flushes += source[r] === 0 ? 0 : 1;
    else if (op[r] !== OP.READ) writes += 1;
    failures += failed[r] as number;
  }
  const acks = trace.marks.filter(({ kind }) => kind === 'ack').length;
  trace.close();
  output.info(
    `${out}: ${writes} writes, ${flushes} flushes, ${acks} acknowledgements, ${failures} failed requests`,
  );
  if (!complete) output.warn(`${out} is cut short: what came later is not in it`);
  if (disks.some(({ ignoresFlush }) => ignoresFlush === true)) {
    output.warn('cache mode unsafe: FLUSHes were answered and not done, and none is in the trace');
  } else if (flushes === 0) {
    output.warn('no FLUSH came from the workload: nothing was ever made stable');
  }
  if (acks === 0) {
    output.info(
      'nothing was acknowledged: durability cannot be judged; see --ack, and holdfast lab mark',
    );
  }
  return complete;
}
