import type { ProgramSpec } from '../spec/spec.ts';

/** `holdfast --help --json`: the declaration itself. Keys are only ever added within format 1. */
export function renderJson(program: ProgramSpec, version: string): string {
  return JSON.stringify({ format: 1, version, ...program }, null, 2);
}
