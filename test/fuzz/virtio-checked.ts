import type { Segments } from '../../src/block/memory.ts';
import type { QueueHost, QueueWorker, VirtioDevice } from '../../src/protocols/virtio/device.ts';
import type { Chain, Virtqueue } from '../../src/protocols/virtio/virtqueue.ts';
import { fail } from './target.ts';
import type { Arena } from './virtio-arena.ts';

/** What has become of chains, over all runs. */
export const chains = {
  offered: 0,
  taken: 0,
  succeeded: 0,
  failed: 0,
  unsupported: 0,
  /** Taken from a ring that was then broken: by this chain or a later one of the same batch. */
  lost: 0,
  /** Batches of which every byte and status was foretold, and batches too tangled for that. */
  foretold: 0,
  tangled: 0,
  brokenRings: 0,
  servedAfterReset: 0,
};

/**
 * A device between a transport and the device under test, that watches the queues of it: what is taken lies in guest memory,
 * what was taken is given back once, or its ring is broken.
 */
export class CheckedDevice implements VirtioDevice {
  readonly id: number;
  readonly offered: bigint;
  readonly maxQueues: number;
  readonly configBytes: number;
  readonly #inner: VirtioDevice;
  readonly #arena: () => Arena;
  /** Why the last ring that broke did. */
  brokenBy: string | null = null;
  ended = false;
  readonly queues = new Set<CheckedQueue>();

  constructor(inner: VirtioDevice, arena: () => Arena) {
    this.#inner = inner;
    this.#arena = arena;
    this.id = inner.id;
    this.offered = inner.offered;
    this.maxQueues = inner.maxQueues;
    this.configBytes = inner.configBytes;
  }

  get onConfigChange(): (() => void) | null {
    return this.#inner.onConfigChange;
  }

  set onConfigChange(listener: (() => void) | null) {
    this.#inner.onConfigChange = listener;
  }

  readConfig(offset: number, length: number): Uint8Array {
    return this.#inner.readConfig(offset, length);
  }

  writeConfig(offset: number, bytes: Uint8Array, done: (accepted: boolean) => void): void {
    this.#inner.writeConfig(offset, bytes, done);
  }

  start(features: bigint, ready: () => void, fresh: boolean): void {
    if (this.queues.size > 0) fail('started with queues attached');
    this.#inner.start(features, ready, fresh);
  }

  attach(index: number, queue: Virtqueue, host: QueueHost): QueueWorker {
    const checked = new CheckedQueue(queue, this.#arena());
    this.queues.add(checked);
    const worker = this.#inner.attach(index, checked, {
      interrupt: () => host.interrupt(),
      defer: (callback) => host.defer(callback),
      broken: (why) => {
        if (checked.broken) fail('a ring breaks twice');
        checked.broken = true;
        this.brokenBy = why;
        chains.brokenRings += 1;
        host.broken(why);
      },
    });
    return {
      ready: () => worker.ready(),
      poll: () => worker.poll(),
      arm: () => worker.arm(),
      disarm: () => worker.disarm(),
      abandon: () => worker.abandon(),
      detach: (drained) =>
        worker.detach(() => {
          checked.end();
          this.queues.delete(checked);
          drained();
        }),
    };
  }

  reset(done: () => void): void {
    if (this.queues.size > 0) fail('reset with queues attached');
    this.#inner.reset(done);
  }

  leave(): void {
    this.#inner.leave();
  }

  end(): void {
    if (this.queues.size > 0) fail('ended with queues attached');
    if (this.ended) fail('ended twice');
    this.ended = true;
    this.#inner.end();
  }
}

class CheckedQueue implements Virtqueue {
  broken = false;
  readonly #inner: Virtqueue;
  readonly #arena: Arena;
  readonly #out = new Set<Chain>();
  #ended = false;

  constructor(inner: Virtqueue, arena: Arena) {
    this.#inner = inner;
    this.#arena = arena;
  }

  get size(): number {
    return this.#inner.size;
  }

  get ready(): boolean {
    return this.#live().ready;
  }

  get inFlight(): number {
    return this.#inner.inFlight;
  }

  get base(): number {
    return this.#inner.base;
  }

  take(): Chain | null {
    if (this.broken) fail('a broken ring is read');
    const chain = this.#live().take();
    if (chain === null) return null;
    if (this.#out.has(chain)) fail('a chain is taken that was not given back');
    this.#out.add(chain);
    if (this.#out.size > this.size) fail('more chains are out than the ring holds');
    this.#inside(chain.readable);
    this.#inside(chain.writable);
    chains.taken += 1;
    return chain;
  }

  give(chain: Chain, written: number): void {
    if (this.broken) fail('a broken ring is written to');
    if (!this.#out.delete(chain)) fail('a chain is given back that is not out');
    const { writable } = chain;
    if (!(written >= 0 && written <= writable.totalBytes)) fail(`${written} bytes written`);
    const last = writable.count - 1;
    const status = writable.regions[last]?.bytes[writable.end(last) - 1];
    if (status === 0) chains.succeeded += 1;
    else if (status === 1) chains.failed += 1;
    else if (status === 2) chains.unsupported += 1;
    else fail(`a status of ${status}`);
    this.#live().give(chain, written);
  }

  publish(): boolean {
    if (this.broken) fail('a broken ring is published');
    return this.#live().publish();
  }

  enableNotify(): boolean {
    return this.#live().enableNotify();
  }

  disableNotify(): void {
    this.#live().disableNotify();
  }

  end(): void {
    if (this.#ended) fail('drained twice');
    this.#ended = true;
    if (!this.broken && this.#out.size > 0) fail(`${this.#out.size} chains never came back`);
    chains.lost += this.#out.size;
  }

  #live(): Virtqueue {
    if (this.#ended) fail('a queue is touched after it was drained');
    return this.#inner;
  }

  /** Every byte of it is the guest's. */
  #inside(segments: Segments): void {
    const { regions } = this.#arena;
    let total = 0;
    for (let i = 0; i < segments.count; i += 1) {
      const bytes = segments.regions[i]?.bytes;
      const start = segments.starts[i] as number;
      const length = segments.lengths[i] as number;
      total += length;
      const at = (bytes?.byteOffset ?? NaN) + start;
      const found = regions.some(
        (region) =>
          bytes?.buffer === this.#arena.bytes.buffer &&
          at >= region.at &&
          at + length <= region.at + region.sizeBytes,
      );
      if (!found) fail(`bytes ${at} to ${at + length} are not the guest's`);
    }
    if (total !== segments.totalBytes) fail('the sum of the segments is wrong');
  }
}
