/**
 * What a peer may cost. Where the specification sets the limit, it is named.
 */

/**
 * MaxRecvDataSegmentLength that we declare: the most data in one PDU that comes in. With header, additional header
 * segments, digests and padding it fits into a 272 KiB page.
 */
export const MAX_RECEIVE_SEGMENT_BYTES: number = 256 * 1024;

/** The longest header: 48 bytes, and 255 words of additional header segments [RFC 7143 11.2]. */
export const MAX_HEADER_BYTES: number = 48 + 255 * 4;

/** "The default MaxRecvDataSegmentLength is used in the Login Phase" [RFC 7143 13.12]: the most data of a Login PDU. */
export const LOGIN_SEGMENT_BYTES = 8192;

/** MaxBurstLength that we agree to at most: the largest multiple of a block there can be [RFC 7143 13.13]. */
export const MAX_BURST_LENGTH: number = 16 * 1024 * 1024 - 512;

/** FirstBurstLength that we agree to at most: what comes unasked must find room. Linux and libiscsi ask for this much. */
export const MAX_FIRST_BURST_LENGTH: number = 256 * 1024;

/** R2Ts of one task that may be outstanding: more would only reserve memory. */
export const MAX_OUTSTANDING_R2T = 8;

/** "A key name is at most 63 bytes" [RFC 7143 6.1]. */
export const MAX_KEY_BYTES = 63;

/**
 * The longest value: a binary one of 1024 bytes in hexadecimal digits [RFC 7143 6.1]. Simple ones have at most 255 bytes, but
 * lists of them may have more.
 */
export const MAX_VALUE_BYTES: number = 2 + 2 * 1024;

/** iSCSI names are at most 223 bytes [RFC 7143 4.2.7.2]. */
export const MAX_NAME_BYTES = 223;

/** Key=value pairs in one request. Real initiators send twenty. */
export const MAX_KEYS = 128;

/** One request's text with all its continuations. */
export const MAX_TEXT_BYTES: number = 64 * 1024;

/** Login requests on one connection, continuations with them. CHAP with negotiation by single keys needs twenty. */
export const MAX_LOGIN_PDUS = 64;

/** From accept to the full feature phase. A person has nothing to type in it. */
export const LOGIN_TIMEOUT_MS = 15_000;

/** How long a connection that is ending waits for its initiator to take the last PDUs. */
export const CLOSE_TIMEOUT_MS = 5_000;
