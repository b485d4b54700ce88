import { MiB } from '../base/units.ts';

/**
 * The most bytes in one Io. Faces split larger requests, so that one client's 32 MiB write neither holds 32 MiB of
 * buffers nor stalls its neighbours for longer than a drive takes for 1 MiB.
 */
export const MAX_TRANSFER_BYTES: number = 1 * MiB;

/**
 * The largest disk: 2^53 is where doubles stop being exact; 2^50 leaves room for sums of offset and length, and is
 * beyond what ext4 and XFS hold in one file on common settings.
 */
export const MAX_DISK_BYTES: number = 2 ** 50;

/** The deepest stack of layers over a store: every layer keeps one place in each Io. */
export const MAX_LAYERS: number = 8;

/** The most extents one EXTENTS request returns; 8 bytes each on NBD's wire, so a reply stays under 64 KiB. */
export const MAX_EXTENTS: number = 4096;
