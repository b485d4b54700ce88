/** What a front-end may cost. Where the specification sets the limit, it is named. */

/** The most regions in one SET_MEM_TABLE [vhost-user "Memory regions description"]: region0 to region7. */
export const MAX_TABLE_REGIONS = 8;

/**
 * The most regions of memory in all, answered to GET_MAX_MEM_SLOTS: as many as KVM gives a guest on x86 and QEMU takes
 * from libvhost-user, so that no front-end has to do with fewer than with another back-end. Each costs one mapping.
 */
export const MAX_MEMORY_SLOTS = 509;

/**
 * The most descriptors that may wait for their messages. A front-end that does not wait for answers may have several
 * messages on the way; every real one sends each with its own sendmsg(2), so a message's own are all it brings.
 */
export const MAX_WAITING_DESCRIPTORS = 64;

/** The most of the configuration space in one message: what QEMU's messages have room for (VhostUserConfig). */
export const MAX_CONFIG_BYTES = 256;

/** The largest payload. A full memory table and a full configuration space are below 300 bytes; other messages smaller. */
export const MAX_PAYLOAD_BYTES = 4096;

/** The most queues: ring indices have eight bits in SET_VRING_KICK, CALL and ERR [vhost-user "VHOST_USER_SET_VRING_KICK"]. */
export const MAX_QUEUES = 256;

/**
 * The most bytes of messages that may wait while one is being worked on. Receiving stops meanwhile, so only what was
 * already under way comes; a front-end has sent far less.
 */
export const MAX_WAITING_BYTES: number = 256 * 1024;

/** The most messages of one connection that are refused with an answer and a log line; then it is closed. */
export const MAX_REFUSALS = 16;

/** The end of addresses: below it doubles are exact, and what lies above is no memory of a process in practice. */
export const MAX_ADDRESS: number = 2 ** 53 - 1;
