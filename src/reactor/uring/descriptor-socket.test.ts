import assert from 'node:assert/strict';
import { closeSync, existsSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import { pause, unavailable } from '../conformance/harness.ts';
import type { DescriptorSocket } from '../sharing.ts';
import { DescriptorMessages, RECEIVED_DESCRIPTORS_MAX } from './descriptor-messages.ts';
import { Log, openDescriptors, openSharing } from './testing.ts';

const skip = await unavailable('io_uring');
const ASCII = new TextEncoder();

interface Pair {
  reactor: ReturnType<typeof openSharing>['reactor'];
  sharing: ReturnType<typeof openSharing>['sharing'];
  near: DescriptorSocket;
  nearLog: Log;
  /** The other end, for tests that use it themselves. */
  farFd: number;
}

function rawPair(t: TestContext): Pair {
  const { reactor, sharing } = openSharing(t);
  const [near, farFd] = sharing.pair();
  return { reactor, sharing, near, nearLog: new Log(reactor, near), farFd };
}

function pair(t: TestContext): Pair & { far: DescriptorSocket; farLog: Log } {
  const ends = rawPair(t);
  const far = ends.sharing.adopt(ends.farFd, 'far');
  return { ...ends, far, farLog: new Log(ends.reactor, far) };
}

void test('descriptors travel both ways and mean the same file', { skip }, async (t) => {
  const { sharing, near, far, nearLog, farLog } = pair(t);
  for (const [sender, log] of [
    [near, farLog],
    [far, nearLog],
  ] as const) {
    const { fd, memory } = sharing.create('test', 8192);
    memory.region.bytes.set(ASCII.encode('shared'), 5000);
    sender.send(ASCII.encode('take this'), [fd]);
    sharing.closeDescriptor(fd);
    await log.eventually(() => log.text === 'take this', 'received');
    assert.equal(log.descriptors.length, 1);
    const buffer = Buffer.alloc(6);
    readSync(log.descriptors[0] as number, buffer, 0, 6, 5000);
    assert.equal(String(buffer), 'shared');
    memory.unmap();
    log.closeAll(sharing);
  }
  near.close();
  await farLog.eventually(() => farLog.end !== undefined, 'ended');
  assert.equal(farLog.end, null);
  assert.equal(nearLog.end, undefined, 'who closes is not told');
});

void test(
  'received descriptors are closed when this process runs a program',
  { skip },
  async (t) => {
    const { sharing, near, farLog } = pair(t);
    const fd = openSync('/dev/null', 'r');
    near.send(ASCII.encode('x'), [fd]);
    closeSync(fd);
    await farLog.eventually(() => farLog.descriptors.length === 1, 'received');
    const path = `/proc/self/fdinfo/${farLog.descriptors[0] as number}`;
    const info = Buffer.alloc(200);
    const infoFd = openSync(path, 'r');
    const text = info.toString('latin1', 0, readSync(infoFd, info));
    closeSync(infoFd);
    assert.equal(Number.parseInt(/flags:\s+(\d+)/.exec(text)?.[1] ?? '', 8) & 0o2000000, 0o2000000);
    farLog.closeAll(sharing);
  },
);

void test('descriptors come with the first byte of their own message', { skip }, async (t) => {
  const { sharing, near, farLog } = pair(t);
  const fd = openSync('/dev/null', 'r');
  // The kernel would hand these out in one piece with the first descriptor, then in one with the second.
  near.send(ASCII.encode('plain message one '));
  near.send(ASCII.encode('plain message two '));
  near.send(ASCII.encode('WITH ONE '), [fd]);
  near.send(ASCII.encode('plain again '));
  near.send(ASCII.encode('WITH TWO '), [fd, fd]);
  near.send(ASCII.encode('end'));
  closeSync(fd);
  await farLog.eventually(() => farLog.text.endsWith('end'), 'received');
  assert.equal(
    farLog.text,
    'plain message one plain message two WITH ONE plain again WITH TWO end',
  );
  const [one, two, three] = farLog.descriptors as [number, number, number];
  assert.equal(farLog.textFrom(one), 'WITH ONE plain again ');
  assert.equal(farLog.textFrom(two), 'WITH TWO end');
  assert.equal(farLog.textFrom(three), 'WITH TWO end');
  farLog.closeAll(sharing);
});

void test(
  'the most descriptors of one message; one more ends it and leaks none',
  { skip },
  async (t) => {
    const { sharing, nearLog, farFd } = rawPair(t);
    const messages = new DescriptorMessages();
    t.after(() => messages.free());
    const fd = openSync('/dev/null', 'r');
    const before = openDescriptors();
    const most = Array<number>(RECEIVED_DESCRIPTORS_MAX).fill(fd);
    assert.equal(messages.send(farFd, ASCII.encode('most'), most), 4);
    await nearLog.eventually(() => nearLog.text === 'most', 'received');
    assert.equal(nearLog.descriptors.length, RECEIVED_DESCRIPTORS_MAX);
    assert.equal(new Set(nearLog.descriptors).size, RECEIVED_DESCRIPTORS_MAX);
    nearLog.closeAll(sharing);
    assert.equal(openDescriptors(), before);
    assert.equal(messages.send(farFd, ASCII.encode('too many'), [...most, fd, fd]), 8);
    await nearLog.eventually(() => nearLog.end !== undefined, 'ended');
    assert.match(nearLog.end ?? '', /more descriptors/);
    assert.equal(nearLog.text, 'most');
    // Its own socket is closed, and nothing else is open.
    assert.equal(openDescriptors(), before - 1);
    closeSync(fd);
    closeSync(farFd);
  },
);

void test('a peer that closes with descriptors unread leaves none behind', { skip }, async (t) => {
  const { reactor, sharing, near, nearLog, farFd } = rawPair(t);
  const before = openDescriptors();
  const messages = new DescriptorMessages();
  t.after(() => messages.free());
  const { fd, memory } = sharing.create('test', 4096);
  near.pause(true);
  assert.equal(messages.send(farFd, ASCII.encode('unread'), [fd, fd]), 6);
  closeSync(farFd);
  await pause(reactor, 20);
  assert.equal(nearLog.text, '');
  near.close();
  memory.unmap();
  sharing.closeDescriptor(fd);
  assert.equal(openDescriptors(), before - 2);
});

void test('bytes sent before the peer closed are received, then the end', { skip }, async (t) => {
  const { sharing, near, nearLog, far } = pair(t);
  const { fd, memory } = sharing.create('test', 4096);
  far.send(ASCII.encode('last words'), [fd]);
  far.close();
  await nearLog.eventually(() => nearLog.end !== undefined, 'ended');
  assert.equal(nearLog.text, 'last words');
  assert.equal(nearLog.end, null);
  assert.equal(nearLog.descriptors.length, 1);
  nearLog.closeAll(sharing);
  memory.unmap();
  sharing.closeDescriptor(fd);
  near.close();
  near.send(ASCII.encode('to nobody'));
});

void test('sending to a peer that is gone ends it, and kills nobody', { skip }, async (t) => {
  const { near, nearLog, farFd } = rawPair(t);
  near.pause(true);
  closeSync(farFd);
  near.send(ASCII.encode('hello?'));
  assert.equal(nearLog.end, undefined, 'not inside the call');
  await nearLog.eventually(() => nearLog.end !== undefined, 'ended');
  assert.equal(nearLog.end, null);
});

void test('that the peer is gone can be asked while it is paused', { skip }, async (t) => {
  const { reactor, near, nearLog, far } = pair(t);
  near.pause(true);
  far.send(ASCII.encode('last words'));
  assert.equal(near.peerGone(), false);
  far.close();
  assert.equal(near.peerGone(), true);
  await pause(reactor, 5);
  assert.equal(nearLog.end, undefined, 'and it is not told of it');
  near.close();
  assert.equal(near.peerGone(), true);
});

void test('while it is paused nothing is received, and nothing is lost', { skip }, async (t) => {
  const { reactor, near, far, farLog } = pair(t);
  farLog.onReceived = () => far.pause(true);
  for (let i = 0; i < 5; i += 1) {
    near.send(ASCII.encode(`${i}`));
    await pause(reactor, 5);
  }
  assert.equal(farLog.text, '0');
  farLog.onReceived = null;
  far.pause(false);
  await farLog.eventually(() => farLog.text === '01234', 'the rest');
  far.pause(true);
  far.pause(false);
  near.close();
  await farLog.eventually(() => farLog.end === null, 'ended');
});

void test(
  'a paused socket takes one message at a time, its descriptors too',
  { skip },
  async (t) => {
    const { sharing, near, far, farLog } = pair(t);
    const fd = openSync('/dev/null', 'r');
    farLog.onReceived = () => far.pause(true);
    for (let i = 0; i < 3; i += 1) near.send(ASCII.encode('abc'), [fd]);
    closeSync(fd);
    let rounds = 0;
    while (farLog.bytes < 9) {
      const { bytes } = farLog;
      far.pause(false);
      await farLog.eventually(() => farLog.bytes > bytes, 'more');
      assert.ok(farLog.descriptors.length <= Math.ceil(farLog.bytes / 3));
      assert.ok((rounds += 1) < 20);
    }
    assert.equal(farLog.text, 'abcabcabc');
    assert.equal(farLog.descriptors.length, 3);
    farLog.closeAll(sharing);
  },
);

void test(
  '1 MiB through a full socket arrives whole, descriptors in their places',
  { skip },
  async (t) => {
    const { sharing, near, far, farLog, reactor } = pair(t);
    const { fd, memory } = sharing.create('test', 4096);
    const before = openDescriptors();
    far.pause(true);
    const bytes = new Uint8Array(1024 * 1024).map((_, i) => 97 + (i % 25));
    near.send(bytes);
    near.send(ASCII.encode('Z'), [fd]);
    near.send(ASCII.encode('Y'));
    // The queue has its own copy, of the bytes and of the descriptor.
    const sent = Buffer.from(bytes).toString('latin1');
    bytes.fill(0);
    sharing.closeDescriptor(fd);
    await pause(reactor, 10);
    assert.equal(farLog.bytes, 0);
    far.pause(false);
    await farLog.eventually(() => farLog.bytes === sent.length + 2, 'all');
    assert.ok(farLog.text === `${sent}ZY`, 'other bytes than were sent');
    assert.equal(farLog.textFrom(farLog.descriptors[0] as number), 'ZY');
    farLog.closeAll(sharing);
    memory.unmap();
    assert.equal(openDescriptors(), before - 1);
  },
);

void test('a socket that is closed with much unsent keeps no descriptor', { skip }, async (t) => {
  const { sharing, near, far, nearLog } = pair(t);
  const before = openDescriptors();
  const { fd, memory } = sharing.create('test', 4096);
  far.pause(true);
  near.send(new Uint8Array(1024 * 1024));
  near.send(ASCII.encode('x'), [fd, fd, fd]);
  near.close();
  far.close();
  sharing.closeDescriptor(fd);
  memory.unmap();
  assert.equal(openDescriptors(), before - 2);
  assert.equal(nearLog.end, undefined);
});

void test('a peer that does not take its answers is not listened to', { skip }, async (t) => {
  const { reactor, near, far, nearLog, farLog } = pair(t);
  far.pause(true);
  near.send(new Uint8Array(1024 * 1024));
  far.send(ASCII.encode('question'));
  await pause(reactor, 20);
  assert.equal(nearLog.text, '');
  far.pause(false);
  await nearLog.eventually(() => nearLog.text === 'question', 'heard');
  await farLog.eventually(() => farLog.bytes === 1024 * 1024, 'answered');
});

void test('close inside received: nothing follows', { skip }, async (t) => {
  const { reactor, sharing, near, far, farLog } = pair(t);
  const fd = openSync('/dev/null', 'r');
  const before = openDescriptors();
  farLog.onReceived = () => far.close();
  near.send(ASCII.encode('a'), [fd]);
  near.send(ASCII.encode('b'), [fd]);
  await farLog.eventually(() => farLog.bytes > 0, 'received');
  await pause(reactor, 10);
  assert.equal(farLog.text, 'a');
  assert.equal(farLog.end, undefined);
  farLog.closeAll(sharing);
  near.close();
  assert.equal(openDescriptors(), before - 2);
  closeSync(fd);
});

void test('close in the turn of its making, and twice', { skip }, async (t) => {
  const { reactor, sharing } = openSharing(t);
  const before = openDescriptors();
  for (let i = 0; i < 100; i += 1) {
    const [near, far] = sharing.pair();
    near.close();
    near.close();
    // The number is free for others at once; the ring must not watch those.
    const fd = openSync('/dev/null', 'r');
    assert.ok(!fstatSync(fd).isSocket());
    closeSync(fd);
    sharing.closeDescriptor(far);
  }
  await pause(reactor, 5);
  assert.equal(openDescriptors(), before);
});

void test('something that is no socket ends with an error', { skip }, async (t) => {
  const { reactor, sharing } = openSharing(t);
  const before = openDescriptors();
  const log = new Log(reactor, sharing.adopt(openSync('/dev/zero', 'r'), 'zero'));
  await log.eventually(() => log.end !== undefined, 'ended');
  assert.match(log.end ?? '', /errno 88/);
  assert.equal(openDescriptors(), before);
});

function isCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof ConfigError && (error as NodeJS.ErrnoException).code === code;
}

void test('listen and connect by path', { skip }, async (t) => {
  const { reactor, sharing, directory } = openSharing(t);
  const path = join(directory, 's');
  await assert.rejects(sharing.connect(path), isCode('ENOENT'));
  const accepted: Log[] = [];
  const listener = await sharing.listen(path, (socket) => {
    assert.equal(socket.peer, `unix ${path}`);
    accepted.push(new Log(reactor, socket));
  });
  await assert.rejects(
    sharing.listen(path, () => {}),
    isCode('EADDRINUSE'),
  );
  await assert.rejects(
    sharing.listen(join(directory, 'no', 's'), () => {}),
    isCode('ENOENT'),
  );
  const client = await sharing.connect(path);
  const log = new Log(reactor, client);
  assert.equal(client.peer, `unix ${path}`);
  const { fd, memory } = sharing.create('test', 4096);
  client.send(ASCII.encode('hello'), [fd]);
  sharing.closeDescriptor(fd);
  memory.unmap();
  // The second listen looked whether this one lives: that was the first connection.
  const far = (): Log | undefined => accepted.find((end) => end.text === 'hello');
  await log.eventually(() => far() !== undefined, 'received');
  assert.equal(writeSync(far()?.descriptors[0] as number, 'x'), 1);
  far()?.closeAll(sharing);
  client.close();
  await listener.close();
  assert.equal(existsSync(path), false);
});

void test(
  'a peer that takes nothing for good is given up, and what waited for it goes',
  { skip },
  async (t) => {
    const { reactor, near, nearLog, farFd, sharing } = rawPair(t);
    const event = sharing.eventfd();
    const before = openDescriptors();
    for (let sent = 0; sent < 10_000 && nearLog.end === undefined; sent += 1) {
      near.send(new Uint8Array(4096), sent % 100 === 0 ? [event] : []);
      if (sent % 100 === 99) await pause(reactor, 1);
    }
    assert.equal(nearLog.end, 'the peer does not take what it is sent');
    // The near end, and every duplicate that waited with its message.
    await nearLog.eventually(() => openDescriptors() === before - 1, 'descriptors closed');
    sharing.closeDescriptor(event);
    closeSync(farFd);
  },
);
