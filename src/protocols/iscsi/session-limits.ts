import { KiB, MiB } from '../../base/units.ts';

/**
 * What a session in the full feature phase may cost (login: limits.ts).
 */

/**
 * The CmdSN window: commands of one session that we hold. Linux asks for 128 (node.session.cmds_max), Windows for
 * 255; the rest waits at the initiator.
 */
export const COMMAND_WINDOW = 128;

/** SCSI commands for immediate delivery pass the window; more at a time are rejected [RFC 7143 11.17.1]. */
export const MAX_IMMEDIATE_COMMANDS = 16;

/** Task management functions of one session under way. */
export const MAX_TASK_MANAGEMENT = 16;

/**
 * The most bytes of one READ from the disk, and the size at which what has arrived of a WRITE is passed on while
 * the rest still comes. One piece and its headers fit into one page of the pool.
 */
export const PIECE_BYTES: number = 128 * KiB;

/** Pieces of one READ that are with the disk at a time. */
export const PIECES_IN_FLIGHT = 4;

/** Data-In PDUs in one piece: initiators with a tiny MaxRecvDataSegmentLength must not make long lists of segments. */
export const MAX_PDUS_IN_PIECE = 64;

/**
 * Data-Out that is collected as a whole, or waits for its command's turn, in all sessions together. Two of the largest
 * commands fit.
 */
export const MAX_COLLECTED_BYTES: number = 64 * MiB;

/** Commands that came before an earlier one, with their data: only after a reject there are such. */
export const MAX_PARKED_BYTES: number = 1 * MiB;

/** Sessions of one node, those that are ending with them. TSIHs have 16 bits. */
export const MAX_SESSIONS = 4096;

/** How often a session looks at its clock. */
export const TICK_MS = 5_000;

/** An initiator that has said nothing for so long is asked whether it is there (NOP-In). */
export const PING_AFTER_MS = 20_000;

/** And when it has said nothing for so long, it is gone. Patient: a paused virtual machine comes back. */
export const SILENCE_TIMEOUT_MS = 90_000;

/** From R2T to the last of its Data-Out. */
export const DATA_OUT_TIMEOUT_MS = 60_000;

/** How long initiators have to log out when the server stops. */
export const LOGOUT_TIMEOUT_MS = 3_000;
