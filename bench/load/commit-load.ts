import { Prng } from '../../src/base/prng.ts';
import { Channel, NBD_CMD, NBD_CMD_FLAG_FUA, REQUEST_BYTES } from './channel.ts';
import { Memory, poll } from './kernel.ts';
import type { Meter } from './meter.ts';

const POLLFD_BYTES = 8;
const POLLIN = 1;
const POLL_TIMEOUT_MS = 30_000;

export interface CommitLoad {
  readonly socket: string;
  readonly exportName: string;
  /** flush: write, wait, flush, wait. fua: one write with FUA, wait. Each is one commit. */
  readonly kind: 'flush' | 'fua';
  readonly blockBytes: number;
  readonly connections: number;
  readonly seed: number;
}

/** Slots name the step, so that a reply says what comes next. */
const SLOT = { WRITE: 0, FLUSH: 1 } as const;

/** Many databases at once: every connection commits one block after the other, as fast as it is answered. */
export function runCommitLoad(load: CommitLoad, meter: Meter): Channel[] {
  const channels: Channel[] = [];
  const random = new Prng(load.seed);
  for (let i = 0; i < load.connections; i += 1) channels.push(openChannel(load));
  const blocks = Math.floor((channels[0]?.exportBytes ?? 0) / load.blockBytes);
  const writeBytes = REQUEST_BYTES + load.blockBytes;
  const startedAt = new Float64Array(load.connections);
  const pollfds = pollSet(channels);
  const startCommit = (index: number, nowUs: number): void => {
    const channel = channels[index] as Channel;
    startedAt[index] = nowUs;
    channel.writeHeader(
      0,
      NBD_CMD.WRITE,
      load.kind === 'fua' ? NBD_CMD_FLAG_FUA : 0,
      SLOT.WRITE,
      random.below(blocks) * load.blockBytes,
      load.blockBytes,
    );
    channel.send(writeBytes);
  };
  let nowUs = meter.start();
  let stopping = false;
  let busy = load.connections;
  for (let i = 0; i < load.connections; i += 1) startCommit(i, nowUs);
  while (busy > 0) {
    if (poll(pollfds.address, load.connections, POLL_TIMEOUT_MS) === 0) {
      throw new Error('no reply for 30 seconds');
    }
    nowUs = meter.nowUs();
    // The books close once; commits still under way are only waited for.
    if (!stopping) stopping = meter.over(nowUs);
    for (let i = 0; i < load.connections; i += 1) {
      if (pollfds.view.getInt16(i * POLLFD_BYTES + 6, true) === 0) continue;
      const channel = channels[i] as Channel;
      channel.receive();
      const slot = channel.next();
      if (slot < 0) continue;
      if (slot === SLOT.WRITE && load.kind === 'flush') {
        channel.writeHeader(0, NBD_CMD.FLUSH, 0, SLOT.FLUSH, 0, 0);
        channel.send(REQUEST_BYTES);
        continue;
      }
      if (!stopping) meter.done(nowUs - (startedAt[i] as number), load.blockBytes);
      if (stopping) busy -= 1;
      else startCommit(i, nowUs);
    }
  }
  return channels;
}

function openChannel(load: CommitLoad): Channel {
  const channel = new Channel(
    load.socket,
    load.exportName,
    REQUEST_BYTES + load.blockBytes,
    4096,
    0,
  );
  for (let i = REQUEST_BYTES; i < channel.out.bytes.length; i += 1) channel.out.bytes[i] = i & 0xff;
  return channel;
}

function pollSet(channels: readonly Channel[]): Memory {
  const memory = new Memory(channels.length * POLLFD_BYTES);
  channels.forEach((channel, i) => {
    memory.view.setInt32(i * POLLFD_BYTES, channel.fd, true);
    memory.view.setInt16(i * POLLFD_BYTES + 4, POLLIN, true);
  });
  return memory;
}
