/**
 * What a peer may cost before it has been accepted. Where the specification sets the limit, it is named.
 */

/** The longest string: an export name, a description, an error message [NBD proto "Conventions"]. */
export const MAX_STRING_BYTES = 4096;

/**
 * The most data of one option that is looked at: a name and fourteen metadata queries of full length. Real clients
 * send a hundred bytes. More is skipped and answered with NBD_REP_ERR_TOO_BIG.
 */
export const MAX_OPTION_BYTES: number = 64 * 1024;

/** Enough to ask for every detail of 250 exports over one connection, as `qemu-nbd --list` does. */
export const MAX_OPTIONS = 1024;

/** Everything a client may send before the transmission phase. */
export const MAX_HANDSHAKE_BYTES: number = 1024 * 1024;

/**
 * The maximum payload that we advertise and accept: what a client may assume without asking, and what must not be
 * taken for an attack [NBD proto "Size constraints"].
 */
export const MAX_PAYLOAD_BYTES: number = 2 ** 25;

/** The largest minimum block that may be advertised [NBD proto "Size constraints"]. */
export const MAX_MINIMUM_BLOCK_BYTES: number = 2 ** 16;

/** Clients that do not ask for size constraints keep to multiples of this [NBD proto "Size constraints"]. */
export const DEFAULT_CLIENT_BLOCK_BYTES = 512;

/** Our client: the most option replies to one option, so that a server cannot keep it listening forever. */
export const MAX_OPTION_REPLIES = 65536;

/** The most extents a server should put into one chunk [NBD proto "NBD_REPLY_TYPE_BLOCK_STATUS"]. */
export const MAX_STATUS_DESCRIPTORS: number = 2 ** 20;
