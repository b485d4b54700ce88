import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { KiB, MiB } from '../base/units.ts';
import { discard, flush, write, writeZeroes } from '../block/await.ts';
import { FLAG, OP } from '../block/io.ts';
import { connectNbd } from '../protocols/nbd/client.ts';
import { openReactor } from '../reactor/open.ts';
import { openTrace } from '../trace/reader.ts';
import type { Trace } from '../trace/trace.ts';
import type { DiskConfig, RecordConfig, ServerConfig } from './config.ts';
import { startServer, type Server } from './server.ts';

type NbdClient = Awaited<ReturnType<typeof connectNbd>>;

for (const kind of ['io_uring', 'portable'] as const) {
  test(`${kind}: what NBD clients do is in the trace, with marks between`, async () => {
    await inDirectory(async (directory) => {
      const config = configOf(directory, [disk('memory:4M')], kind);
      const trace = await recorded(config, async (client, server, other) => {
        await write(client, 0, new Uint8Array(4096).fill(1));
        await flush(client);
        await server.mark('ack', 'one');
        await write(client, 4096, new Uint8Array(8192).fill(2), FLAG.FUA);
        await server.mark('ack', 'two');
        await writeZeroes(other, 0, 4096);
        await discard(other, 8192, 4096);
      });
      const { requests } = trace;
      // The last FLUSH is the server's own, at its end.
      assert.deepEqual(
        [...requests.op],
        [OP.WRITE, OP.FLUSH, OP.WRITE, OP.WRITE_ZEROES, OP.DISCARD, OP.FLUSH],
      );
      assert.deepEqual(
        [...requests.flags].map((flags) => flags & FLAG.FUA),
        [0, 0, FLAG.FUA, 0, 0, 0],
      );
      assert.deepEqual([...requests.issued], [0, 2, 5, 8, 10, 12]);
      assert.deepEqual([...requests.done], [1, 3, 6, 9, 11, 13]);
      assert.deepEqual(trace.marks, [
        { event: 4, kind: 'ack', text: 'one' },
        { event: 7, kind: 'ack', text: 'two' },
      ]);
      const [a, , b, c, d, own] = requests.source;
      assert.ok(a === b && c === d && a !== c && a !== 0 && c !== 0 && own === 0);
      assert.deepEqual(dataOf(trace, 2), new Uint8Array(8192).fill(2));
      assert.ok(trace.complete);
      assert.deepEqual(trace.disks, [
        {
          number: 0,
          name: 'memory:4M',
          sizeBytes: 4 * MiB,
          blockBytes: 512,
          base: { kind: 'zeroes' },
          discard: 'undefined',
          flushCovers: 'everyone',
        },
      ]);
    });
  });
}

test('a file is copied first, with its holes, and the trace makes sense on top of the copy', async () => {
  await inDirectory(async (directory) => {
    const image = join(directory, 'disk.img');
    writeFileSync(image, new Uint8Array(8192).fill(5));
    truncateSync(image, 64 * MiB);
    const config = configOf(directory, [disk(image)]);
    const trace = await recorded(config, async (client) => {
      await write(client, 0, new Uint8Array(4096).fill(6));
    });
    const copy = join(directory, 'x.trace.base');
    assert.equal(trace.disks[0]?.base.kind, 'file');
    assert.ok(trace.disks[0].base.path === 'x.trace.base');
    assert.equal(readFileSync(copy)[0], 5);
    assert.equal(readFileSync(image)[0], 6);
    const { size, blocks } = statSync(copy);
    assert.equal(size, 64 * MiB);
    assert.ok(blocks * 512 <= 128 * KiB, 'the copy has holes');
  });
});

test('a read-only disk is its own base; so is an image that is said to be one', async () => {
  await inDirectory(async (directory) => {
    const image = join(directory, 'disk.img');
    writeFileSync(image, new Uint8Array(MiB).fill(5));
    const config = configOf(directory, [{ ...disk(image), readOnly: true }]);
    const trace = await recorded(config, () => Promise.resolve());
    assert.ok(trace.disks[0]?.base.kind === 'file' && trace.disks[0].base.path === 'disk.img');
    rmSync(join(directory, 'x.trace'));
    const memory = configOf(directory, [disk(image)], 'portable', { base: { image } });
    const again = await recorded(memory, () => Promise.resolve());
    assert.deepEqual(again.disks[0]?.base, trace.disks[0].base);
    assert.ok(!existsSync(join(directory, 'x.trace.base')));
  });
});

test('with the write cache off writes are recorded as they are kept: with FUA', async () => {
  await inDirectory(async (directory) => {
    const image = join(directory, 'disk.img');
    writeFileSync(image, new Uint8Array(MiB));
    const config = configOf(directory, [{ ...disk(image), cache: 'writethrough' }]);
    const trace = await recorded(config, async (client) => {
      await write(client, 0, new Uint8Array(4096).fill(1));
    });
    assert.equal(trace.requests.flags[0], FLAG.FUA);
  });
});

test('mode unsafe: no FLUSH is recorded that was not done, and the disk says why there is none', async () => {
  await inDirectory(async (directory) => {
    const config = configOf(directory, [{ ...disk('memory:1M'), cache: 'unsafe' }]);
    const trace = await recorded(config, async (client) => {
      await write(client, 0, new Uint8Array(4096).fill(1), FLAG.FUA);
      await flush(client);
    });
    assert.deepEqual([...trace.requests.op], [OP.WRITE]);
    assert.equal(trace.requests.flags[0], 0);
    assert.equal(trace.disks[0]?.ignoresFlush, true);
  });
});

test('a logical unit promises zeroes where it is unmapped, and the trace says so', async () => {
  await inDirectory(async (directory) => {
    const config = configOf(directory, [disk('memory:1M')]);
    const trace = await recorded(
      {
        ...config,
        listen: [
          ...config.listen,
          {
            protocol: 'iscsi',
            address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
            target: {
              name: 'iqn.2026-11.org.example:x',
              alias: '',
              luns: [{ lun: 0, exportName: '' }],
            },
          },
        ],
      },
      () => Promise.resolve(),
    );
    assert.equal(trace.disks[0]?.discard, 'zeroes');
  });
});

test('what cannot be recorded is refused, and leaves nothing behind', async () => {
  await inDirectory(async (directory) => {
    const image = join(directory, 'disk.img');
    writeFileSync(image, new Uint8Array(MiB));
    symlinkSync(image, join(directory, 'link.img'));
    const twice = [
      { ...disk(image), exportName: 'a' },
      { ...disk(join(directory, 'link.img')), exportName: 'b' },
    ];
    await assert.rejects(
      startServer(configOf(directory, twice)),
      /link\.img is served twice, and a recording takes each disk once/,
    );
    const two = [
      { ...disk('memory:1M'), exportName: 'a' },
      { ...disk('memory:1M'), exportName: 'b' },
    ];
    await assert.rejects(
      startServer(configOf(directory, two, 'portable', { base: { image } })),
      /one image cannot be what 2 disks held/,
    );
    assert.ok(!existsSync(join(directory, 'x.trace')));
    assert.ok(!existsSync(join(directory, 'x.trace.base')));
    writeFileSync(join(directory, 'x.trace'), 'mine');
    await assert.rejects(startServer(configOf(directory, two)), /x\.trace: a file .* already/);
    assert.equal(readFileSync(join(directory, 'x.trace'), 'utf8'), 'mine');
  });
});

test('who records nothing takes no marks, and who records loses nothing on purpose', async () => {
  await inDirectory(async (directory) => {
    const { record, ...without } = configOf(directory, [disk('memory:1M')]);
    const plain = await startServer(without);
    await assert.rejects(plain.mark('ack', 'x'), /nothing is recorded/);
    await plain.stop();
    const lossy = { ...disk('memory:1M'), volatileCacheBytes: 4 * MiB };
    const server = await startServer({ ...without, disks: [lossy], ...(record && { record }) });
    const cut = server.cutPower('', { seed: 1, model: 'M2', offForMs: 0 });
    await assert.rejects(cut, /is recorded/);
    await server.stop();
  });
});

function disk(name: string): DiskConfig {
  return {
    disk: name,
    exportName: '',
    description: '',
    cache: 'writeback',
    readOnly: false,
    onSyncError: 'poison',
  };
}

function configOf(
  directory: string,
  disks: readonly DiskConfig[],
  reactor: ServerConfig['reactor'] = 'auto',
  record: Partial<RecordConfig> = {},
): ServerConfig {
  return {
    disks,
    listen: [{ protocol: 'nbd', address: { kind: 'unix', path: join(directory, 'nbd.sock') } }],
    tlsMode: 'off',
    maxConnections: 8,
    reactor,
    record: { path: join(directory, 'x.trace'), ...record },
  };
}

/** Serves and records what `work` does through two connections to the first disk; the trace is closed. */
async function recorded(
  config: ServerConfig,
  work: (client: NbdClient, server: Server, other: NbdClient) => Promise<void>,
): Promise<Trace> {
  const lines: string[] = [];
  const server = await startServer(config, (level, line) => {
    if (level === 'warn') lines.push(line);
  });
  const { reactor } = await openReactor('portable');
  try {
    const client = await connectNbd(reactor, server.uris[0] as string);
    const other = await connectNbd(reactor, server.uris[0] as string);
    await work(client, server, other);
    await client.close();
    await other.close();
  } finally {
    await reactor.close();
    await server.stop();
  }
  assert.deepEqual(lines, []);
  return openTrace(config.record?.path ?? '');
}

function dataOf(trace: Trace, request: number): Uint8Array {
  const data = new Uint8Array(trace.requests.length[request] as number);
  trace.readData(trace.requests.dataAt[request] as number, data);
  return data;
}

async function inDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-recording-'));
  try {
    await body(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}
