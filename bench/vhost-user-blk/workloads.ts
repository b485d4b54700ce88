import type { Workload } from '../race.ts';

export interface BlkWorkload extends Workload {
  readonly client: 'load' | 'qemu-img';
  /** `depth` is that of each. */
  readonly queues: number;
}

const KIB = 1024;

const STREAMS = [
  { mode: 'randread', blockBytes: 4 * KIB, depth: 32 },
  { mode: 'randwrite', blockBytes: 4 * KIB, depth: 32 },
  { mode: 'read', blockBytes: 128 * KIB, depth: 16 },
  { mode: 'write', blockBytes: 128 * KIB, depth: 16 },
  { mode: 'randread', blockBytes: 4 * KIB, depth: 1 },
] as const;

function stream(
  storage: BlkWorkload['storage'],
  client: BlkWorkload['client'],
  shape: (typeof STREAMS)[number],
): BlkWorkload {
  const { mode, blockBytes, depth } = shape;
  const large = blockBytes > 64 * KIB;
  return {
    name: `${storage} ${mode} ${blockBytes / KIB}k qd${depth} (${client})`,
    storage,
    client,
    mode,
    blockBytes,
    depth,
    queues: 1,
    metric: large ? 'throughput' : 'IOPS',
    unit: large ? 'MiB/s' : '1/s',
  };
}

/** Four processors of a guest, each with sixteen programs that write a block and flush. */
const COMMITS: BlkWorkload = {
  name: 'fs commit write+flush 4 queues, 16 each (load)',
  storage: 'fs',
  client: 'load',
  mode: 'flush',
  blockBytes: 4 * KIB,
  depth: 16,
  queues: 4,
  metric: 'commits',
  unit: '1/s',
};

export const BLK_WORKLOADS: readonly BlkWorkload[] = [
  ...(['tmpfs', 'fs'] as const).flatMap((storage) =>
    STREAMS.flatMap((shape) => [
      stream(storage, 'load', shape),
      stream(storage, 'qemu-img', shape),
    ]),
  ),
  COMMITS,
];
