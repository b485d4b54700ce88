import { after, before, suite } from 'node:test';
import { fileTests } from './conformance/files.ts';
import { Bench, unavailable, type Kind } from './conformance/harness.ts';
import { listenTests } from './conformance/listeners.ts';
import { streamTests } from './conformance/streams.ts';
import { timeTests } from './conformance/time.ts';
import { tlsTests } from './conformance/tls.ts';
import { watchTests } from './conformance/watches.ts';

// What must hold for every reactor. The same tests run on each kind that this host has.

for (const kind of ['portable', 'io_uring'] as const satisfies readonly Kind[]) {
  const skip = await unavailable(kind);
  void suite(`reactor ${kind}`, { skip, timeout: 30_000 }, () => {
    let bench: Bench;
    before(async () => {
      bench = await Bench.open(kind);
    });
    after(() => bench.end());
    const get = (): Bench => bench;
    streamTests(get);
    listenTests(get);
    fileTests(get);
    timeTests(get);
    watchTests(get);
    tlsTests(get);
  });
}
