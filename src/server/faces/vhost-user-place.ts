import type { Timer } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { VhostUserBackend } from '../../protocols/vhost-user/backend.ts';
import type { VirtioDevice } from '../../protocols/virtio/device.ts';
import type { Listener } from '../../reactor/reactor.ts';
import type { DescriptorSocket, DescriptorSocketOwner, Sharing } from '../../reactor/sharing.ts';
import type { FaceContext } from './face.ts';

/** A successor may come before the end of its predecessor is seen: a QEMU that was killed and started again. */
const SUCCESSION_MS = 1_000;
/** Between two attempts to connect; a front-end is started by people or their tools. */
const RECONNECT_FIRST_MS = 100;
const RECONNECT_MOST_MS = 5_000;
/** A front-end that stayed this long was no failed start: its successor is looked for at once. */
const STAYED_MS = 1_000;
/** What is in flight at the end gets as long as an NBD client's last answers. */
const STOP_MS = 5_000;

export interface VhostUserPlaceOptions {
  /** For messages: "vhost-user-blk:/run/x.sock". */
  readonly name: string;
  readonly context: FaceContext;
  readonly sharing: Sharing;
  /** A new one for each front-end. */
  readonly makeDevice: () => VirtioDevice;
}

/** One socket of one device. It has one front-end at a time: a ring can have one reader only. */
export class VhostUserPlace {
  readonly #options: VhostUserPlaceOptions;
  #listener: Listener | null = null;
  /** Where to connect to, when that is asked for. */
  #target: string | null = null;
  #backend: VhostUserBackend | null = null;
  #sinceMs = 0;
  /** A front-end that waits for the end of the other. It is not listened to, and waits for our first answer. */
  #next: DescriptorSocket | null = null;
  #delayMs = RECONNECT_FIRST_MS;
  #timer: Timer | null = null;
  /** Whether the operator has been told that nobody listens. */
  #toldAbsent = false;
  #stopping = false;
  #stopped: () => void = () => {};

  constructor(options: VhostUserPlaceOptions) {
    this.#options = options;
  }

  /** Rejects with a ConfigError when the path cannot be had. */
  async listen(path: string): Promise<void> {
    this.#listener = await this.#options.sharing.listen(path, (socket) => this.#accept(socket));
  }

  /** Connects to a front-end that listens, and again whenever it has gone. */
  connect(path: string): void {
    this.#target = path;
    this.#tryConnect();
  }

  /** The other end of the descriptor is the only front-end there will be. */
  adopt(fd: number): void {
    this.#serve(this.#options.sharing.adopt(fd, `fd ${fd}`));
  }

  /** Ends the front-end if it is gone (P11). */
  endIfGone(): void {
    this.#backend?.endIfGone();
  }

  /** Ends the front-end, and answers it nothing more: the disk's power is cut. */
  cut(): void {
    this.#backend?.cut();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#timer?.cancel();
    this.#dismiss('the server is stopping');
    await this.#listener?.close();
    const backend = this.#backend;
    if (backend === null) return;
    const { reactor, warn } = this.#options.context;
    const ended = new Promise<void>((resolve) => {
      this.#stopped = () => {
        resolve();
        letEventLoopRun();
      };
    });
    const limit = reactor.after(STOP_MS, () => {
      warn(`${this.#options.name}: requests are still in flight; the disk is closed without them`);
      this.#stopped();
    });
    backend.shutdown();
    await ended;
    limit.cancel();
  }

  #accept(socket: DescriptorSocket): void {
    // While a message of it waits, its end is not seen otherwise.
    this.#backend?.endIfGone();
    if (this.#stopping) refuse(socket);
    else if (this.#backend === null) this.#serve(socket);
    else if (this.#next !== null) this.#refuse(socket, 'another front-end is connected');
    else {
      this.#next = socket;
      socket.pause(true);
      socket.owner = { received: () => {}, ended: () => this.#forget(socket) };
      this.#awaitSuccession(socket);
    }
  }

  /** A front-end that is gone has no claim to its place; but what it left in flight ends first, and may take long. */
  #awaitSuccession(next: DescriptorSocket, told = false): void {
    const { reactor, log } = this.#options.context;
    this.#timer = reactor.after(SUCCESSION_MS, () => {
      this.#backend?.endIfGone();
      if (this.#next !== next) return;
      if (this.#backend?.ending !== true) {
        this.#dismiss('another front-end is connected');
        return;
      }
      if (!told)
        log(`${next.peer}: waits: requests of the front-end before it are still in flight`);
      this.#awaitSuccession(next, true);
    });
  }

  #serve(socket: DescriptorSocket): void {
    const { context, sharing, makeDevice } = this.#options;
    this.#sinceMs = context.reactor.nowMs();
    this.#backend = new VhostUserBackend(
      {
        device: makeDevice(),
        sharing,
        defer: (callback) => context.reactor.defer(callback),
        log: (line) => context.log(line),
        ended: () => this.#ended(),
      },
      socket,
    );
  }

  #ended(): void {
    this.#backend = null;
    if (this.#stopping) {
      this.#stopped();
    } else if (this.#target !== null) {
      const stayedMs = this.#options.context.reactor.nowMs() - this.#sinceMs;
      if (stayedMs >= STAYED_MS) this.#delayMs = RECONNECT_FIRST_MS;
      this.#tryLater();
    } else if (this.#next !== null) {
      const next = this.#next;
      this.#forget(next);
      this.#serve(next);
      next.pause(false);
    } else if (this.#listener === null) {
      this.#options.context.placeOver();
    }
  }

  #dismiss(why: string): void {
    const next = this.#next;
    if (next === null) return;
    this.#forget(next);
    this.#refuse(next, why);
  }

  #forget(next: DescriptorSocket): void {
    if (this.#next !== next) return;
    this.#next = null;
    this.#timer?.cancel();
  }

  #refuse(socket: DescriptorSocket, why: string): void {
    this.#options.context.log(`${socket.peer}: refused: ${why}`);
    refuse(socket);
  }

  #tryLater(): void {
    this.#timer = this.#options.context.reactor.after(this.#delayMs, () => this.#tryConnect());
    this.#delayMs = Math.min(this.#delayMs * 2, RECONNECT_MOST_MS);
  }

  #tryConnect(): void {
    const { sharing, context, name } = this.#options;
    sharing.connect(this.#target as string).then(
      (socket) => {
        this.#toldAbsent = false;
        if (this.#stopping) refuse(socket);
        else this.#serve(socket);
      },
      (error: unknown) => {
        if (this.#stopping) return;
        if (!this.#toldAbsent) context.warn(`${name}: waits for a front-end: ${messageOf(error)}`);
        this.#toldAbsent = true;
        this.#tryLater();
      },
    );
  }
}

function refuse(socket: DescriptorSocket): void {
  socket.owner = NOBODY;
  socket.close();
}

/** Of a socket that is closed in the same turn: nothing is called. */
const NOBODY: DescriptorSocketOwner = { received: () => {}, ended: () => {} };
