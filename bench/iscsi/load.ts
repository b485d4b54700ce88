import { parseArgs } from 'node:util';
import { messageOf } from '../../src/base/errors.ts';
import { Prng } from '../../src/base/prng.ts';
import { parseSize } from '../../src/base/units.ts';
import { BHS_BYTES } from '../../src/protocols/iscsi/wire.ts';
import { Memory, poll } from '../load/kernel.ts';
import { Meter } from '../load/meter.ts';
import { IscsiChannel, READ_10, SYNCHRONIZE_CACHE_10, WRITE_10 } from './channel.ts';

/**
 * The load client over iSCSI as a process of its own, so that its processor time can be told from the server's. Prints
 * one line of JSON. Usage: load.ts --port PORT --target IQN --lun N --mode randread|randwrite|flush [--bs 4k]
 * [--depth 32] [--sessions 1] [--seconds 2] [--warmup 0.3]
 *
 * flush: every session writes a block, waits, sends SYNCHRONIZE CACHE, waits; that is one commit.
 */
interface Load {
  readonly port: number;
  readonly target: string;
  readonly lun: number;
  readonly mode: string;
  readonly blockBytes: number;
  readonly depth: number;
  readonly sessions: number;
}

const POLLFD_BYTES = 8;
const POLLIN = 1;
const POLL_TIMEOUT_MS = 30_000;

function open(load: Load, session: number, commands: number): IscsiChannel {
  const outBytes = (BHS_BYTES + load.blockBytes) * commands;
  const channel = new IscsiChannel(load.port, load.target, load.lun, session, outBytes);
  const { bytes } = channel.out;
  // Payloads are not zeroes.
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = (i * 31 + 7) & 0xff;
  return channel;
}

/** Keeps `depth` commands in flight in one session until the meter says stop. */
function runStream(load: Load, meter: Meter): void {
  const { blockBytes, depth } = load;
  const channel = open(load, 1, depth);
  const opcode = load.mode === 'randwrite' ? WRITE_10 : READ_10;
  let stride = 0;
  for (let record = 0; record < depth; record += 1) {
    stride = channel.layOut(record * stride, record, opcode, blockBytes);
  }
  const blocks = Math.floor(channel.diskBytes / blockBytes);
  const free = new Uint32Array(depth).map((_, slot) => slot);
  const sentAt = new Float64Array(depth);
  let freeCount = depth;
  let state = 1;
  let nowUs = meter.start();
  while (!meter.over(nowUs)) {
    for (let record = 0; record < freeCount; record += 1) {
      // xorshift32 (Marsaglia 2003): the client must not be the bottleneck.
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      const slot = free[record] as number;
      sentAt[slot] = nowUs;
      channel.renew(record * stride, slot, ((state >>> 0) % blocks) * blockBytes);
    }
    if (freeCount > 0) channel.send(0, freeCount * stride);
    channel.receive();
    nowUs = meter.nowUs();
    freeCount = 0;
    for (let slot = channel.next(); slot >= 0; slot = channel.next()) {
      meter.done(nowUs - (sentAt[slot] as number), blockBytes);
      free[freeCount] = slot;
      freeCount += 1;
    }
  }
  channel.close();
}

const SLOT = { WRITE: 0, SYNC: 1 } as const;

/** Many machines at once: each commits one block after the other, as fast as it is answered. */
function runCommits(load: Load, meter: Meter): void {
  const { blockBytes, sessions } = load;
  const channels = Array.from({ length: sessions }, (_, i) => open(load, i + 1, 2));
  const random = new Prng(1);
  const pollfds = new Memory(sessions * POLLFD_BYTES);
  let writeBytes = 0;
  channels.forEach((channel, i) => {
    writeBytes = channel.layOut(0, SLOT.WRITE, WRITE_10, blockBytes);
    channel.layOut(writeBytes, SLOT.SYNC, SYNCHRONIZE_CACHE_10, 0);
    pollfds.view.setInt32(i * POLLFD_BYTES, channel.fd, true);
    pollfds.view.setInt16(i * POLLFD_BYTES + 4, POLLIN, true);
  });
  const blocks = Math.floor((channels[0] as IscsiChannel).diskBytes / blockBytes);
  const startedAt = new Float64Array(sessions);
  const commit = (i: number, nowUs: number): void => {
    const channel = channels[i] as IscsiChannel;
    startedAt[i] = nowUs;
    channel.renew(0, SLOT.WRITE, random.below(blocks) * blockBytes);
    channel.send(0, writeBytes);
  };
  let nowUs = meter.start();
  for (let i = 0; i < sessions; i += 1) commit(i, nowUs);
  while (!meter.over(nowUs)) {
    if (poll(pollfds.address, sessions, POLL_TIMEOUT_MS) === 0) {
      throw new Error('no answer for 30 seconds');
    }
    nowUs = meter.nowUs();
    for (let i = 0; i < sessions; i += 1) {
      if (pollfds.view.getInt16(i * POLLFD_BYTES + 6, true) === 0) continue;
      const channel = channels[i] as IscsiChannel;
      channel.receive();
      const slot = channel.next();
      if (slot === SLOT.WRITE) {
        // LBA 0 and no blocks: all of the disk.
        channel.renew(writeBytes, SLOT.SYNC, 0);
        channel.send(writeBytes, BHS_BYTES);
      } else if (slot === SLOT.SYNC) {
        meter.done(nowUs - (startedAt[i] as number), blockBytes);
        commit(i, nowUs);
      }
    }
  }
  for (const channel of channels) channel.close();
}

function main(): void {
  const { values } = parseArgs({
    options: {
      port: { type: 'string' },
      target: { type: 'string', default: '' },
      lun: { type: 'string', default: '0' },
      mode: { type: 'string', default: 'randread' },
      bs: { type: 'string', default: '4k' },
      depth: { type: 'string', default: '32' },
      sessions: { type: 'string', default: '1' },
      seconds: { type: 'string', default: '2' },
      warmup: { type: 'string', default: '0.3' },
    },
  });
  const meter = new Meter(Number(values.warmup), Number(values.seconds));
  const load: Load = {
    port: Number(values.port),
    target: values.target,
    lun: Number(values.lun),
    mode: values.mode,
    blockBytes: parseSize(values.bs),
    depth: Number(values.depth),
    sessions: Number(values.sessions),
  };
  if (load.mode === 'flush') runCommits(load, meter);
  else if (load.mode === 'randread' || load.mode === 'randwrite') runStream(load, meter);
  else throw new Error(`unknown --mode ${load.mode}`);
  process.stdout.write(`${JSON.stringify({ mode: load.mode, ...meter.result() })}\n`);
}

try {
  main();
} catch (error) {
  process.stderr.write(`load: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
