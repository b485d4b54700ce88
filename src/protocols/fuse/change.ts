import { FLAG, OP } from '../../block/io.ts';
import type { Page } from '../../reactor/page-pool.ts';
import type { OpenFile, FuseRequest, Part } from './request.ts';
import { FALLOC, FUSE_OP } from './wire.ts';

// Changes of the file: WRITE, and FALLOCATE that makes zeroes. Where the device has blocks, a part of a block at either end
// is read, changed and written back; what lies between goes as it is. One after the other: these are odd requests, made
// by programs that do not know the device.

const STEP = { HEAD: 0, HEAD_READ: 1, MIDDLE: 2, TAIL: 3, TAIL_READ: 4, DONE: 5 } as const;

/** What a change needs of its session. */
export interface ChangeHost {
  take(request: FuseRequest): Part;
  /** To the device of the request. `pending` has been counted. */
  submit(part: Part): void;
}

function blockOf(request: FuseRequest): number {
  return (request.open as OpenFile).file.device.info.blockBytes;
}

/** Sets up what the gate looks at. True: the change has parts of blocks, and needs a block of memory (`hold`, last). */
export function prepareChange(request: FuseRequest): boolean {
  const block = blockOf(request);
  const end = request.offset + request.length;
  request.step = STEP.HEAD;
  request.gateStart = down(request.offset, block);
  request.gateEnd = down(end + block - 1, block);
  request.gateAlone = request.gateStart !== request.offset || request.gateEnd !== end;
  return request.gateAlone;
}

/** Goes on: at the start, and whenever `pending` has come to 0 without an error. True: all is done. */
export function continueChange(request: FuseRequest, host: ChangeHost): boolean {
  const block = blockOf(request);
  const { offset } = request;
  const end = offset + request.length;
  const middle = down(offset + block - 1, block);
  const middleEnd = down(end, block);
  for (;;) {
    const { step } = request;
    request.step += 1;
    switch (step) {
      case STEP.HEAD:
        if (middle !== offset) return readBlock(request, host, middle - block, block);
        request.step = STEP.MIDDLE;
        break;
      case STEP.HEAD_READ:
        return writeBlock(request, host, middle - block, block);
      case STEP.MIDDLE:
        if (middleEnd > middle) return changeBlocks(request, host, middle, middleEnd);
        break;
      case STEP.TAIL:
        // A change inside of one block was all head.
        if (middleEnd !== end && middleEnd >= middle) {
          return readBlock(request, host, middleEnd, block);
        }
        request.step = STEP.DONE;
        break;
      case STEP.TAIL_READ:
        return writeBlock(request, host, middleEnd, block);
      default:
        return true;
    }
  }
}

function changeBlocks(request: FuseRequest, host: ChangeHost, start: number, end: number): false {
  if (request.opcode !== FUSE_OP.WRITE) {
    const part = host.take(request);
    // [fallocate(2)] ZERO_RANGE keeps or takes the space, PUNCH_HOLE gives it back.
    const hole = (request.mode & FALLOC.PUNCH_HOLE) !== 0 ? 0 : FLAG.NO_HOLE;
    part.io.reset(OP.WRITE_ZEROES, start, end - start, request.ioFlags | hole);
    request.pending = 1;
    host.submit(part);
    return false;
  }
  const { chunkBytes } = request.open as OpenFile;
  const { region } = request.pages[0] as Page;
  const payload = (request.starts[0] as number) + start - request.offset;
  request.pending = Math.ceil((end - start) / chunkBytes);
  for (let at = start; at < end; at += chunkBytes) {
    const part = host.take(request);
    const length = Math.min(chunkBytes, end - at);
    part.io.reset(OP.WRITE, at, length, request.ioFlags);
    part.io.segments.push(region, payload + at - start, length);
    host.submit(part);
  }
  return false;
}

/** The block of memory for a part of a block: the last that was held. */
function readBlock(request: FuseRequest, host: ChangeHost, at: number, block: number): false {
  const last = request.pageCount - 1;
  const part = host.take(request);
  part.io.reset(OP.READ, at, block, 0);
  part.io.segments.push(
    (request.pages[last] as Page).region,
    request.starts[last] as number,
    block,
  );
  request.pending = 1;
  host.submit(part);
  return false;
}

function writeBlock(request: FuseRequest, host: ChangeHost, at: number, block: number): false {
  const last = request.pageCount - 1;
  const { region } = request.pages[last] as Page;
  const start = request.starts[last] as number;
  const from = Math.max(request.offset, at);
  const to = Math.min(request.offset + request.length, at + block);
  if (request.opcode === FUSE_OP.WRITE) {
    const payload = (request.starts[0] as number) + from - request.offset;
    const bytes = (request.pages[0] as Page).region.bytes.subarray(payload, payload + to - from);
    region.bytes.set(bytes, start + from - at);
  } else {
    region.bytes.fill(0, start + from - at, start + to - at);
  }
  const part = host.take(request);
  part.io.reset(OP.WRITE, at, block, request.ioFlags);
  part.io.segments.push(region, start, block);
  request.pending = 1;
  host.submit(part);
  return false;
}

/** To a multiple of a power of two, without the 32 bit limit of `&`. */
export function down(value: number, unit: number): number {
  return value - (value % unit);
}
