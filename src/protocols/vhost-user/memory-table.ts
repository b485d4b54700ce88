import { ProtocolError } from '../../base/errors.ts';
import type { SharedMemory, Sharing } from '../../reactor/sharing.ts';
import { GuestMemory } from '../virtio/guest-memory.ts';
import { MAX_ADDRESS, MAX_MEMORY_SLOTS } from './limits.ts';
import type { RegionDescription } from './wire.ts';

interface Mapped {
  readonly description: RegionDescription;
  readonly shared: SharedMemory;
}

const SPEC = 'Memory access';

/**
 * The guest's memory as it is mapped here. Changes are made in two steps: a `Change` maps what is new and may fail;
 * committing it replaces the table and cannot. Between the two, queues let go of the old table.
 */
export class MemoryTable {
  readonly #sharing: Sharing;
  #mapped: readonly Mapped[] = [];
  #memory: GuestMemory = new GuestMemory([]);

  constructor(sharing: Sharing) {
    this.#sharing = sharing;
  }

  get memory(): GuestMemory {
    return this.#memory;
  }

  /** SET_MEM_TABLE. The descriptors stay the caller's. Throws a ProtocolError, and then nothing has changed. */
  replace(regions: readonly RegionDescription[], descriptors: readonly number[]): Change {
    if (descriptors.length !== regions.length) {
      throw new ProtocolError(
        `${regions.length} regions came with ${descriptors.length} descriptors`,
        SPEC,
      );
    }
    const added: Mapped[] = [];
    try {
      regions.forEach((region, i) => added.push(this.#map(region, descriptors[i] as number)));
      return this.#change(added, this.#mapped);
    } catch (error) {
      unmap(added);
      throw error;
    }
  }

  /** ADD_MEM_REG. As `replace`. */
  add(region: RegionDescription, descriptor: number): Change {
    if (this.#mapped.length >= MAX_MEMORY_SLOTS) {
      throw new ProtocolError(`more than ${MAX_MEMORY_SLOTS} memory regions`, SPEC);
    }
    const added = [this.#map(region, descriptor)];
    try {
      return this.#change([...this.#mapped, ...added], []);
    } catch (error) {
      unmap(added);
      throw error;
    }
  }

  /** REM_MEM_REG: by guest address, user address and size [vhost-user "VHOST_USER_REM_MEM_REG"]. As `replace`. */
  remove(region: RegionDescription): Change {
    const removed = this.#mapped.filter(({ description }) => sameRegion(description, region));
    if (removed.length === 0) throw new ProtocolError('no such memory region', SPEC);
    const kept = this.#mapped.filter((mapped) => !removed.includes(mapped));
    return this.#change(kept, removed);
  }

  /** Nothing uses the memory any more. */
  close(): void {
    unmap(this.#mapped);
    this.#mapped = [];
    this.#memory = new GuestMemory([]);
  }

  #map(description: RegionDescription, descriptor: number): Mapped {
    const { guestAddress, userAddress, sizeBytes, mmapOffset } = description;
    const largest = Math.max(guestAddress, userAddress, mmapOffset);
    if (largest + sizeBytes > MAX_ADDRESS) {
      throw new ProtocolError(`a memory region of ${sizeBytes} bytes at ${guestAddress}`, SPEC);
    }
    return { description, shared: this.#sharing.map(descriptor, sizeBytes, mmapOffset) };
  }

  #change(next: readonly Mapped[], removed: readonly Mapped[]): Change {
    const memory = tableOf(next);
    return {
      commit: () => {
        this.#mapped = next;
        this.#memory = memory;
        unmap(removed);
      },
    };
  }
}

/** A table that is whole and waits for its turn. */
export interface Change {
  /** No queue uses the old table. Called once, always: what is new is mapped already. */
  commit(): void;
}

function tableOf(mapped: readonly Mapped[]): GuestMemory {
  try {
    return new GuestMemory(
      mapped.map(({ description, shared }) => ({
        guestAddress: description.guestAddress,
        userAddress: description.userAddress,
        sizeBytes: description.sizeBytes,
        region: shared.region,
      })),
    );
  } catch (error) {
    if (error instanceof RangeError) throw new ProtocolError(error.message, SPEC);
    throw error;
  }
}

function unmap(mapped: readonly Mapped[]): void {
  for (const { shared } of mapped) shared.unmap();
}

function sameRegion(one: RegionDescription, other: RegionDescription): boolean {
  return (
    one.guestAddress === other.guestAddress &&
    one.userAddress === other.userAddress &&
    one.sizeBytes === other.sizeBytes
  );
}
