import { EXTENT } from '../../block/extents.ts';
import { FLAG, type Io, OP } from '../../block/io.ts';
import { down } from './change.ts';
import type { OpenFile, FuseRequest } from './request.ts';
import { FUSE_OP, SEEK } from './wire.ts';

// Requests that are answered from the device's extents: LSEEK, and FALLOCATE that asks for space. An EXTENTS request may
// answer less than it was asked for, so both go on from where the answer ended.

/** What a walk has found: it goes on, came to its end, or is decided before. */
export type WalkState = 'on' | 'end' | 'found';

/** Sets `io` up for the next look. */
export function lookOn(request: FuseRequest, io: Io): void {
  const { blockBytes } = (request.open as OpenFile).file.device.info;
  const start = down(request.at, blockBytes);
  const end = down(request.offset + request.length + blockBytes - 1, blockBytes);
  io.reset(OP.EXTENTS, start, end - start, request.opcode === FUSE_OP.LSEEK ? FLAG.ONE : 0);
}

/** Takes the answer in. `request.at` is where the walk has come to, or what it has found. */
export function looked(request: FuseRequest, io: Io): WalkState {
  const { extents } = io;
  let end = io.offset;
  for (let i = 0; i < extents.count; i += 1) {
    const flags = extents.flags[i] as number;
    if (stops(request, flags)) {
      request.at = Math.max(request.at, end);
      return 'found';
    }
    end += extents.lengths[i] as number;
  }
  request.at = end;
  return end >= request.offset + request.length ? 'end' : 'on';
}

function stops(request: FuseRequest, flags: number): boolean {
  if (request.opcode !== FUSE_OP.LSEEK) return (flags & EXTENT.HOLE) !== 0;
  // [lseek(2)] a hole reads as zeroes; space that is not allocated and reads otherwise must be called data.
  return ((flags & EXTENT.ZERO) !== 0) === (request.mode === SEEK.HOLE);
}
