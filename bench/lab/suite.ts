import { runLoad } from '../nbd/clients.ts';
import type { NbdSubject } from '../nbd/subjects.ts';
import { WORKLOADS } from '../nbd/workloads.ts';
import { runRace } from '../race.ts';
import type { Row } from '../report.ts';
import { runBlkLoad } from '../vhost-user-blk/clients.ts';
import { BLK_WORKLOADS } from '../vhost-user-blk/workloads.ts';
import { measureRates, RATES } from './rates.ts';
import { recordingSubjects } from './subjects.ts';

// The power-cut lab: what recording costs a guest, and how fast states are judged.

export interface LabBench {
  readonly rounds: number;
  readonly seconds: number;
  readonly warmupSeconds: number;
  readonly only: RegExp;
}

/** Writes on a real file system: what a recording adds is one more file that is written. */
const RECORDED = /^fs (?:rand)?write .*\(load\)$/;

/** The recorded ones of a face's workloads, with its name before theirs. */
function recorded<W extends { readonly name: string }>(workloads: readonly W[], face: string): W[] {
  return workloads
    .filter(({ name }) => RECORDED.test(name))
    .map((workload) => ({ ...workload, name: `${face} ${workload.name}` }));
}

/** All workloads' names, for --list. */
export function labWorkloads(): string[] {
  const writes = [...recorded(WORKLOADS, 'nbd'), ...recorded(BLK_WORKLOADS, 'vhost-user-blk')];
  return [...writes.map(({ name }) => name), ...RATES.map(({ workload }) => workload)];
}

export async function benchLab(bench: LabBench, say: (line: string) => void): Promise<Row[]> {
  const { rounds, seconds, warmupSeconds, only } = bench;
  const time = { seconds, warmupSeconds };
  const common = { suite: 'lab', rounds, time, say };
  const overNbd = await runRace({
    ...common,
    subjects: recordingSubjects('nbd'),
    workloads: recorded(WORKLOADS, 'nbd').filter(({ name }) => only.test(name)),
    client: (workload, subject: NbdSubject, socket) =>
      runLoad(workload, socket, subject.exportName, time),
  });
  const overVhostUser = await runRace({
    ...common,
    subjects: recordingSubjects('vhost-user-blk'),
    workloads: recorded(BLK_WORKLOADS, 'vhost-user-blk').filter(({ name }) => only.test(name)),
    client: (workload, _subject, socket) => runBlkLoad(workload, socket, time),
  });
  return [...overNbd, ...overVhostUser, ...(await measureRates(bench, say))];
}
