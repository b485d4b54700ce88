import { EXT } from './ext.ts';
import { BTRFS, XFS } from './kernel-replayed.ts';
import { onDisk } from './mounted.ts';
import { SQLITE } from './sqlite.ts';
import type { DiskOracle } from './types.ts';
import { VFAT } from './vfat.ts';

/** All ready-made oracles. */
export const ORACLES: readonly DiskOracle[] = [EXT, XFS, BTRFS, VFAT, onDisk(SQLITE)];
