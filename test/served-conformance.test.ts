import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { conformance, type ConformanceTarget } from '../src/block/conformance.ts';
import { MiB } from '../src/base/units.ts';
import type { CacheMode } from '../src/durability/modes.ts';
import { connectNbd, type ConnectOptions } from '../src/protocols/nbd/client.ts';
import { openReactor } from '../src/reactor/open.ts';
import type { Reactor } from '../src/reactor/reactor.ts';
import { startServer, type Server } from '../src/server/server.ts';

// The device contract holds for what a client of ours sees of a disk that we serve: the same suite, through the
// server's thread, its reactor, the protocol in all its forms, and back.

const SIZE_BYTES = 8 * MiB;
/** More than the suite has tests; each gets a disk of its own, and all of a variant share a server. */
const DISKS = 64;

const directory = mkdtempSync(join(tmpdir(), 'holdfast-served-'));
const servers: Promise<Server>[] = [];
let client: Reactor;

before(async () => {
  client = (await openReactor('portable')).reactor;
});

after(async () => {
  for (const server of servers) await (await server).stop();
  await client.close();
  rmSync(directory, { recursive: true });
});

interface Variant {
  readonly reactor: 'io_uring' | 'portable';
  readonly disk: 'memory' | 'file';
  readonly cache: CacheMode;
  readonly form: string;
  readonly options: ConnectOptions;
}

/** Gives a client's view of a fresh disk at each call; the server starts with the first. */
function diskMaker(variant: Variant, readOnly: boolean): () => Promise<ConformanceTarget> {
  let server: Promise<Server> | null = null;
  let used = 0;
  return async () => {
    if (server === null) {
      server = serve(variant, readOnly, servers.length);
      servers.push(server);
    }
    const uri = (await server).uris[used];
    used += 1;
    return { device: await connectNbd(client, uri as string, variant.options) };
  };
}

function serve(variant: Variant, readOnly: boolean, number: number): Promise<Server> {
  const disks = Array.from({ length: DISKS }, (_, index) => ({
    disk: variant.disk === 'file' ? image(`${number}-${index}.img`) : `memory:${SIZE_BYTES}`,
    exportName: `disk${index}`,
    description: '',
    cache: variant.cache,
    readOnly,
    onSyncError: 'poison' as const,
  }));
  const path = join(directory, `${number}.sock`);
  return startServer({
    disks,
    listen: [{ protocol: 'nbd', address: { kind: 'unix', path } }],
    tlsMode: 'off',
    maxConnections: 4,
    reactor: variant.reactor,
  });
}

function image(name: string): string {
  const path = join(directory, name);
  writeFileSync(path, '');
  truncateSync(path, SIZE_BYTES);
  return path;
}

const FORMS: readonly (readonly [string, ConnectOptions])[] = [
  ['extended headers', {}],
  ['structured replies', { extendedHeaders: false }],
  ['simple replies', { extendedHeaders: false, structuredReplies: false, enter: 'exportName' }],
];

const variants: Variant[] = [];
for (const reactor of ['io_uring', 'portable'] as const) {
  for (const [form, options] of FORMS) {
    variants.push({ reactor, disk: 'memory', cache: 'writeback', form, options });
  }
  for (const cache of ['writeback', 'none', 'writethrough', 'until-flush'] as const) {
    variants.push({ reactor, disk: 'file', cache, form: 'extended headers', options: {} });
  }
}

for (const variant of variants) {
  const { reactor, disk, cache, form } = variant;
  conformance(`${disk} served with ${reactor}, ${cache}, ${form}`, diskMaker(variant, false), {
    openReadOnly: diskMaker(variant, true),
    steps: 60,
  });
}
