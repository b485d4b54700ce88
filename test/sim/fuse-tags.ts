import type { Io } from '../../src/block/io.ts';
import { Part } from '../../src/protocols/fuse/request.ts';

/** The number that a program's request has, which an Io is part of: its `unique`. Undefined: it is none of FUSE. */
export function fuseOpOf({ context }: Io): number | undefined {
  return context instanceof Part ? context.request.uniqueLow : undefined;
}
