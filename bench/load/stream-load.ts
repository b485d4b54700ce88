import { Channel, NBD_CMD, REQUEST_BYTES } from './channel.ts';
import type { Meter } from './meter.ts';

const RECEIVE_BYTES = 256 * 1024;

export interface StreamLoad {
  readonly socket: string;
  readonly exportName: string;
  readonly pattern: 'randread' | 'randwrite' | 'read' | 'write';
  readonly blockBytes: number;
  readonly depth: number;
  readonly seed: number;
}

/** Keeps `depth` requests in flight on one connection until the meter says stop. */
export function runStreamLoad(load: StreamLoad, meter: Meter): Channel {
  const writes = load.pattern.endsWith('write');
  const random = load.pattern.startsWith('rand');
  const { blockBytes, depth } = load;
  const stride = REQUEST_BYTES + (writes ? blockBytes : 0);
  const channel = new Channel(
    load.socket,
    load.exportName,
    stride * depth,
    RECEIVE_BYTES,
    writes ? 0 : blockBytes,
  );
  const blocks = Math.floor(channel.exportBytes / blockBytes);
  layOut(channel, writes, stride, load);
  const free = new Uint32Array(depth).map((_, slot) => slot);
  const sentAt = new Float64Array(depth);
  let freeCount = depth;
  let position = 0;
  let state = load.seed >>> 0 || 1;
  let nowUs = meter.start();
  while (!meter.over(nowUs)) {
    for (let record = 0; record < freeCount; record += 1) {
      // xorshift32 (Marsaglia 2003): the client must not be the bottleneck.
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      const block = random ? (state >>> 0) % blocks : position;
      position = position + 1 === blocks ? 0 : position + 1;
      const slot = free[record] as number;
      sentAt[slot] = nowUs;
      channel.retarget(record * stride, slot, block * blockBytes);
    }
    if (freeCount > 0) channel.send(freeCount * stride);
    channel.receive();
    nowUs = meter.nowUs();
    freeCount = 0;
    for (let slot = channel.next(); slot >= 0; slot = channel.next()) {
      meter.done(nowUs - (sentAt[slot] as number), blockBytes);
      free[freeCount] = slot;
      freeCount += 1;
    }
  }
  drain(channel, depth - freeCount);
  return channel;
}

/** Headers and payloads are written once; only slot and offset change later. Payloads are not zeroes. */
function layOut(channel: Channel, writes: boolean, stride: number, load: StreamLoad): void {
  if (writes) channel.out.bytes.forEach((_, i, bytes) => (bytes[i] = (i * 31 + 7) & 0xff));
  const command = writes ? NBD_CMD.WRITE : NBD_CMD.READ;
  for (let record = 0; record < load.depth; record += 1) {
    channel.writeHeader(record * stride, command, 0, record, 0, load.blockBytes);
  }
}

function drain(channel: Channel, outstanding: number): void {
  let left = outstanding;
  while (left > 0) {
    if (channel.next() >= 0) left -= 1;
    else channel.receive();
  }
}
