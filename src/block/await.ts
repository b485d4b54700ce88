import { letEventLoopRun } from '../base/event-loop.ts';
import { checkIo } from './check.ts';
import type { BlockDevice } from './device.ts';
import { BlockError } from './errors.ts';
import type { ExtentList } from './extents.ts';
import { Io, OP, type Op, opName } from './io.ts';
import { Region } from './memory.ts';

// For cold paths, plugins and tests: one allocation of everything per request, checked, and awaitable.

/** Reads `length` bytes (at most maxTransferBytes) at byte `offset`. Rejects with a BlockError. */
export async function read(
  device: BlockDevice,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const io = await perform(device, OP.READ, offset, length, 0, new Uint8Array(length));
  return io.segments.count === 0 ? new Uint8Array(0) : io.segments.bytesAt(0);
}

/** Writes all of `bytes` at byte `offset`. */
export async function write(
  device: BlockDevice,
  offset: number,
  bytes: Uint8Array,
  flags = 0,
): Promise<void> {
  await perform(device, OP.WRITE, offset, bytes.length, flags, bytes);
}

export async function flush(device: BlockDevice): Promise<void> {
  await perform(device, OP.FLUSH, 0, 0, 0);
}

export async function discard(
  device: BlockDevice,
  offset: number,
  length: number,
  flags = 0,
): Promise<void> {
  await perform(device, OP.DISCARD, offset, length, flags);
}

export async function writeZeroes(
  device: BlockDevice,
  offset: number,
  length: number,
  flags = 0,
): Promise<void> {
  await perform(device, OP.WRITE_ZEROES, offset, length, flags);
}

export async function extents(
  device: BlockDevice,
  offset: number,
  length: number,
  flags = 0,
): Promise<ExtentList> {
  return (await perform(device, OP.EXTENTS, offset, length, flags)).extents;
}

/** Submits one request and resolves with its Io, or rejects with a BlockError that says what failed where. */
export function perform(
  device: BlockDevice,
  op: Op,
  offset: number,
  length: number,
  flags = 0,
  bytes?: Uint8Array,
): Promise<Io> {
  const io = new Io();
  io.reset(op, offset, length, flags);
  if (bytes !== undefined && length > 0) io.segments.push(Region.plain(bytes), 0, length);
  return new Promise((resolve, reject) => {
    io.push({
      ioDone(done: Io): void {
        letEventLoopRun();
        if (done.error === null) resolve(done);
        else reject(new BlockError(done.error, describe(device, done)));
      },
    });
    const refused = checkIo(io, device.info);
    if (refused === null) device.submit(io);
    else io.complete(refused);
  });
}

function describe(device: BlockDevice, io: Io): string {
  return `${device.info.name}: ${opName(io.op)} of ${io.length} bytes at ${io.offset} failed: ${io.error ?? ''}`;
}
