import type { Workload } from '../race.ts';

export interface IscsiWorkload extends Workload {
  readonly client: 'load' | 'iscsi-perf' | 'qemu-img';
  /** `depth` is that of each. */
  readonly sessions: number;
}

const KIB = 1024;

const RANDOM_READ = { mode: 'randread', blockBytes: 4 * KIB, depth: 32 } as const;
const RANDOM_WRITE = { mode: 'randwrite', blockBytes: 4 * KIB, depth: 32 } as const;
const READ = { mode: 'read', blockBytes: 128 * KIB, depth: 16 } as const;
const WRITE = { mode: 'write', blockBytes: 128 * KIB, depth: 16 } as const;

/** iscsi-perf only reads; our own initiator sends no more than the smallest target takes in one PDU. */
const STREAMS = [
  { ...RANDOM_READ, client: 'iscsi-perf' },
  { ...RANDOM_READ, client: 'load' },
  { ...RANDOM_WRITE, client: 'qemu-img' },
  { ...RANDOM_WRITE, client: 'load' },
  { ...READ, client: 'iscsi-perf' },
  { ...READ, client: 'qemu-img' },
  { ...WRITE, client: 'qemu-img' },
] as const;

function stream(
  storage: IscsiWorkload['storage'],
  { mode, blockBytes, depth, client }: (typeof STREAMS)[number],
): IscsiWorkload {
  const large = blockBytes > 64 * KIB;
  return {
    name: `${storage} ${mode} ${blockBytes / KIB}k qd${depth} (${client})`,
    storage,
    client,
    mode,
    blockBytes,
    depth,
    sessions: 1,
    metric: large ? 'throughput' : 'IOPS',
    unit: large ? 'MiB/s' : '1/s',
  };
}

/** Sixteen machines with a program each that writes a block and flushes. */
function commits(storage: IscsiWorkload['storage']): IscsiWorkload {
  return {
    name: `${storage} commit write+SYNCHRONIZE CACHE 16 sessions (load)`,
    storage,
    client: 'load',
    mode: 'flush',
    blockBytes: 4 * KIB,
    depth: 1,
    sessions: 16,
    metric: 'commits',
    unit: '1/s',
  };
}

export const ISCSI_WORKLOADS: readonly IscsiWorkload[] = (['tmpfs', 'fs'] as const).flatMap(
  (storage) => [...STREAMS.map((shape) => stream(storage, shape)), commits(storage)],
);
