import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { flush, write } from '../../src/block/await.ts';
import { BLK_CLIENT_FEATURES } from '../../src/protocols/vhost-user/blk-client-link.ts';
import {
  connectVhostUserBlk,
  type VhostUserBlkDevice,
} from '../../src/protocols/vhost-user/blk-client.ts';
import { VIRTIO_BLK_F } from '../../src/protocols/virtio/blk.ts';
import { openReactor } from '../../src/reactor/open.ts';
import type { Reactor } from '../../src/reactor/reactor.ts';
import { findProgram, type Program } from '../programs.ts';
import { ServerProcess } from '../server-process.ts';

/**
 * What qemu-storage-daemon tells a virtio driver of its write cache, and what it does: our driver negotiates, reads the
 * byte `writeback`, writes, and strace counts the syncs. Prints a table. Run with: node bench/vhost-user-blk/write-cache.ts
 */

const WRITES = 8;
const BLOCK = 4096;
const UNASKED_MS = 20;
const EXPORT = 'type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix';

interface Case {
  readonly name: string;
  /** Feature bits that are not negotiated. */
  readonly without: readonly number[];
  /** What the driver sets the byte to. */
  readonly set: boolean | null;
  /** A flush precedes each write, and is not counted. */
  readonly flushFirst?: boolean;
}

const { CONFIG_WCE, FLUSH } = VIRTIO_BLK_F;
const CASES: readonly Case[] = [
  { name: 'FLUSH and CONFIG_WCE', without: [], set: null },
  { name: 'FLUSH alone', without: [CONFIG_WCE], set: null },
  { name: 'CONFIG_WCE alone', without: [FLUSH], set: null },
  { name: 'neither', without: [CONFIG_WCE, FLUSH], set: null },
  { name: 'both, writeback set to 1', without: [], set: true },
  { name: 'both, writeback set to 0', without: [], set: false },
  { name: 'the same, each write after a flush', without: [], set: false, flushFirst: true },
];

/** The server under strace. Each sync is a line of the trace. */
function startTraced(
  program: Program,
  image: string,
  socket: string,
  trace: string,
): Promise<ServerProcess> {
  writeFileSync(trace, '');
  const command = [
    'strace',
    '-f',
    '-qq',
    '--trace=fdatasync,fsync',
    `--output=${trace}`,
    ...program.command,
    // Worker threads, because strace does not see into io_uring.
    `--blockdev=driver=file,node-name=disk,filename=${image},aio=threads,cache.direct=off`,
    `--export=${EXPORT},addr.path=${socket}`,
  ];
  return ServerProcess.start(program.name, command, socket);
}

function syncsIn(trace: string): number {
  const lines = readFileSync(trace, 'utf8').split('\n');
  return lines.filter((line) => line.includes('sync(')).length;
}

async function observe(
  reactor: Reactor,
  program: Program,
  folder: string,
  { without, set, flushFirst = false }: Case,
): Promise<string[]> {
  const image = join(folder, 'disk.img');
  const socket = join(folder, 'disk.sock');
  writeFileSync(image, '');
  truncateSync(image, 16 * MiB);
  rmSync(socket, { force: true });
  const trace = join(folder, 'trace');
  const server = await startTraced(program, image, socket, trace);
  // The look whether it listens was a connection: it goes before the next comes.
  await sleep(200);
  try {
    const features = without.reduce(
      (mask, bit) => mask & ~(1n << BigInt(bit)),
      BLK_CLIENT_FEATURES,
    );
    const device = await connectVhostUserBlk(reactor, socket, { features });
    const { writeback } = device.config;
    const syncsBefore = syncsIn(trace);
    if (set !== null) await device.setWriteback(set);
    const syncsOfSwitch = syncsIn(trace) - syncsBefore;
    const syncs = await syncsOfWrites(trace, device, flushFirst);
    await device.close();
    const told = writeback === null ? '-' : String(writeback);
    return [told, set === null ? '-' : String(syncsOfSwitch), ...syncs.map(String)];
  } finally {
    await server.stop();
  }
}

/** Syncs that came with writes, one at a time, and with a flush after them all. */
async function syncsOfWrites(
  trace: string,
  device: VhostUserBlkDevice,
  flushFirst: boolean,
): Promise<number[]> {
  let ofWrites = 0;
  for (let i = 0; i < WRITES; i += 1) {
    if (flushFirst) await flush(device);
    const before = syncsIn(trace);
    await write(device, i * BLOCK, new Uint8Array(BLOCK).fill(1 + i));
    // What a server does unasked would come now.
    await sleep(UNASKED_MS);
    ofWrites += syncsIn(trace) - before;
  }
  const before = syncsIn(trace);
  await flush(device);
  return [ofWrites, syncsIn(trace) - before];
}

async function main(): Promise<void> {
  if (findProgram('strace', null) === null) throw new Error('strace is missing');
  const found = [findProgram('qemu-storage-daemon'), findProgram('qemu-storage-daemon', null)];
  const programs = new Map(found.flatMap((one) => (one === null ? [] : [[one.version, one]])));
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-write-cache-'));
  const { reactor } = await openReactor('io_uring');
  const columns = ['negotiated', 'writeback at first', 'syncs of switch'];
  columns.push(`syncs of ${WRITES} writes`, 'of a flush');
  try {
    for (const [version, program] of programs) {
      process.stdout.write(`qemu-storage-daemon ${version}\n\n| ${columns.join(' | ')} |\n`);
      process.stdout.write(`|${' --- |'.repeat(columns.length)}\n`);
      for (const one of CASES) {
        const cells = await observe(reactor, program, folder, one);
        process.stdout.write(`| ${[one.name, ...cells].join(' | ')} |\n`);
      }
      process.stdout.write('\n');
    }
  } finally {
    await reactor.close();
    rmSync(folder, { recursive: true });
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`write-cache: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
