import { MiB } from '../../base/units.ts';
import type { CrashRow, Source } from './types.ts';

type WorkloadSource = Extract<Source, { kind: 'workload' }>;

/** What a row of a workload says, and what it may leave to be as usual. */
export type Given = Pick<CrashRow, 'id' | 'title' | 'expected' | 'basis'> &
  Pick<WorkloadSource, 'workload'> &
  Partial<Omit<CrashRow, 'kind' | 'source'>> &
  Partial<Omit<WorkloadSource, 'kind'>>;

/** A workload on a file system: ext4 on 64 MiB, as it comes, unless something else is said. */
export function workloadRow({
  fs = 'ext4',
  make = [],
  mountOptions = '',
  workload,
  options = {},
  ...given
}: Given): CrashRow {
  return {
    kind: 'crash',
    source: { kind: 'workload', fs, make, mountOptions, workload, options },
    sizeBytes: 64 * MiB,
    cache: 'writeback',
    oracle: null,
    model: 'M1',
    // What holds has no cause.
    causes: [],
    ...given,
  };
}
