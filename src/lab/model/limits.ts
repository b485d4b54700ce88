/** Larger zeroes and discards tear only where other requests begin or end: mkfs discards whole disks. */
export const TORN_ZEROES_BYTES = 1024 * 1024;

/** Versions, those of garbage included, are numbered in 31 bits; this many take 16 GiB of memory. */
export const MAX_VERSIONS = 2 ** 30 - 1;

/** Views that are kept: an explorer goes back and forth between a few cuts. */
export const VIEWS_KEPT = 4;

/** A base image is compared with zeroes this far where one unit is larger; beyond, its content counts as different. */
export const COMPARED_BASE_BYTES = 64 * 1024 * 1024;
