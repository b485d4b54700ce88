import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import { TraceBuilder } from '../../trace/builder.ts';
import { openTrace } from '../../trace/reader.ts';
import { firstCut } from '../explore/coverage.ts';
import { investigate } from '../investigate.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { ModelOptions } from '../model/types.ts';
import { recordSource } from './record-row.ts';
import type { Answer, CalibrateOptions, CrashRow, Row } from './types.ts';
import { workloadRow } from './workload-row.ts';

// The lab itself: whether it sees a flush that is missing anywhere between a program and the disk, and no more than is
// there.

const M1: ModelOptions = { model: 'M1', unitBytes: 512, overlap: 'issued', poison: false };
const WRITES = 12;
/** With the ending that this file has: sources and dist. */
const BLOCKS_CHECKER = fileURLToPath(
  import.meta.url.replace(/path-rows(\.\w+)$/, 'blocks-checker$1'),
);

/**
 * QEMU's I/O tester: writes of 4 KiB, each followed by its flush. That it then reads says that the flush is over, and is
 * the acknowledgement. Over NBD, QEMU sends a FLUSH also with cache=unsafe [QEMU block/nbd.c, "bdrv_co_flush_to_os"].
 */
function qemuIo(cache: 'unsafe' | 'writeback'): CrashRow['source'] {
  const numbers = Array.from({ length: WRITES }, (_, i) => i + 1);
  const steps = numbers.map((i) => `write -P ${i} ${4 * i}k 4k\\nflush\\nread ${4 * i}k 4k\\n`);
  const script = [
    `printf '${steps.join('')}' | qemu-io -f raw -t ${cache} "$0"`,
    `sed -u -n 's/.*read 4096.4096 bytes at offset/ACK/p'`,
    `(n=0; while read -r line; do echo "$line"; n=$((n + 1)); done; [ $n = ${WRITES} ])`,
  ];
  const command = ['sh', '-c', script.join(' | '), '{disk}'];
  return { kind: 'command', face: 'fuse', program: 'qemu-io', command };
}

function throughQemu(given: Pick<CrashRow, 'id' | 'title' | 'expected' | 'causes' | 'basis'>) {
  return (cache: 'unsafe' | 'writeback'): CrashRow => ({
    kind: 'crash',
    source: qemuIo(cache),
    sizeBytes: MiB,
    cache: 'writeback',
    oracle: { kind: 'module', options: { path: BLOCKS_CHECKER } },
    model: 'M1',
    ...given,
  });
}

/** Where every write is stable when it is done, only those in flight can be lost. */
async function onlyInFlight(options: CalibrateOptions): Promise<Answer> {
  const { source } = workloadRow({
    id: '',
    title: '',
    workload: 'append',
    expected: {},
    basis: '',
  });
  return inFolder(async (folder) => {
    const path = join(folder, 'trace');
    await recordSource({ source, sizeBytes: 64 * MiB, cache: 'writethrough' }, path, options);
    const trace = openTrace(path);
    try {
      const model = openCrashModel(trace, M1);
      const cuts = model.cuts.slice(firstCut(model));
      const open = cuts.flatMap(({ index, event }) =>
        [...model.view(index).requests].filter((r) => (trace.requests.done[r] as number) < event),
      );
      return {
        known: 'at many cuts, 0 writes are done and may be lost',
        found: `at ${cuts.length > WRITES ? 'many' : cuts.length} cuts, ${open.length} writes are done and may be lost`,
      };
    } finally {
      trace.close();
    }
  });
}

/** Nothing that a checker says counts, if it does not even accept the disk as the workload left it. */
async function brokenChecker({ jobs, signal }: CalibrateOptions): Promise<Answer> {
  return inFolder(async (folder) => {
    const tracePath = join(folder, 'trace');
    const builder = new TraceBuilder();
    for (const i of [0, 1, 2]) builder.wrote({ offset: i * 512, data: i + 1 });
    builder.save(tracePath).close();
    const explore = {
      tracePath,
      model: M1,
      checker: { kind: 'command', options: { command: 'false {disk}' }, timeoutMs: 10_000 },
      jobs,
      budgetMs: 10_000,
      seed: 1,
      readGuided: true,
      checkBase: false,
      progressPath: null,
    };
    const found = await investigate(
      { explore, mostCauses: 0, statesForCause: 0 },
      { progress: () => {}, interrupted: signal },
      (_, { exploration }) => `${exploration.findings.length} findings`,
    ).catch((error: unknown) => {
      if (!(error instanceof ConfigError)) throw error;
      return `refused: ${messageOf(error).split(':', 1)[0] ?? ''}`;
    });
    return { known: 'refused: checker or base broken', found };
  });
}

async function inFolder(use: (folder: string) => Promise<Answer>): Promise<Answer> {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-calibrate-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export const PATH_ROWS: readonly Row[] = [
  workloadRow({
    id: 'K0a',
    title: 'a disk that lies about FLUSH, under ext4',
    workload: 'append',
    model: 'L',
    expected: { durability: 'breaks' },
    causes: ['no-flush-seen'],
    basis: 'a harness that does not see this sees nothing',
  }),
  throughQemu({
    id: 'K0b',
    title: 'an honest disk, and a QEMU before it that keeps each FLUSH to itself (cache=unsafe)',
    expected: { durability: 'breaks' },
    causes: ['no-flush-seen'],
    basis: 'no flush arrives [qemu(1) "cache=unsafe"]',
  })('unsafe'),
  throughQemu({
    id: 'K0f',
    title: 'the same with a QEMU that passes FLUSH on (cache=writeback)',
    expected: { atomicity: 'holds', durability: 'holds' },
    causes: [],
    basis: 'each write is flushed before it is acknowledged',
  })('writeback'),
  {
    kind: 'self-test',
    id: 'K0c',
    title: 'a disk whose write cache is off, under ext4',
    basis: 'each write is stable when it is done (docs/concepts/durability.md)',
    run: onlyInFlight,
  },
  {
    kind: 'self-test',
    id: 'K0d',
    title: 'a checker that accepts nothing',
    basis: 'then no finding would mean anything',
    run: brokenChecker,
  },
];
