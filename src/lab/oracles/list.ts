import { EXT } from './ext.ts';
import { FILES } from './files.ts';
import { COMMAND } from './folder-command.ts';
import { GIT } from './git.ts';
import { BTRFS, XFS } from './kernel-replayed.ts';
import { LEVELDB } from './leveldb.ts';
import { LMDB } from './lmdb.ts';
import { onDisk } from './mounted.ts';
import { SQLITE } from './sqlite.ts';
import type { DiskOracle } from './types.ts';
import { VFAT } from './vfat.ts';

/** All ready-made oracles. */
export const ORACLES: readonly DiskOracle[] = [
  EXT,
  XFS,
  BTRFS,
  VFAT,
  ...[COMMAND, FILES, SQLITE, LMDB, LEVELDB, GIT].map((inner) => onDisk(inner)),
];
