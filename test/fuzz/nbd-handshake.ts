import { Buffer } from 'node:buffer';
import { Prng } from '../../src/base/prng.ts';
import type { DeviceInfo } from '../../src/block/device.ts';
import {
  type HandshakeHost,
  ServerHandshake,
  type TlsMode,
} from '../../src/protocols/nbd/handshake.ts';
import { MAX_OPTION_BYTES } from '../../src/protocols/nbd/limits.ts';
import { hostileConversation } from './hostile-client.ts';
import { fail, type FuzzTarget } from './target.ts';

const INFO: DeviceInfo = Object.freeze({
  name: 'fuzzed',
  sizeBytes: 1 << 20,
  blockBytes: 512,
  preferredBytes: 4096,
  maxTransferBytes: 1 << 20,
  readOnly: false,
  writeCache: true,
  ignoresFlush: false,
  fua: 'native',
  discard: true,
  fastZero: true,
  extents: true,
  rotational: false,
  memoryAlignment: 1,
});

const EXPORT = { name: 'disk', description: 'text', info: INFO, multiConn: true } as const;
/** No answer to one option may be longer than the list of exports, texts included. */
const MOST_ANSWER_BYTES = 5000;

/**
 * The handshake's state machine alone, in pieces of any size, under all TLS modes, with an export that opens late or not at
 * all. It never throws, consumes no more than it was given, answers each option once, and is silent after its end.
 */
export const fuzzHandshake: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const bytes = hostileConversation(prng, { ...INFO, exportName: EXPORT.name });
  const late: (() => void)[] = [];
  const seen = { closed: 0, negotiated: 0, answers: 0, tls: 0 };
  const host: HandshakeHost = {
    send: (out) => {
      if (seen.closed > 0 || seen.negotiated > 0) fail('something is said after the end');
      if (out.length > MOST_ANSWER_BYTES) fail(`an answer of ${out.length} bytes`);
      seen.answers += 1;
    },
    startTls: () => {
      seen.tls += 1;
    },
    lookup: (name) => (name === EXPORT.name ? EXPORT : null),
    list: () => [EXPORT],
    open: (_name, ready) => {
      const refused = prng.chance(0.2) ? { reply: 0x80000007 as const, message: 'no' } : null;
      if (prng.chance(0.5)) ready(refused);
      else late.push(() => ready(refused));
    },
    negotiated: () => {
      seen.negotiated += 1;
    },
    close: () => {
      seen.closed += 1;
    },
  };
  const mode = prng.pick<TlsMode>(['off', 'off', 'on', 'require']);
  const handshake = new ServerHandshake(host, mode);
  handshake.start();
  feed(prng, handshake, bytes, late);
  if (seen.closed + seen.negotiated > 1) fail(`ended ${seen.closed + seen.negotiated} times`);
  const options = countOptions(bytes);
  if (seen.answers > options + 2) fail(`${seen.answers} answers to ${options} options`);
};

function feed(prng: Prng, handshake: ServerHandshake, bytes: Buffer, late: (() => void)[]): void {
  let at = 0;
  let idle = 0;
  while (at < bytes.length && idle < 4) {
    if (prng.chance(0.01)) handshake.shutdown();
    if (prng.chance(0.002)) handshake.abandon();
    const most = prng.chance(0.4) ? 1 + prng.below(20) : MAX_OPTION_BYTES * 4;
    const part = bytes.subarray(at, at + most);
    const used = handshake.receive(part);
    if (used < 0 || used > part.length) fail(`${used} bytes used of ${part.length}`);
    if (handshake.state !== 'negotiating' && used > 0 && handshake.receive(part) !== 0) {
      fail('bytes are used after the end');
    }
    at += used;
    idle = used > 0 ? 0 : idle + 1;
    if (handshake.state === 'opening') for (const ready of late.splice(0)) ready();
    if (handshake.state === 'tls') handshake.tlsStarted();
    if (handshake.state === 'done' || handshake.state === 'closed') break;
  }
  for (const ready of late.splice(0)) ready();
}

/** An upper bound: how often the start of an option is in the bytes. */
function countOptions(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf('IHAVEOPT'); at >= 0; at = bytes.indexOf('IHAVEOPT', at + 1)) {
    count += 1;
  }
  return count;
}
