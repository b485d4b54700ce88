import type { Workload } from '../race.ts';

export interface NbdWorkload extends Workload {
  readonly client: 'fio' | 'load';
  readonly connections: number;
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
  storage: NbdWorkload['storage'],
  client: NbdWorkload['client'],
  shape: (typeof STREAMS)[number],
): NbdWorkload {
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
function commit(mode: 'flush' | 'fua', connections: number): NbdWorkload {
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

export const WORKLOADS: readonly NbdWorkload[] = [
  ...(['tmpfs', 'fs'] as const).flatMap((storage) =>
    STREAMS.flatMap((shape) => [stream(storage, 'fio', shape), stream(storage, 'load', shape)]),
  ),
  commit('flush', 16),
  commit('flush', 64),
  commit('fua', 16),
  commit('fua', 64),
];
