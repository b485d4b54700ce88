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

/** The most extents a server should put into one chunk [NBD proto "NBD_REPLY_TYPE_BLOCK_STATUS"]. */
export const MAX_STATUS_DESCRIPTORS: number = 2 ** 20;

/** Our client: everything a server may send before the transmission phase; a list of thousands of exports fits. */
export const MAX_CLIENT_HANDSHAKE_BYTES: number = 16 * 1024 * 1024;

/**
 * Requests of one connection in flight: Linux sends 128, QEMU 16; more only cost memory. The rest waits in the socket.
 */
export const MAX_REQUESTS_IN_FLIGHT = 256;

/**
 * The most bytes of one READ chunk, and the size at which a WRITE's payload is passed on while the rest still arrives.
 * A chunk and its header fit into one page of the pool.
 */
export const CHUNK_BYTES: number = 128 * 1024;

/**
 * The most extents in one answer to BLOCK_STATUS: 16 KiB of 64 bit descriptors. A client asks on from where it ends.
 */
export const MAX_STATUS_EXTENTS = 1024;

/** Metadata contexts that a BLOCK_STATUS with a payload may name; we have one, a confused client may repeat it. */
export const MAX_STATUS_PAYLOAD_BYTES: number = 8 + 4 * 64;

/** From accept to the first request. People type into nbdsh; a machine that takes this long is not going to. */
export const HANDSHAKE_TIMEOUT_MS = 30_000;

/** How long a connection that is ending waits for its client to take the last answers. */
export const CLOSE_TIMEOUT_MS = 5_000;
