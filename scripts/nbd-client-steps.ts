import { perform } from '../src/block/await.ts';
import { OP } from '../src/block/io.ts';
import { connectNbd } from '../src/protocols/nbd/client.ts';
import { openReactor } from '../src/reactor/open.ts';
import { STEPS, stepBytes } from '../test/support/nbd-client-steps.ts';

// The client that scripts/capture-nbd.ts records for test/transcripts/nbd/server-*.txt: node
// scripts/nbd-client-steps.ts URI

const { reactor } = await openReactor('portable');
const client = await connectNbd(reactor, process.argv[2] ?? '');
for (const [index, [op, offset, length, flags]] of STEPS.entries()) {
  if (client.info.readOnly && op !== OP.READ) continue;
  const transfers = op === OP.READ || op === OP.WRITE;
  const bytes = transfers ? stepBytes(index, length) : undefined;
  await perform(client, op, offset, length, flags, bytes);
}
await client.close();
await reactor.close();
