import assert from 'node:assert/strict';
import test from 'node:test';
import { Region } from '../block/memory.ts';
import { Inbox } from './inbox.ts';
import { Outbox } from './outbox.ts';
import { PagePool } from './page-pool.ts';
import type { Stream } from './reactor.ts';

const PAGE = 64 * 1024;

function makePool(limit = 4): PagePool {
  return new PagePool(PAGE, limit, (bytes) => Region.plain(bytes));
}

/** Takes everything at once and remembers it. */
class Sink {
  readonly sent: Uint8Array[] = [];
  readonly received: { start: number; length: number }[] = [];
  readonly stream: Stream;

  constructor() {
    const sink: Pick<Stream, 'send' | 'receive'> = {
      send: (segments) => {
        const bytes = new Uint8Array(segments.totalBytes);
        segments.copyTo(bytes);
        this.sent.push(bytes);
      },
      receive: (_region, start, length) => this.received.push({ start, length }),
    };
    this.stream = sink as Stream;
  }
}

/** Says `length` bytes of `value` from a reservation of its own. */
function sayBytes(outbox: Outbox, value: number, length: number): number {
  const start = outbox.reserve(length);
  assert.ok(start >= 0);
  outbox.page.region.bytes.fill(value, start, start + length);
  outbox.say(outbox.page, start, length);
  return start;
}

void test('answers side by side leave as one segment, in the order in which they are said', () => {
  const outbox = new Outbox(makePool());
  const sink = new Sink();
  sayBytes(outbox, 1, 16);
  sayBytes(outbox, 2, 28);
  outbox.pump(sink.stream);
  assert.deepEqual([...(sink.sent[0] as Uint8Array)], [...Array(16).fill(1), ...Array(28).fill(2)]);
  // The next batch waits until the stream has said that the first is gone.
  sayBytes(outbox, 3, 4);
  outbox.pump(sink.stream);
  assert.equal(sink.sent.length, 1);
  outbox.sent();
  outbox.pump(sink.stream);
  assert.equal(sink.sent[1]?.length, 4);
});

void test('a large answer lies in its page as it will lie in the stream', () => {
  const outbox = new Outbox(makePool());
  sayBytes(outbox, 1, 28);
  for (let i = 0; i < 3; i += 1) {
    const said = outbox.unsentBytes;
    assert.equal(sayBytes(outbox, 2, 32 * 1024 + 28) % 4096, said % 4096);
  }
});

void test('an aligned reservation is aligned where it must be', () => {
  const outbox = new Outbox(makePool());
  sayBytes(outbox, 1, 5);
  const start = outbox.reserve(28 + 4096, 28, 4096);
  assert.equal((start + 28) % 4096, 0);
});

void test('what is said during a long message comes after it', () => {
  const outbox = new Outbox(makePool());
  const sink = new Sink();
  const long = outbox.reserve(8);
  outbox.page.region.bytes.fill(1, long, long + 8);
  outbox.sayLong(outbox.page, long, 4);
  sayBytes(outbox, 2, 2);
  outbox.sayLong(outbox.page, long + 4, 4);
  outbox.endLong();
  outbox.pump(sink.stream);
  assert.deepEqual([...(sink.sent[0] as Uint8Array)], [...Array(8).fill(1), 2, 2]);
});

void test('without memory a reservation fails, and all memory comes back', () => {
  const pool = makePool(2);
  const outbox = new Outbox(pool);
  sayBytes(outbox, 1, PAGE);
  sayBytes(outbox, 2, PAGE);
  assert.equal(outbox.reserve(PAGE), -1);
  outbox.dispose();
  assert.equal(pool.inUse, 0);
});

void test('a copy says what there is memory for, and the rest later', () => {
  const pool = makePool(1);
  const outbox = new Outbox(pool);
  const sink = new Sink();
  const bytes = Uint8Array.from({ length: PAGE + 100 }, (_, i) => i % 251);
  const said = outbox.sayCopy(bytes);
  assert.equal(said, PAGE);
  assert.equal(outbox.sayCopy(bytes.subarray(said)), 0);
  outbox.pump(sink.stream);
  outbox.sent();
  assert.equal(outbox.sayCopy(bytes.subarray(said)), 100);
  outbox.pump(sink.stream);
  assert.deepEqual(Buffer.concat(sink.sent), Buffer.from(bytes));
});

void test('an inbox fills a page from where a first payload is page-aligned, and uses it again', () => {
  const pool = makePool();
  const inbox = new Inbox(pool, 28);
  const sink = new Sink();
  assert.ok(inbox.receive(sink.stream));
  assert.equal((sink.received[0] as { start: number }).start + 28, 4096);
  inbox.end += 100;
  inbox.start += 100;
  assert.ok(inbox.receive(sink.stream));
  assert.deepEqual(sink.received[1], sink.received[0]);
});

void test('a full page is left with what its payloads need, and the unread rest moves on', () => {
  const pool = makePool();
  const inbox = new Inbox(pool, 28);
  const sink = new Sink();
  inbox.receive(sink.stream);
  const first = inbox.page;
  first?.hold();
  inbox.end = PAGE;
  inbox.start = PAGE - 10;
  first?.region.bytes.fill(7, PAGE - 10, PAGE);
  assert.ok(inbox.receive(sink.stream));
  assert.notEqual(inbox.page, first);
  const { start, end, page } = inbox;
  assert.deepEqual([...(page?.region.bytes.subarray(start, end) ?? [])], Array(10).fill(7));
  assert.equal(pool.inUse, 2);
  first?.release();
  inbox.dispose();
  assert.equal(pool.inUse, 0);
});
