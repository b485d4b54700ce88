import { Buffer } from 'node:buffer';
import { Prng } from '../../src/base/prng.ts';
import { Io, OP } from '../../src/block/io.ts';
import { Region } from '../../src/block/memory.ts';
import { Disk } from '../../src/durability/disk.ts';
import { NbdConnection } from '../../src/protocols/nbd/connection.ts';
import { NbdExport } from '../../src/protocols/nbd/export.ts';
import { openMemoryStore } from '../../src/stores/memory/memory-store.ts';
import type { MemoryStore } from '../../src/stores/memory/memory-store.ts';
import { PoisoningPool, SimClock, SimReactor } from '../sim/clock.ts';
import { SimStream, type StreamPeer } from '../sim/stream.ts';
import { Explainer, type ServedDisk } from './explainer.ts';
import { hostileConversation } from './hostile-client.ts';
import { fail, type FuzzTarget } from './target.ts';

const KiB = 1024;
const PAGE_BYTES = 272 * KiB;
const MAX_TURNS = 200_000;

/** Shared by all runs of this process: what one connection leaves in a page must not be seen by the next. */
export const pool = new PoisoningPool(PAGE_BYTES, 64);

export interface FuzzedDisk extends ServedDisk {
  readonly store: MemoryStore;
}

/** A disk in memory with a pattern that nothing else has, and holes. */
export function makeDisk(prng: Prng): FuzzedDisk {
  const sizeBytes = prng.pick([4, 64, 64, 64, 64, 1024]) * KiB * (prng.chance(0.002) ? 256 : 1);
  const blockBytes = prng.chance(0.2) ? 4096 : 512;
  const readOnly = prng.chance(0.1);
  const store = openMemoryStore({ name: 'fuzzed', sizeBytes, blockBytes, readOnly });
  const content = Buffer.alloc(sizeBytes);
  if (!readOnly) {
    const written = Math.min(sizeBytes, 32 * KiB);
    for (let at = 0; at < written; at += 4) content.writeUInt32BE(0x44000000 + at, at);
    const io = new Io();
    io.reset(OP.WRITE, 0, written, 0);
    io.segments.push(Region.plain(content.subarray(0, written)), 0, written);
    io.push({ ioDone: () => {} });
    store.submit(io);
  }
  const exportName = prng.chance(0.5) ? '' : 'disk';
  return { exportName, description: 'made to be attacked', blockBytes, readOnly, content, store };
}

/** What the server says is explained as it says it; how the client's end behaves is for the run below. */
class Attacker implements StreamPeer {
  readonly #explainer: Explainer;
  hung = false;

  constructor(explainer: Explainer) {
    this.#explainer = explainer;
  }

  told(bytes: Uint8Array): void {
    this.#explainer.parser.push(bytes);
  }

  heard(): void {}
  taken(): void {}

  hungUp(): void {
    this.hung = true;
  }
}

/** A whole connection, from accept to the end, against a client that means harm. */
export const fuzzConnection: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const disk = makeDisk(prng);
  const victim = {
    exportName: disk.exportName,
    sizeBytes: disk.content.length,
    blockBytes: disk.blockBytes,
  };
  const bytes = hostileConversation(prng, victim);
  const explainer = new Explainer(bytes, disk);
  const attacker = new Attacker(explainer);
  const clock = new SimClock(prng);
  const reactor = new SimReactor(clock, pool);
  const network = {
    pieceBytes: prng.pick([1, 16, 300, 65_536, 1 << 20, 1 << 20]),
    delayMs: prng.float() * 2,
    // Tens of MiB through a window of 1 KiB would only take long.
    windowBytes: Math.max(prng.pick([1024, 65_536, 1 << 20]), disk.content.length / 64),
  };
  const stream = new SimStream(reactor, prng, network, 'unix', attacker);
  const served = new NbdExport(
    disk.exportName,
    disk.description,
    new Disk({ store: disk.store, mode: 'writeback' }),
  );
  let ended = 0;
  const connection = new NbdConnection(
    {
      reactor,
      exports: new Map([[served.name, served]]),
      tlsMode: 'off',
      log: checkLine,
      ended: () => {
        ended += 1;
      },
    },
    stream,
  );
  stream.write(bytes);
  const turns = { left: MAX_TURNS };
  const stays = prng.chance(0.6);
  if (!stays) clock.after(prng.float() * 40, () => stream.cut(prng.chance(0.3)));
  if (prng.chance(0.1)) clock.after(prng.float() * 20, () => stream.stall(prng.float() * 50));
  if (prng.chance(0.02)) clock.after(prng.float() * 30, () => connection.shutdown());
  runUntil(clock, turns, 20_000);
  if (stays && !attacker.hung && explainer.unanswered > 0) {
    fail(`hang: ${explainer.unanswered} requests were never answered`);
  }
  stream.cut(false);
  runUntil(clock, turns, Infinity);
  if (ended !== 1) fail(`the connection ended ${ended} times`);
  if (pool.inUse !== 0) fail(`leak: ${pool.inUse} pages are held by nobody`);
  if (served.connections.size !== 0) fail('a connection that has ended is still known');
};

/** Until the given time, or until nothing happens any more. */
function runUntil(clock: SimClock, turns: { left: number }, ms: number): void {
  while (clock.nowMs() < ms) {
    if (!clock.step()) return;
    turns.left -= 1;
    if (turns.left === 0) fail('hang: it goes on and on');
  }
}

/** Log lines are for an operator's terminal, and part of them is what a client sent. */
function checkLine(line: string): void {
  if (line.length > 1000 || !/^[\x20-\x7e\u00a0-\uffff]*$/u.test(line)) {
    fail(`a line that is not fit for a log: ${JSON.stringify(line)}`);
  }
}
