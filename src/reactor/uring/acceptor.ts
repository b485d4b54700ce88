import { rmSync } from 'node:fs';
import type { Timers } from '../../base/clock.ts';
import { Completion, type Listener, type SocketAddress } from '../reactor.ts';
import { connectError, listenError } from '../socket-error.ts';
import * as sys from '../sys.ts';
import { clearStaleSocket } from '../unix-socket.ts';
import { IORING_OP, type Ring } from './ring.ts';
import type { Scratch } from './scratch.ts';
import * as sockets from './sockets.ts';

const BACKLOG = 128;
const EAGAIN = 11;
const ECANCELED = 125;
const EBADF = 9;
const SOCK_CLOEXEC = 0o2000000;

/** What listening and connecting need of their reactor. */
export interface SocketContext extends Timers {
  readonly ring: Ring;
  readonly scratch: Scratch;
  /** A promise was settled: Node's event loop has to run. */
  returnToNode(): void;
}

class Callback extends Completion {
  readonly #callback: (result: number) => void;
  constructor(callback: (result: number) => void) {
    super();
    this.#callback = callback;
  }
  override complete(result: number): void {
    this.#callback(result);
  }
}

/** Runs one operation as a promise: cold paths. */
function once(
  context: SocketContext,
  op: number,
  fd: number,
  address: number,
  offset: number,
): Promise<number> {
  return new Promise((resolve) => {
    const done = new Callback((result) => {
      context.ring.forget(done);
      context.returnToNode();
      resolve(result);
    });
    context.ring.prepare(done, op, fd, address, 0, offset, 0);
  });
}

/** Listens, and hands out the descriptor of each connection. Rejects with a SocketError. */
export async function acceptOn(
  context: SocketContext,
  address: SocketAddress,
  accepted: (fd: number) => void,
): Promise<Listener> {
  const { ring } = context;
  const { fd, bound } = await bind(context, address);
  const listening = sys.listen(fd, BACKLOG);
  if (listening < 0) {
    sys.close(fd);
    throw listenError(address, sockets.socketError(-listening, 'listen'));
  }
  let open = true;
  let ended: (() => void) | null = null;
  const accept = new Callback((result) => {
    if (result >= 0) {
      if (open) accepted(result);
      else sys.close(result);
    }
    const over = result === -ECANCELED || result === -EBADF;
    if (open && !over) next(result);
    else ended?.();
  });
  const arm = (): void => {
    // It may have been closed while this waited.
    if (open) ring.prepare(accept, IORING_OP.ACCEPT, fd, 0, 0, 0, SOCK_CLOEXEC);
    else ended?.();
  };
  const next = (result: number): void => {
    // Out of descriptors or memory: accepting again at once would spin.
    if (result >= 0 || result === -EAGAIN) arm();
    else context.after(100, arm);
  };
  arm();
  return {
    address: bound,
    close: async () => {
      if (!open) return;
      open = false;
      const finished = new Promise<void>((resolve) => {
        ended = () => {
          context.returnToNode();
          resolve();
        };
      });
      // [io_uring_enter(2)] IORING_OP_ASYNC_CANCEL by user_data: the accept's slot.
      await once(context, IORING_OP.ASYNC_CANCEL, -1, accept.slot, 0);
      await finished;
      ring.forget(accept);
      sys.close(fd);
      if (address.kind === 'unix') rmSync(address.path, { force: true });
    },
  };
}

async function bind(
  context: SocketContext,
  address: SocketAddress,
): Promise<{ fd: number; bound: SocketAddress }> {
  if (address.kind === 'fd') return { fd: address.fd, bound: address };
  if (address.kind === 'unix') await clearStaleSocket(address.path);
  const { family, region, length } = await sockets.sockAddr(address).catch((error: Error) => {
    throw listenError(address, error);
  });
  const fd = sockets.openSocket(family);
  if (address.kind === 'tcp') sockets.reuseAddress(fd, context.scratch.region);
  const result = sys.bind(fd, region, length);
  sys.unmap(region);
  if (result < 0) {
    sys.close(fd);
    throw listenError(address, sockets.socketError(-result, 'bind'));
  }
  if (address.kind === 'unix') return { fd, bound: address };
  return { fd, bound: { ...address, port: sockets.boundPort(fd) ?? address.port } };
}

/** A connected descriptor. Rejects with a SocketError. */
export async function connectTo(context: SocketContext, address: SocketAddress): Promise<number> {
  if (address.kind === 'fd') return address.fd;
  const { family, region, length } = await sockets.sockAddr(address).catch((error: Error) => {
    throw connectError(address, error);
  });
  const fd = sockets.openSocket(family);
  const result = await once(context, IORING_OP.CONNECT, fd, region.address, length);
  sys.unmap(region);
  if (result < 0) {
    sys.close(fd);
    throw connectError(address, sockets.socketError(-result, 'connect'));
  }
  return fd;
}
