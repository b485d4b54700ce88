import { ProtocolError } from '../../base/errors.ts';
import type { SharedMemory, Sharing } from '../../reactor/sharing.ts';
import type { Place } from '../virtio/guest-memory.ts';
import { packedRegionBytes } from '../virtio/inflight-packed.ts';
import { splitRegionBytes } from '../virtio/inflight-split.ts';
import { MAX_QUEUE_SIZE } from '../virtio/limits.ts';
import type { InflightDescription } from './wire.ts';

const SPEC = 'Inflight I/O tracking';
/** Of `version` in a queue's part, split or packed. */
const VERSION_OFFSET = 8;

/** The memory that outlives us and says which requests are in flight [vhost-user "Inflight I/O tracking"]. */
export class InflightArea {
  readonly #shared: SharedMemory;
  readonly #numQueues: number;
  readonly #queueSize: number;

  private constructor(shared: SharedMemory, numQueues: number, queueSize: number) {
    this.#shared = shared;
    this.#numQueues = numQueues;
    this.#queueSize = queueSize;
  }

  /** GET_INFLIGHT_FD: new zeroed memory, and its descriptor, which is the caller's. Throws a ProtocolError. */
  static create(
    sharing: Sharing,
    { numQueues, queueSize }: InflightDescription,
    packed: boolean,
  ): { area: InflightArea; fd: number; description: InflightDescription } {
    checkQueues(numQueues, queueSize);
    const mmapSize = numQueues * partBytes(queueSize, packed);
    const { fd, memory } = sharing.create('vhost-user-inflight', mmapSize);
    const description = { mmapSize, mmapOffset: 0, numQueues, queueSize };
    return { area: new InflightArea(memory, numQueues, queueSize), fd, description };
  }

  /** SET_INFLIGHT_FD. The descriptor stays the caller's. Throws a ProtocolError. */
  static adopt(sharing: Sharing, fd: number, description: InflightDescription): InflightArea {
    const { mmapSize, mmapOffset, numQueues, queueSize } = description;
    checkQueues(numQueues, queueSize);
    // Split queues have the smaller parts; whether the area is large enough for packed ones is seen at their start.
    if (mmapSize < numQueues * partBytes(queueSize, false)) {
      throw new ProtocolError(`${mmapSize} bytes for ${numQueues} queues of ${queueSize}`, SPEC);
    }
    return new InflightArea(sharing.map(fd, mmapSize, mmapOffset), numQueues, queueSize);
  }

  /** Queue `index`'s part, of a queue with `size` entries. Throws a ProtocolError when the area has none for it. */
  place(index: number, size: number, packed: boolean): Place {
    const bytes = partBytes(this.#queueSize, packed);
    const start = index * bytes;
    if (
      index >= this.#numQueues ||
      size > this.#queueSize ||
      start + bytes > this.#shared.region.bytes.length
    ) {
      throw new ProtocolError(
        `the in-flight region is for ${this.#numQueues} queues of ${this.#queueSize}`,
        SPEC,
      );
    }
    return { region: this.#shared.region, start };
  }

  /** Whether a queue has ever used it: the version of its part is not 0. */
  isUsed(packed: boolean): boolean {
    const { view, bytes } = this.#shared.region;
    const stride = partBytes(this.#queueSize, packed);
    for (let i = 0; i < this.#numQueues && (i + 1) * stride <= bytes.length; i += 1) {
      if (view.getUint16(i * stride + VERSION_OFFSET, true) !== 0) return true;
    }
    return false;
  }

  /** No queue uses it any more. */
  close(): void {
    this.#shared.unmap();
  }
}

function checkQueues(numQueues: number, queueSize: number): void {
  if (numQueues === 0 || queueSize === 0 || queueSize > MAX_QUEUE_SIZE) {
    throw new ProtocolError(`an in-flight region for ${numQueues} queues of ${queueSize}`, SPEC);
  }
}

function partBytes(queueSize: number, packed: boolean): number {
  return packed ? packedRegionBytes(queueSize) : splitRegionBytes(queueSize);
}
