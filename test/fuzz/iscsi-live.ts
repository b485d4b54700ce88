import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import { parseIscsiUri } from '../../src/protocols/iscsi/uri.ts';
import { type ClientTraits, FuzzClient, sent } from './iscsi-client.ts';
import { Ledger } from './iscsi-ledger.ts';
import { soundKeys } from './iscsi-login.ts';
import { memory } from './server-memory.ts';

const AT_ONCE = 16;
/** How long an attacker goes on. */
const ATTACK_MS = 150;
const ANSWER_MS = 10_000;
/** Where the commands of the attackers go: the server's disk may be larger. */
const SIZE_BYTES = 256 * 1024;

/**
 * Hostile initiators against a server that runs somewhere, and now and then a sane login, which must get in. What is on its
 * disk is overwritten. A target with CHAP refuses them all: then it is a test of its login phase.
 */
export async function attackIscsi(
  uri: string,
  connections: number,
  firstSeed: number,
  say: (line: string) => void,
  pid: number | null,
): Promise<void> {
  const { host, port, target } = parseIscsiUri(uri);
  const where = { host, port };
  await visit(where, target);
  say(`target ${target}; ${memory(pid)}`);
  const started = performance.now();
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < connections) {
      const serial = next;
      next += 1;
      await attackOnce(where, target, firstSeed + serial);
      if (serial % 500 === 499) {
        await visit(where, target);
        say(`${serial + 1} connections, ${sent.pdus} PDUs; ${memory(pid)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  await sleep(200);
  await visit(where, target);
  const seconds = (performance.now() - started) / 1000;
  say(
    `${connections} hostile initiators from seed ${firstSeed} in ${seconds.toFixed(1)} s, ${sent.pdus} PDUs, ` +
      `${sent.fullFeature} logins, it still serves; ${memory(pid)}`,
  );
}

/** One hostile initiator; resolves when it has gone, however that came. */
function attackOnce(where: net.TcpNetConnectOpts, target: string, seed: number): Promise<void> {
  const prng = new Prng(seed);
  return new Promise((resolve, reject) => {
    const socket = net.connect(where);
    const client = clientOn(socket, prng, target, {
      wildness: prng.pick([0.1, 0.4, 0.8]),
      requests: 10 + prng.below(100),
      breaksFrames: prng.chance(0.3),
    });
    socket.once('connect', () => client.begin());
    socket.on('data', (data) => {
      try {
        client.told(data);
      } catch (error) {
        socket.destroy();
        reject(new Error(`seed ${seed}`, { cause: error }));
      }
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // It may hang up on us as it likes; that it cannot be reached is another matter.
      if (error.code === 'ECONNREFUSED') reject(error);
    });
    const limit = setTimeout(() => socket.destroy(), prng.float() * ATTACK_MS);
    socket.once('close', () => {
      clearTimeout(limit);
      client.hungUp();
      resolve();
    });
    if (prng.chance(0.1)) socket.pause();
  });
}

/** A sane initiator, that gets in or is refused in good form. */
function visit(where: net.TcpNetConnectOpts, target: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(where);
    const prng = new Prng(1);
    const traits = { wildness: 0, requests: 0, breaksFrames: false };
    const client = clientOn(socket, prng, target, traits);
    const limit = setTimeout(() => {
      socket.destroy();
      reject(new Error('the server does not answer a sane login any more'));
    }, ANSWER_MS);
    socket.once('connect', () => client.begin());
    socket.once('error', reject);
    socket.on('data', (data) => {
      client.told(data);
      if (client.state === 'login' && client.refusedWith === 0) return;
      clearTimeout(limit);
      socket.destroy();
      resolve();
    });
  });
}

function clientOn(
  socket: net.Socket,
  prng: Prng,
  target: string,
  traits: Omit<ClientTraits, 'login'>,
): FuzzClient {
  const ledger = new Ledger(SIZE_BYTES, 512, 0, false);
  // Others write the same disk: nothing is known of who else did what.
  ledger.unframed = true;
  const wire = {
    write: (bytes: Buffer) => {
      if (!socket.destroyed) socket.write(bytes);
    },
    after: (ms: number, callback: () => void) => {
      setTimeout(callback, ms);
    },
  };
  const login = {
    kind: traits.wildness === 0 ? ('good' as const) : prng.pick(['good', 'good', 'wild'] as const),
    initiator: `iqn.2026-11.fuzz:${traits.wildness === 0 ? 'sane' : 'a'}${prng.below(20)}`,
    isid: prng.below(4),
    target,
    allowed: true,
    keys: soundKeys(prng),
  };
  return new FuzzClient(prng, ledger, wire, { ...traits, login });
}
