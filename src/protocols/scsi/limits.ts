import { KiB, MiB } from '../../base/units.ts';

/**
 * The most bytes of one READ, WRITE, VERIFY and the like: MAXIMUM TRANSFER LENGTH of the Block Limits page. What
 * initiators ask for at most (Linux 32 MiB with the largest settings); they are moved in pieces, so it costs nothing.
 */
export const MAX_COMMAND_BYTES: number = 32 * MiB;

/** The most Data-Out of a command that takes it as a whole and is not a transfer of blocks: parameter lists. */
export const MAX_PARAMETER_BYTES: number = 64 * KiB;
