import { parentPort, workerData } from 'node:worker_threads';
import { Prng } from '../../src/base/prng.ts';
import * as sys from '../../src/reactor/sys.ts';
import { Arena, ARENA_BYTES } from './virtio-arena.ts';
import { rewrite, slotsOf } from './virtio-requests.ts';
import { makeRing } from './virtio-rings.ts';

/** What the thread is told: whose memory it rewrites, and where `stop` is. */
export interface RewriterData {
  readonly fd: number;
  readonly seed: number;
  readonly joined: boolean;
  readonly packed: boolean;
  readonly size: number;
  readonly stop: SharedArrayBuffer;
}

/** Changes between two looks at whether to stop. */
const ROUND = 200;

// A guest's second processor: it rewrites rings, descriptors and requests while the device reads them.

const { fd, seed, joined, packed, size, stop } = workerData as RewriterData;
const address = sys.mapRange(fd, ARENA_BYTES, 0);
if (address < 0) throw new Error(`mmap failed: errno ${-address}`);
const prng = new Prng(seed);
const arena = new Arena(fd, sys.regionAt(address, ARENA_BYTES).bytes, joined);
const ring = makeRing(packed, { arena, size, indirect: true, eventIdx: true });
const slots = slotsOf(arena, 2048);
const target = { arena, ring, indirect: true, capacity: 2048, blockSectors: 1, malice: 1 };
const flag = new Int32Array(stop);
/** Some guests leave more requests whole than others. */
const rests = prng.pick([0.2, 0.2, 1]);
const round = prng.pick([ROUND, ROUND, 5]);
let changes = 0;
while (Atomics.load(flag, 0) === 0) {
  for (let i = 0; i < round; i += 1) rewrite(prng, target, slots);
  changes += round;
  if (prng.chance(rests)) Atomics.wait(flag, 0, 0, prng.below(4));
}
parentPort?.postMessage(changes);
