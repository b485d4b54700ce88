import assert from 'node:assert/strict';
import { fstatSync } from 'node:fs';
import test from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { unavailable } from '../conformance/harness.ts';
import { Ring } from './ring.ts';
import { Scratch } from './scratch.ts';
import { openSocket } from './sockets.ts';
import { UringStream } from './stream.ts';

const skip = await unavailable('io_uring');
const AF_UNIX = 1;

void test(
  'a descriptor that is being bridged to TLS is not closed before that settles',
  { skip },
  async () => {
    const ring = new Ring();
    const deferred: (() => void)[] = [];
    let fail: ((error: Error) => void) | null = null as ((error: Error) => void) | null;
    const bridged = new Promise<number>((_resolve, reject) => {
      fail = reject;
    });
    const context = {
      ring,
      scratch: new Scratch(ring),
      defer: (callback: () => void): void => void deferred.push(callback),
      bridgeTls: () => bridged,
    };
    const fd = openSocket(AF_UNIX);
    const stream = new UringStream(context, fd, 'unix');
    let closed = false;
    stream.startTls({}, () => assert.fail('nobody is there to be told'));
    stream.close(() => {
      closed = true;
    });
    for (const callback of deferred.splice(0)) callback();
    // Its number may still be on its way to another thread, where it must not mean another client.
    assert.equal(closed, false);
    assert.ok(fstatSync(fd).isSocket());
    fail?.(new Error('the connection was shut down'));
    await turn();
    assert.equal(closed, true);
    ring.close();
  },
);
