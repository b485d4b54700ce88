import { Buffer } from 'node:buffer';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import { isNbdUri, parseNbdUri } from '../../src/protocols/nbd/uri.ts';
import {
  encodeInfoRequest,
  encodeOption,
  NBD_INFO,
  NBD_OPT,
} from '../../src/protocols/nbd/wire.ts';
import { hostileConversation, type Victim } from './hostile-client.ts';
import { memory } from './server-memory.ts';
import { fail } from './target.ts';

/** Where a running server listens: an NBD URI, or the path of a Unix socket for its default export. */
export interface LiveServer {
  readonly connect: net.NetConnectOpts;
  readonly exportName: string;
}

const AT_ONCE = 32;
/** How long an attacker listens after its last byte. */
const LISTEN_MS = 15;
const ANSWER_MS = 5000;

export function parseLive(text: string): LiveServer {
  if (!isNbdUri(text)) return { connect: { path: text }, exportName: '' };
  const { address, exportName } = parseNbdUri(text);
  const connect =
    address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port };
  return { connect, exportName };
}

/**
 * Fires hostile connections at a server, and asks it now and then as a sane client does whether it still serves. What is on
 * its disk is overwritten.
 */
export async function attack(
  server: LiveServer,
  connections: number,
  firstSeed: number,
  say: (line: string) => void,
  pid: number | null,
): Promise<void> {
  const victim = await visit(server);
  say(`export '${victim.exportName}' of ${victim.sizeBytes} bytes; ${memory(pid)}`);
  const started = performance.now();
  let next = 0;
  let received = 0;
  const worker = async (): Promise<void> => {
    while (next < connections) {
      const serial = next;
      next += 1;
      received += await attackOnce(server, victim, firstSeed + serial);
      if (serial % 5000 === 4999) {
        await visit(server);
        say(`${serial + 1} connections; ${memory(pid)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  // Whatever the last ones left behind has time to go.
  await sleep(200);
  await visit(server);
  const seconds = (performance.now() - started) / 1000;
  say(
    `${connections} hostile connections from seed ${firstSeed} in ${seconds.toFixed(1)} s ` +
      `(${(connections / seconds).toFixed(0)}/s), ${received} bytes of answers, it still serves; ${memory(pid)}`,
  );
}

/** One hostile connection. Resolves with the bytes of its answers, however it ended. */
function attackOnce(server: LiveServer, victim: Victim, seed: number): Promise<number> {
  const prng = new Prng(seed);
  const bytes = hostileConversation(prng, victim);
  const listens = prng.chance(0.7);
  return new Promise((resolve, reject) => {
    let received = 0;
    const socket = net.connect(server.connect);
    socket.on('data', (data: Buffer) => {
      received += data.length;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // It may hang up on us as it likes; that it cannot be reached is another matter.
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') reject(error);
    });
    socket.on('close', () => resolve(received));
    // A client that reads nothing fills the socket's buffers, and the server has to bear it.
    if (prng.chance(0.1)) socket.pause();
    socket.on('connect', () => {
      const cut = prng.chance(0.3) ? prng.below(bytes.length + 1) : bytes.length;
      if (cut > 0) socket.write(bytes.subarray(0, cut));
      setTimeout(() => socket.destroy(), listens ? LISTEN_MS : prng.below(3));
    });
  });
}

/** A sane client: negotiates, and learns the size. Fails if the server does not answer. */
function visit(server: LiveServer): Promise<Victim> {
  const { exportName } = server;
  return new Promise((resolve, reject) => {
    const socket = net.connect(server.connect);
    let heard: Buffer = Buffer.alloc(0);
    const timer = setTimeout(() => socket.destroy(new Error('it does not answer')), ANSWER_MS);
    socket.on('error', (error) => reject(error));
    socket.on('close', () => {
      clearTimeout(timer);
      reject(new Error('it hung up on a sane client'));
    });
    socket.on('connect', () => {
      const go = encodeOption(NBD_OPT.GO, encodeInfoRequest(exportName, [NBD_INFO.BLOCK_SIZE]));
      socket.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), go]));
    });
    socket.on('data', (data: Buffer) => {
      heard = Buffer.concat([heard, data]);
      // Greeting, then NBD_REP_INFO with NBD_INFO_EXPORT, then with NBD_INFO_BLOCK_SIZE, then the ACK.
      const whole = 18 + (20 + 12) + (20 + 14) + 20;
      if (heard.length < whole) return;
      const sizeBytes = Number(heard.readBigUInt64BE(18 + 20 + 2));
      const blockBytes = heard.readUInt32BE(18 + 32 + 20 + 2);
      if (sizeBytes <= 0) fail('an export without a size');
      resolve({ exportName, sizeBytes, blockBytes });
      socket.destroy();
    });
  });
}
