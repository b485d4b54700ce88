import { VIRTIO_F } from '../virtio/virtio.ts';
import { VHOST_USER_F_PROTOCOL_FEATURES, VHOST_USER_PROTOCOL_F } from './wire.ts';

/**
 * The protocol features that we offer. Not among them:
 * LOG_SHMFD: every write to guest memory would be logged for live migration, and the host's kernel writes there for us;
 * PAGEFAULT: post-copy migration needs a userfaultfd, and requests whose pages wait for another host;
 * CROSS_ENDIAN: legacy guests of the other byte order are not served;
 * INBAND_NOTIFICATIONS: meant for simulations, and a message for every kick and call;
 * BACKEND_SEND_FD, HOST_NOTIFIER: there is no hardware whose doorbells could be passed on.
 */
export const PROTOCOL_FEATURES: bigint = bits(
  VHOST_USER_PROTOCOL_F.MQ,
  VHOST_USER_PROTOCOL_F.REPLY_ACK,
  VHOST_USER_PROTOCOL_F.BACKEND_REQ,
  VHOST_USER_PROTOCOL_F.CONFIG,
  VHOST_USER_PROTOCOL_F.INFLIGHT_SHMFD,
  VHOST_USER_PROTOCOL_F.RESET_DEVICE,
  VHOST_USER_PROTOCOL_F.CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F.STATUS,
);

/**
 * The feature bits of transport and rings. Not among them: NOTIFY_ON_EMPTY, legacy, and of use to drivers that suppress
 * interrupts for long; ACCESS_PLATFORM, which would need IOTLB messages for every address; IN_ORDER, for requests are
 * answered as they are done; RING_RESET, for which vhost-user has no message of its own.
 */
const TRANSPORT_FEATURES = bits(
  // Devices make no assumptions about framing [virtio 2.7.4.1], which is what this legacy bit says.
  VIRTIO_F.ANY_LAYOUT,
  VIRTIO_F.INDIRECT_DESC,
  VIRTIO_F.EVENT_IDX,
  VIRTIO_F.VERSION_1,
  VIRTIO_F.RING_PACKED,
  VHOST_USER_F_PROTOCOL_FEATURES,
);

/** Bits 0 to 23 are the device type's [virtio 2.2]. */
const DEVICE_FEATURES = (1n << 24n) - 1n;

/** What GET_FEATURES answers for a device that offers these bits. */
export function offeredFeatures(deviceOffered: bigint): bigint {
  return (deviceOffered & DEVICE_FEATURES) | TRANSPORT_FEATURES;
}

/** The numbers of the bits in `value` that `offered` does not have: "5, 33". */
export function bitsNotOffered(value: bigint, offered: bigint): string {
  const found: number[] = [];
  for (let bit = 0; bit < 64; bit += 1) {
    if ((((value & ~offered) >> BigInt(bit)) & 1n) === 1n) found.push(bit);
  }
  return found.join(', ');
}

function bits(...numbers: readonly number[]): bigint {
  return numbers.reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n);
}
