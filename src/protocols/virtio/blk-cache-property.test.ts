import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { BlkRig, features, type Sent } from '../../../test/virtio/blk-rig.ts';
import { CACHE_MODES, type CacheMode } from '../../durability/modes.ts';
import { VIRTIO_BLK_F, VIRTIO_BLK_S } from './blk.ts';
import { VIRTIO_F } from './virtio.ts';

// Any schedule of writes, flushes, switches by the driver and by others, failing syncs, reboots and reconnects, with the
// three kinds of front-ends there are and a driver that behaves as Linux does: it reads the byte when it begins, and
// flushes only if it believes in a cache. The judge knows what was promised: a write that completes while its driver
// believes, and has believed since it was submitted, that there is no cache, is stable.

const BOTH = features(VIRTIO_F.VERSION_1, VIRTIO_BLK_F.FLUSH, VIRTIO_BLK_F.CONFIG_WCE);
const LOADER = features(VIRTIO_F.VERSION_1);

/**
 * What a front-end does with the byte. `copies` is QEMU: read once, and a driver's own writes; later reads take nothing
 * over. `refreshes` takes over what it reads when the configuration has changed. `asks` keeps nothing. `deaf` is as
 * QEMU, but cannot be told of changes and does not wait for the answer to a write.
 */
const FRONT_ENDS = ['copies', 'refreshes', 'asks', 'deaf'] as const;
type FrontEnd = (typeof FRONT_ENDS)[number];

const STEPS = [
  'write',
  'write',
  'flush',
  'done',
  'done',
  'synced',
  'unsynced',
  'off',
  'on',
  'others off',
  'others on',
  'look',
  'pause',
  'reboot',
  'silent reboot',
  'reconnect',
] as const;
type Step = (typeof STEPS)[number];

interface Write {
  readonly sent: Sent;
  readonly block: number;
  /** The driver has believed in no cache since it was submitted. */
  strict: boolean;
  judged: boolean;
}

class Judge {
  readonly #kind: FrontEnd;
  #at: BlkRig;
  #copy: number;
  /** What the driver takes the cache for. */
  #believed = 1;
  #flushes = true;
  #writes: Write[] = [];
  /** Answered well, to any driver ever. */
  readonly #answered: Write[] = [];
  #flush: { sent: Sent; covers: readonly Write[] }[] = [];

  constructor(mode: CacheMode, kind: FrontEnd) {
    this.#kind = kind;
    this.#at = new BlkRig({ mode });
    this.#attend();
    this.#copy = this.#at.readWriteback();
    this.#begin(BOTH);
  }

  run(schedule: readonly Step[]): void {
    for (const step of schedule) {
      this.#step(step);
      this.#look();
    }
    this.#at.store.settle();
    this.#look();
    for (const { sent } of this.#writes) assert.ok(sent.visible, 'a write was never answered');
  }

  get #disk(): BlkRig['disk'] {
    return this.#at.disk;
  }

  #attend(): void {
    const at = this.#at;
    if (this.#kind === 'deaf') return;
    at.onConfigChange = () => {
      const value = at.readWriteback();
      if (this.#kind === 'refreshes') this.#copy = value;
    };
  }

  /** What a driver gets when it reads. */
  #read(): number {
    return this.#kind === 'asks' ? this.#at.readWriteback() : this.#copy;
  }

  #believe(value: number): void {
    this.#believed = value;
    if (value === 1) for (const write of this.#writes) write.strict = false;
  }

  /** A driver reads the byte, and begins. */
  #begin(negotiated: bigint): void {
    this.#flushes = negotiated === BOTH;
    this.#believe(this.#flushes ? this.#read() : 0);
    this.#at.start(negotiated);
    this.#settleUntil(() => this.#at.worker !== null);
  }

  #settleUntil(reached: () => boolean): void {
    const { store } = this.#at;
    while (!reached()) {
      if (store.pending.length > 0) store.finish();
      else if (store.syncing) store.finishSync();
      else this.#at.turn();
      this.#look();
    }
  }

  #detach(): void {
    let drained = false;
    this.#at.worker?.detach(() => {
      drained = true;
    });
    this.#settleUntil(() => drained);
    this.#at.worker = null;
    // The driver has seen its answers.
    this.#look();
    this.#writes = [];
    this.#flush = [];
  }

  #step(step: Step): void {
    const at = this.#at;
    const { store } = at;
    if (step === 'write') {
      const { sent, block } = at.write();
      this.#writes.push({ sent, block, strict: this.#believed === 0, judged: false });
    } else if (step === 'flush') {
      const covers = [...this.#answered];
      if (this.#flushes && this.#believed === 1) this.#flush.push({ sent: at.flush(), covers });
    } else if (step === 'done') {
      if (store.pending.length > 0) store.finish();
    } else if (step === 'synced' || step === 'unsynced') {
      if (store.syncing) store.finishSync(step === 'synced' ? null : 'EIO');
    } else if (step === 'others off' || step === 'others on') {
      this.#disk.setWriteCache(step === 'others on', () => {});
    } else if (step === 'look') {
      if (this.#flushes) this.#believe(this.#read());
    } else if (step === 'off' || step === 'on') this.#switch(step === 'on' ? 1 : 0);
    else this.#change(step);
  }

  #switch(value: 0 | 1): void {
    if (!this.#flushes) return;
    const covers = [...this.#answered];
    // From the moment of writing a driver may go by what it wrote; P4 is about what it does not do any more: flush.
    if (value === 0) this.#believe(0);
    if (this.#kind === 'deaf') this.#copy = value;
    const at = this.#at;
    let answer: boolean | null = null;
    at.device.writeConfig(32, Uint8Array.of(value), (accepted) => {
      answer = accepted;
    });
    this.#settleUntil(() => answer !== null);
    if (answer === true) {
      if (this.#kind !== 'asks') this.#copy = value;
      if (value === 0) {
        for (const { block } of covers) {
          assert.ok(at.store.isBlockStable(block), 'P4: switched off before a flush');
        }
      }
    }
    // Linux reads the byte again after it has written it.
    if (this.#kind === 'deaf') this.#believe(value);
    else this.#believe(this.#read());
  }

  #change(step: 'pause' | 'reboot' | 'silent reboot' | 'reconnect'): void {
    this.#detach();
    if (step === 'pause') {
      const same = this.#flushes ? BOTH : LOADER;
      this.#at.start(same);
      this.#settleUntil(() => this.#at.worker !== null);
    } else if (step === 'reboot') {
      let done = false;
      this.#at.device.reset(() => {
        done = true;
      });
      this.#settleUntil(() => done);
      this.#begin(BOTH);
    } else if (step === 'silent reboot') {
      this.#begin(this.#flushes ? LOADER : BOTH);
    } else {
      this.#at.device.end();
      const at = new BlkRig({ disk: this.#disk });
      at.startBlocksAt(this.#at);
      this.#at = at;
      this.#attend();
      // The same driver goes on with what it believes.
      at.start(this.#flushes ? BOTH : LOADER);
      this.#settleUntil(() => at.worker !== null);
    }
  }

  /** The driver sees what is answered, and the judge checks it. */
  #look(): void {
    const at = this.#at;
    at.turn();
    for (const write of this.#writes) {
      if (write.judged || !write.sent.visible) continue;
      write.judged = true;
      if (write.sent.status !== VIRTIO_BLK_S.OK) continue;
      this.#answered.push(write);
      if (write.strict) {
        assert.ok(at.store.isBlockStable(write.block), 'P3: answered before it was stable');
      }
    }
    for (const { sent, covers } of this.#flush.splice(0)) {
      if (!sent.visible) this.#flush.push({ sent, covers });
      else if (sent.status === VIRTIO_BLK_S.OK) {
        for (const { block } of covers) assert.ok(at.store.isBlockStable(block), 'P1');
      }
    }
  }
}

const MODES = (Object.keys(CACHE_MODES) as CacheMode[]).filter((mode) => mode !== 'unsafe');

for (const kind of FRONT_ENDS) {
  test(`whatever happens, a driver that believes in no cache loses nothing: front-end ${kind}`, () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...MODES),
        fc.array(fc.constantFrom(...STEPS), { maxLength: 60, size: 'max' }),
        (mode, schedule) => new Judge(mode, kind).run(schedule),
      ),
      { numRuns: 400, seed: 20_261_123 },
    );
  });
}
