import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { attack, parseLive } from './live.ts';
import { explained } from './explainer.ts';
import { fuzzConnection, pool } from './nbd-connection.ts';
import { sent } from './iscsi-client.ts';
import { attackIscsi } from './iscsi-live.ts';
import { pool as iscsiPool } from './iscsi-sessions.ts';
import { attackVhostUser } from './vhost-user-live.ts';
import { conversations } from './vhost-user-messages.ts';
import { chains } from './virtio-checked.ts';
import { TARGETS } from './targets.ts';

// npm run fuzz -- TARGET SEED               one run again
// npm run fuzz -- TARGET [--runs N]         many, from --seed
// npm run fuzz -- --connections N           hostile connections to a server in this process, and what they cost
// npm run fuzz -- --chains N              chains of a hostile virtio driver and mangled vhost-user messages, in this process
// npm run fuzz -- --pdus N                PDUs of hostile iSCSI initiators, in this process
// npm run fuzz -- --live iscsi://HOST:PORT/IQN/LUN [--connections N] [--pid PID]   hostile initiators
// npm run fuzz -- --live vhost-user-blk:PATH [--seconds N] [--pid PID]   a hostile guest, with memory that changes
// npm run fuzz -- --live URI|SOCKET [--connections N] [--pid PID]   to a running server, whose disk is overwritten

const USAGE = `usage: npm run fuzz -- TARGET [SEED] [--runs N] [--seed S]
       npm run fuzz -- --connections N [--seed S]
       npm run fuzz -- --chains N [--seed S]
       npm run fuzz -- --pdus N [--seed S]
       npm run fuzz -- --live URI|SOCKET|iscsi://HOST:PORT/IQN/LUN [--connections N] [--seed S] [--pid PID]
       npm run fuzz -- --live vhost-user-blk:PATH [--seconds N] [--seed S] [--pid PID]
targets: ${Object.keys(TARGETS).join(', ')}
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '1' },
    connections: { type: 'string' },
    chains: { type: 'string' },
    pdus: { type: 'string' },
    seconds: { type: 'string', default: '60' },
    live: { type: 'string' },
    pid: { type: 'string' },
  },
});

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function count(text: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number >= 0) return number;
  process.stderr.write(USAGE);
  return process.exit(2);
}

function runTarget(name: string, seed: number): boolean {
  const target = TARGETS[name];
  if (target === undefined) {
    process.stderr.write(USAGE);
    return process.exit(2);
  }
  try {
    target(seed);
    return true;
  } catch (error) {
    say(
      `${name} ${seed}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    );
    say(`  replay: npm run fuzz -- ${name} ${seed}`);
    return false;
  }
}

function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}

function runConnections(connections: number, first: number): boolean {
  globalThis.gc?.();
  const before = process.memoryUsage();
  const started = performance.now();
  for (let i = 0; i < connections; i += 1) {
    if (!runTarget('nbd-connection', first + i)) return false;
  }
  const seconds = (performance.now() - started) / 1000;
  globalThis.gc?.();
  const after = process.memoryUsage();
  say(
    `${connections} hostile connections from seed ${first} in ${seconds.toFixed(1)} s ` +
      `(${(connections / seconds).toFixed(0)}/s), no crash, hang, leak or foreign byte`,
  );
  say(
    `${explained.options} option replies, ${explained.served} reached transmission, ${explained.succeeded} requests ` +
      `succeeded, ${explained.failed} failed, ${mib(explained.dataBytes)} MiB of data, every byte explained`,
  );
  say(
    `pool: at most ${pool.mostInUse} pages in use, ${pool.inUse} at the end; ` +
      `heap ${mib(before.heapUsed)} -> ${mib(after.heapUsed)} MiB, resident ${mib(before.rss)} -> ${mib(after.rss)} MiB`,
  );
  return true;
}

/** Of so many seeds one is for memory that changes while it is read, and three for a front-end's mangled conversations. */
const ROUND = 8;

/** Runs after which all code is compiled and all pools are filled. */
const WARM_SEEDS = 500;
const MOST_HEAP_GROWTH = 4 * 2 ** 20;

/** What is in use when all garbage is collected. */
function heapBytes(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed;
}

function chainTarget(seed: number): string {
  if (seed % ROUND === 0) return 'virtio-chaos';
  return seed % ROUND < 4 ? 'vhost-user-messages' : 'virtio-chains';
}

function runChains(wanted: number, first: number): boolean {
  // Most of the errors made on the way are the device's, and nobody reads where they came from.
  Error.stackTraceLimit = 4;
  const started = performance.now();
  let heapBefore = 0;
  for (let seed = first; chains.offered < wanted; seed += 1) {
    if (!runTarget(chainTarget(seed), seed)) return false;
    if (seed === first + WARM_SEEDS) heapBefore = heapBytes();
  }
  const seconds = (performance.now() - started) / 1000;
  const heapAfter = heapBytes();
  say(
    `${chains.offered} hostile chains from seed ${first} in ${seconds.toFixed(1)} s ` +
      `(${(chains.offered / seconds).toFixed(0)}/s), no crash, hang, leak or foreign byte`,
  );
  say(
    `${chains.taken} taken: ${chains.succeeded} succeeded, ${chains.failed} failed, ${chains.unsupported} unsupported, ` +
      `${chains.lost} in rings that were broken; ${chains.brokenRings} rings broken`,
  );
  say(
    `${conversations.held} mangled conversations of ${conversations.messages} messages, ${conversations.ended} ended early`,
  );
  say(
    `${chains.foretold} batches foretold to the last byte, ${chains.tangled} too tangled for that; ` +
      `heap ${mib(heapBefore)} -> ${mib(heapAfter)} MiB`,
  );
  if (heapBefore === 0 || heapAfter - heapBefore <= MOST_HEAP_GROWTH) return true;
  say('the heap has grown: something is kept of every run');
  return false;
}

/** Of so many runs one is nothing but logins. */
const LOGIN_RUNS = 4;

function runPdus(wanted: number, first: number): boolean {
  Error.stackTraceLimit = 8;
  runTarget('iscsi-sessions', 0);
  const before = heapBytes();
  const started = performance.now();
  const begun = sent.pdus;
  for (let seed = first; sent.pdus - begun < wanted; seed += 1) {
    const name = seed % LOGIN_RUNS === 0 ? 'iscsi-logins' : 'iscsi-sessions';
    if (!runTarget(name, seed)) return false;
  }
  const seconds = (performance.now() - started) / 1000;
  const after = heapBytes();
  const pdus = sent.pdus - begun;
  say(
    `${pdus} hostile PDUs from seed ${first} in ${seconds.toFixed(1)} s ` +
      `(${(pdus / seconds).toFixed(0)}/s), no crash, hang, leak or foreign byte`,
  );
  say(
    `${sent.logins} logins, ${sent.refused} refused; ${sent.commands} commands, ${sent.good} succeeded, ` +
      `${sent.failed} failed; ${sent.rejected} PDUs rejected, ${sent.reads} reads explained to the last byte`,
  );
  say(
    `pool: at most ${iscsiPool.mostInUse} pages in use, ${iscsiPool.inUse} at the end; ` +
      `heap ${mib(before)} -> ${mib(after)} MiB`,
  );
  // What a leak of a few bytes for each session would come to.
  const grown = after - before;
  if (grown < MAX_GROWTH_BYTES) return true;
  say(`the heap has grown by ${mib(grown)} MiB`);
  return false;
}

const MAX_GROWTH_BYTES = 8 * 2 ** 20;

function runMany(name: string): boolean {
  const given = positionals[1];
  if (given !== undefined) return runTarget(name, count(given));
  const runs = count(values.runs);
  const first = count(values.seed);
  for (let i = 0; i < runs; i += 1) if (!runTarget(name, first + i)) return false;
  say(`${name}: ${runs} runs from seed ${first}`);
  return true;
}

// The first run makes what is made once, so that the figures before and after can be compared.
fuzzConnection(0);

const VHOST_USER_PREFIX = 'vhost-user-blk:';
let good = false;
const connections = values.connections === undefined ? null : count(values.connections);
const [name] = positionals;
if (values.live?.startsWith(VHOST_USER_PREFIX) === true) {
  await attackVhostUser({
    path: values.live.slice(VHOST_USER_PREFIX.length),
    seconds: count(values.seconds),
    seed: count(values.seed),
    pid: values.pid === undefined ? null : count(values.pid),
    say,
  });
  good = true;
} else if (values.live?.startsWith('iscsi://') === true) {
  const pid = values.pid === undefined ? null : count(values.pid);
  await attackIscsi(values.live, connections ?? 2000, count(values.seed), say, pid);
  good = true;
} else if (values.live !== undefined) {
  const pid = values.pid === undefined ? null : count(values.pid);
  await attack(parseLive(values.live), connections ?? 10_000, count(values.seed), say, pid);
  good = true;
} else if (connections !== null) good = runConnections(connections, count(values.seed));
else if (values.pdus !== undefined) good = runPdus(count(values.pdus), count(values.seed));
else if (values.chains !== undefined) good = runChains(count(values.chains), count(values.seed));
else if (name !== undefined) good = runMany(name);
else {
  process.stderr.write(USAGE);
  process.exit(2);
}
process.exitCode = good ? 0 : 1;
