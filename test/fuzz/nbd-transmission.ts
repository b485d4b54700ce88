import { Prng } from '../../src/base/prng.ts';
import type { Segments } from '../../src/block/memory.ts';
import { Disk } from '../../src/durability/disk.ts';
import { type Lack, Transmission } from '../../src/protocols/nbd/transmission.ts';
import { NBD_HEADER } from '../../src/protocols/nbd/wire.ts';
import { Inbox } from '../../src/reactor/inbox.ts';
import { Outbox } from '../../src/reactor/outbox.ts';
import type { Stream } from '../../src/reactor/reactor.ts';
import { PoisoningPool } from '../sim/clock.ts';
import { Explainer } from './explainer.ts';
import { type Form, hostileRequests } from './hostile-client.ts';
import { makeDisk } from './nbd-connection.ts';
import { fail, type FuzzTarget } from './target.ts';

/** Few enough that requests run out of memory, and have to wait for it. */
const SMALL_POOL_PAGES = 4;
const PAGE_BYTES = 132 * 1024;
let pool = new PoisoningPool(PAGE_BYTES, SMALL_POOL_PAGES);
const CONTEXT_ID = 1;

/** The transmission phase alone, without a connection around it: fed piece by piece, with hardly any memory. */
export const fuzzTransmission: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const disk = makeDisk(prng);
  const form = prng.pick<Form>(['simple', 'structured', 'extended']);
  const victim = {
    exportName: disk.exportName,
    sizeBytes: disk.content.length,
    blockBytes: disk.blockBytes,
  };
  const bytes = hostileRequests(prng, victim, form);
  const explainer = new Explainer(bytes, disk);
  explainer.parser.structured = form !== 'simple';
  explainer.parser.extended = form === 'extended';
  const contextId = form !== 'simple' && prng.chance(0.8) ? CONTEXT_ID : null;
  explainer.begin(disk.exportName, contextId);

  // What a run that failed has left behind is not this one's.
  if (pool.inUse > 0) pool = new PoisoningPool(PAGE_BYTES, SMALL_POOL_PAGES);
  const inbox = new Inbox(pool, NBD_HEADER.REQUEST);
  const outbox = new Outbox(pool);
  const wire = new Wire(explainer, bytes, prng);
  let reason: string | null | undefined;
  const result = {
    exportName: disk.exportName,
    structured: form !== 'simple',
    extended: form === 'extended',
    baseAllocationId: contextId,
    noZeroes: true,
    blockSizeNegotiated: true,
    tls: false,
    transmissionFlags: 0,
  };
  new Disk({ store: disk.store, mode: 'writeback' }).openSession({ flushes: true }, (session) => {
    const host = {
      progress: () => {},
      over: (why: string | null) => {
        if (reason !== undefined) fail('over twice');
        reason = why;
      },
    };
    const transmission = new Transmission(session, result, inbox, outbox, pool, host);
    pump(transmission, inbox, outbox, wire);
    if (transmission.inFlight > 0 && !wire.partial(inbox))
      fail(`${transmission.inFlight} in flight`);
    transmission.dispose();
  });
  if (explainer.unanswered > 0) fail(`${explainer.unanswered} requests were never answered`);
  if (!explainer.parser.whole) fail('half an answer');
  inbox.dispose();
  outbox.dispose();
  if (pool.inUse !== 0) fail(`leak: ${pool.inUse} pages are held by nobody`);
};

/** Feeds and drains until nothing moves. */
function pump(transmission: Transmission, inbox: Inbox, outbox: Outbox, wire: Wire): void {
  for (let idle = 0; idle < 2;) {
    const lack: Lack = transmission.advance();
    let moved = false;
    while (!outbox.empty) {
      outbox.pump(wire.stream);
      outbox.sent();
      moved = true;
    }
    if (lack === 'bytes' && !wire.empty) {
      if (!inbox.receive(wire.stream)) fail('no memory to receive into, and nobody holds any');
      inbox.end += wire.taken;
      moved = true;
    }
    idle = moved ? 0 : idle + 1;
  }
}

class Wire {
  taken = 0;
  readonly stream: Stream;
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(explainer: Explainer, bytes: Uint8Array, prng: Prng) {
    this.#bytes = bytes;
    this.stream = {
      owner: { received: () => {}, sent: () => {} },
      peer: 'unix',
      receive: (region, start, length) => {
        const most = prng.chance(0.3) ? 1 + prng.below(100) : length;
        const part = this.#bytes.subarray(this.#at, this.#at + Math.min(most, length));
        region.bytes.set(part, start);
        this.#at += part.length;
        this.taken = part.length;
      },
      send: (segments: Segments) => {
        const out = new Uint8Array(segments.totalBytes);
        segments.copyTo(out);
        explainer.parser.push(out);
      },
      peerGone: () => false,
      close: (closed) => closed(),
      startTls: (_settings, ready) => ready('none'),
    };
  }

  get empty(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** A payload was begun whose rest never came. */
  partial(inbox: Inbox): boolean {
    return this.empty && inbox.start === inbox.end;
  }
}
