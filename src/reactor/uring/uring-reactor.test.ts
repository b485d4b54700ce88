import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { unavailable } from '../conformance/harness.ts';
import * as sys from '../sys.ts';
import * as sockets from './sockets.ts';
import { UringReactor } from './uring-reactor.ts';

const skip = await unavailable('io_uring');

const bridgeTls = (): Promise<number> => Promise.reject(new Error('no TLS here'));

void test(
  'a listener closes while it waits to accept again after an error',
  { skip, timeout: 5000 },
  async () => {
    const reactor = new UringReactor({ pageBytes: 4096, pageLimit: 4, bridgeTls });
    const { family, region, length } = await sockets.sockAddr({
      kind: 'tcp',
      host: '127.0.0.1',
      port: 0,
    });
    const fd = sockets.openSocket(family);
    assert.equal(sys.bind(fd, region, length), 0);
    const listener = await reactor.listen({ kind: 'fd', fd }, () => {});
    // Its accept fails with EINVAL, as it would with EMFILE; then all is well again.
    assert.equal(sys.shutdown(fd), 0);
    await sleep(20);
    const closing = listener.close();
    assert.equal(sys.listen(fd, 1), 0);
    await closing;
    await reactor.close();
  },
);
