import { readFileSync } from 'node:fs';

/** What a server takes of memory, for people. */
export function memory(pid: number | null): string {
  if (pid === null) return 'its memory is unknown (--pid)';
  const mib = (key: string): string => `${(statusKiB(pid, key) / 1024).toFixed(0)} MiB`;
  return `resident ${mib('VmRSS')}, at most ${mib('VmHWM')}`;
}

/** 0 when the process is not known. */
export function residentBytes(pid: number | null): number {
  return pid === null ? 0 : statusKiB(pid, 'VmRSS') * 1024;
}

function statusKiB(pid: number, key: string): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${key}:\\s*(\\d+)`, 'm').exec(status)?.[1]);
}
