import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { eventually, unavailable } from '../../reactor/conformance/harness.ts';
import type { SharedMemory } from '../../reactor/sharing.ts';
import { openDescriptors, openSharing } from '../../reactor/uring/testing.ts';
import { DriverMemory } from '../virtio/driver/driver-memory.ts';
import { PackedDriver } from '../virtio/driver/packed-driver.ts';
import { SplitDriver } from '../virtio/driver/split-driver.ts';
import { VhostUserBackend } from './backend.ts';
import type { InflightRegion, RingSetup } from './frontend.ts';
import { VhostUserFrontend } from './frontend.ts';
import { FakeDevice, GUEST, PACKED_FEATURES, SPLIT_FEATURES, USER } from './test-rig.ts';

// The same over real sockets, memfds and eventfds: once per ring format.

const skip = await unavailable('io_uring');
const MEMORY_BYTES = 1 << 20;
const QUEUE_SIZE = 16;

/** Shared mappings of memfds that this process has. */
function mappings(): number {
  const lines = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return lines.filter((line) => line.includes('/memfd:')).length;
}

/** A back-end that listens, and a guest whose front-end can come again and again. */
class Host {
  readonly reactor;
  readonly sharing;
  readonly path: string;
  readonly lines: string[] = [];
  device = new FakeDevice();
  ended = 0;
  readonly fd: number;
  readonly memory: DriverMemory;
  readonly kick: number;
  readonly call: number;
  readonly driver: SplitDriver | PackedDriver;
  readonly #shared: SharedMemory;
  readonly #features: bigint;

  constructor(t: TestContext, features: bigint) {
    const { reactor, sharing, directory } = openSharing(t);
    this.reactor = reactor;
    this.sharing = sharing;
    this.path = join(directory, 'blk.sock');
    this.#features = features;
    const { fd, memory } = sharing.create('guest', MEMORY_BYTES);
    this.fd = fd;
    this.#shared = memory;
    this.memory = new DriverMemory(memory.region, GUEST, USER);
    const options = { memory: this.memory, size: QUEUE_SIZE, eventIdx: true, tableEntries: 2 };
    this.driver =
      features === PACKED_FEATURES ? new PackedDriver(options) : new SplitDriver(options);
    this.kick = sharing.eventfd();
    this.call = sharing.eventfd();
  }

  listen(): Promise<{ close(): Promise<void> }> {
    return this.sharing.listen(this.path, (socket) => {
      const context = {
        device: this.device,
        sharing: this.sharing,
        defer: (callback: () => void) => this.reactor.defer(callback),
        log: (line: string) => this.lines.push(line),
        ended: () => {
          this.ended += 1;
        },
      };
      void new VhostUserBackend(context, socket);
    });
  }

  async connect(base: number, inflight: InflightRegion | null): Promise<VhostUserFrontend> {
    const host = {
      sharing: this.sharing,
      timers: this.reactor,
      timeoutMs: 20_000,
      lost: (reason: string) => this.lines.push(reason),
      configChanged: () => this.lines.push('the configuration has changed'),
    };
    const frontend = new VhostUserFrontend(host, await this.sharing.connect(this.path));
    await frontend.negotiate();
    await frontend.setFeatures(this.#features);
    const region = {
      guestAddress: GUEST,
      sizeBytes: MEMORY_BYTES,
      userAddress: USER,
      mmapOffset: 0,
    };
    await frontend.setMemory([region], [this.fd]);
    if (inflight !== null) await frontend.setInflight(inflight);
    await frontend.setRing(0, this.#ring(base));
    await frontend.enableRing(0, true);
    return frontend;
  }

  submit(number: number): void {
    const buffer = this.memory.allocate(16);
    this.memory.bytes(buffer).set([number & 0xff, number >> 8]);
    assert.notEqual(this.driver.add([buffer], [], false), -1);
    if (this.driver.publish()) this.sharing.signal(this.kick);
  }

  /** The next chain that comes back; the call's eventfd is what says so. */
  async completion(): Promise<void> {
    let rung = true;
    const watch = this.sharing.watch(this.call, () => {
      rung = true;
    });
    const took = (): boolean => {
      if (!rung) return false;
      rung = false;
      if (this.driver.take() !== null) return true;
      rung = this.driver.enableInterrupts();
      return false;
    };
    await eventually(this.reactor, took, 'a chain comes back, and its interrupt');
    await new Promise<void>((resolve) => watch.stop(resolve));
  }

  free(): void {
    this.#shared.unmap();
    for (const fd of [this.fd, this.kick, this.call]) this.sharing.closeDescriptor(fd);
  }

  #ring(base: number): RingSetup {
    const { descriptors, driver, device } = this.driver.places;
    return {
      size: QUEUE_SIZE,
      base,
      descriptors: USER + descriptors.start,
      driver: USER + driver.start,
      device: USER + device.start,
      kick: this.kick,
      call: this.call,
    };
  }
}

const FORMATS: [string, bigint, number][] = [
  ['split', SPLIT_FEATURES, 0],
  ['packed', PACKED_FEATURES, 0x80008000],
];

for (const [format, features, beginning] of FORMATS) {
  void test(
    `${format}, over the kernel: chains, reconnection, and nothing left`,
    { skip },
    async (t) => {
      const host = new Host(t, features);
      const listener = await host.listen();
      const before = { descriptors: openDescriptors(), mappings: mappings() };
      const first = await host.connect(beginning, null);
      const inflight = await first.getInflight(2, QUEUE_SIZE);
      await first.setInflight(inflight);
      for (let i = 0; i < 40; i += 1) {
        host.submit(i);
        await host.completion();
      }
      const expected = Array.from({ length: 40 }, (_, i) => i);
      assert.deepEqual(host.device.executed, expected);

      // The front-end dies with one in flight: it is finished before the back-end lets go.
      host.device.hold = true;
      host.submit(40);
      await eventually(host.reactor, () => host.device.executed.length === 41, 'taken');
      first.close();
      await eventually(host.reactor, () => host.device.workers.size === 1, 'held');
      host.device.hold = false;
      host.reactor.defer(() => host.device.release());
      await eventually(host.reactor, () => host.ended === 1, 'the first connection ends');
      assert.equal(openDescriptors(), before.descriptors + 1, 'the in-flight region is ours');
      assert.equal(mappings(), before.mappings);

      host.device = new FakeDevice();
      const used = format === 'split' ? 41 : 0x80098009;
      const second = await host.connect(used, inflight);
      host.submit(41);
      await host.completion();
      await host.completion();
      assert.deepEqual(host.device.executed, [41]);
      host.device.onConfigChange?.();
      await eventually(host.reactor, () => host.lines.length > 0, 'told of a change');
      assert.deepEqual(host.lines, ['the configuration has changed']);
      assert.equal(await second.stopRing(0), format === 'split' ? 42 : 0x800a800a);
      second.close();
      await eventually(host.reactor, () => host.ended === 2, 'the second connection ends');
      host.sharing.closeDescriptor(inflight.fd);
      assert.equal(openDescriptors(), before.descriptors);
      assert.equal(mappings(), before.mappings);
      await listener.close();
      host.free();
    },
  );
}
