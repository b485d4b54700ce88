import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConfigError } from '../base/errors.ts';
import { connectNbd } from '../protocols/nbd/client.ts';
import { openReactor } from '../reactor/open.ts';
import { flush, read, write } from '../block/await.ts';
import type { DiskConfig, ServerConfig } from './config.ts';
import { startServer } from './server.ts';

function disk(name: string, exportName: string): DiskConfig {
  return {
    disk: name,
    exportName,
    description: '',
    cache: 'writeback',
    readOnly: false,
    onSyncError: 'poison',
  };
}

function config(
  directory: string,
  disks: readonly DiskConfig[],
  reactor: ServerConfig['reactor'],
): ServerConfig {
  return {
    disks,
    listen: [{ protocol: 'nbd', address: { kind: 'unix', path: join(directory, 'nbd.sock') } }],
    tlsMode: 'off',
    maxConnections: 8,
    reactor,
  };
}

async function inDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-server-'));
  try {
    await body(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Processor time of this process, threads included, in clock ticks [proc(5) stat utime, stime]. */
function ticks(): number {
  const fields = readFileSync('/proc/self/stat', 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

for (const kind of ['io_uring', 'portable'] as const) {
  void test(
    `${kind}: an idle server costs nothing, before and after it has worked`,
    { timeout: 30_000 },
    async () => {
      await inDirectory(async (directory) => {
        const server = await startServer(config(directory, [disk('memory:1M', '')], kind));
        const { reactor } = await openReactor('portable');
        for (const round of ['before', 'after']) {
          await sleep(200);
          // 50 ticks are half a second of one processor; a loop that spins takes all of them every time, while
          // Node's own threads clear up now and then.
          let least = Infinity;
          for (let i = 0; i < 8 && least >= 20; i += 1) {
            const start = ticks();
            await sleep(500);
            least = Math.min(least, ticks() - start);
          }
          assert.ok(least < 20, `${round} work: ${least} ticks while idle`);
          const client = await connectNbd(reactor, server.uris[0] as string);
          for (let i = 0; i < 200; i += 1) await write(client, 0, new Uint8Array(4096).fill(i));
          await flush(client);
          assert.equal((await read(client, 0, 512))[0], 199);
          await client.close();
        }
        await reactor.close();
        await server.stop();
      });
    },
  );

  void test(
    `${kind}: counters are there while it runs and after it has stopped`,
    { timeout: 30_000 },
    async () => {
      await inDirectory(async (directory) => {
        const disks = [disk('memory:1M', 'a'), disk('memory:2M', 'b')];
        const server = await startServer(config(directory, disks, kind));
        assert.equal(server.uris.length, 2);
        const { reactor } = await openReactor('portable');
        const client = await connectNbd(reactor, server.uris[1] as string);
        await write(client, 4096, new Uint8Array(8192));
        const [a, b] = await server.counters();
        assert.deepEqual([a?.writes, b?.writes, b?.writtenBytes], [0, 1, 8192]);
        await client.close();
        await reactor.close();
        await Promise.all([server.stop(), server.stop()]);
        await server.stopped;
        assert.equal((await server.counters())[1]?.writtenBytes, 8192);
      });
    },
  );

  void test(
    `${kind}: a server that cannot be whole leaves nothing open`,
    { timeout: 30_000 },
    async () => {
      await inDirectory(async (directory) => {
        const good = config(directory, [disk('memory:1M', '')], kind);
        const bad = config(
          directory,
          [disk('memory:1M', ''), disk(join(directory, 'no'), 'x')],
          kind,
        );
        await assert.rejects(
          startServer(bad),
          (error) => error instanceof ConfigError && error.hint !== '',
        );
        const server = await startServer(good);
        await assert.rejects(startServer(good), /in use/i);
        await server.stop();
        // The socket was given up, and can be had again.
        await (await startServer(good)).stop();
      });
    },
  );

  void test(`${kind}: two exports of one name are refused`, { timeout: 30_000 }, async () => {
    await inDirectory(async (directory) => {
      const twice = config(directory, [disk('memory:1M', 'a'), disk('memory:1M', 'a')], kind);
      await assert.rejects(startServer(twice), /already an export named 'a'/);
    });
  });
}
