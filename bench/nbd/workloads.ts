/** What is done to a server. Every server gets the same bytes at the same offsets' distribution. */
export interface Workload {
  readonly name: string;
  readonly storage: 'tmpfs' | 'fs';
  readonly client: 'fio' | 'load';
  readonly mode: 'randread' | 'randwrite' | 'read' | 'write' | 'flush' | 'fua';
  readonly blockBytes: number;
  readonly depth: number;
  readonly connections: number;
  /** What the rate counts. */
  readonly metric: 'IOPS' | 'throughput' | 'commits';
  readonly unit: '1/s' | 'MiB/s';
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
  storage: Workload['storage'],
  client: Workload['client'],
  shape: (typeof STREAMS)[number],
): Workload {
  const { mode, blockBytes, depth } = shape;
  const large = blockBytes > 64 * KIB;
  return {
    name: `${storage} ${mode} ${blockBytes / KIB}k qd${depth} (${client})`,
    storage,
    client,
    mode,
    blockBytes,
    depth,
    connections: 1,
    metric: large ? 'throughput' : 'IOPS',
    unit: large ? 'MiB/s' : '1/s',
  };
}

/** fio's engine has no FUA, and one thread a connection would measure fio: commits use our own client only. */
function commit(mode: 'flush' | 'fua', connections: number): Workload {
  return {
    name: `fs commit ${mode === 'flush' ? 'write+flush' : 'write FUA'} ${connections} connections (load)`,
    storage: 'fs',
    client: 'load',
    mode,
    blockBytes: 4 * KIB,
    depth: 1,
    connections,
    metric: 'commits',
    unit: '1/s',
  };
}

export const WORKLOADS: readonly Workload[] = [
  ...(['tmpfs', 'fs'] as const).flatMap((storage) =>
    STREAMS.flatMap((shape) => [stream(storage, 'fio', shape), stream(storage, 'load', shape)]),
  ),
  commit('flush', 16),
  commit('flush', 64),
  commit('fua', 16),
  commit('fua', 64),
];
