import { ConfigError } from '../../src/base/errors.ts';
import type { Timer } from '../../src/base/clock.ts';
import type { Prng } from '../../src/base/prng.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import type { Io } from '../../src/block/io.ts';
import { FuseConnection } from '../../src/protocols/fuse/connection.ts';
import { STOP_TIMEOUT_MS } from '../../src/protocols/fuse/limits.ts';
import type { FuseRequest, Part } from '../../src/protocols/fuse/request.ts';
import { type FuseSource, sourceOfDisk } from '../../src/protocols/fuse/source.ts';
import type { SimReactor } from './clock.ts';
import { SimMount } from './fuse-mount.ts';
import { makePrng } from './media.ts';
import type { Oracle } from './oracle.ts';
import type { ServerOptions, SimServer } from './server.ts';

/** A mistake to put into the FUSE side of a server. */
export interface FuseFaults {
  /** In place of `session.submit`, for requests of programs. */
  readonly submit?: (io: Io, request: FuseRequest, submit: (io: Io) => void) => void;
  readonly source?: (source: FuseSource, server: SimServer) => FuseSource;
  /** Who is gone is not looked for. */
  readonly unfenced?: boolean;
}

/** Closing it fails, and nothing else: the device is simulated. */
const NO_FD = -1;

interface Held {
  readonly connection: FuseConnection;
  ending: Timer | null;
}

/** The FUSE face of a simulated server: real connections and sessions over simulated mounts. */
export class FuseServer {
  readonly #server: SimServer;
  readonly #oracle: Oracle;
  readonly #faults: FuseFaults;
  readonly #reactor: SimReactor;
  readonly #prng: Prng;
  readonly #later: (ms: number, callback: () => void) => void;
  readonly #mounts = new Map<SimMount, Held>();
  /** A mount was ended with requests in flight, whose memory comes back when they end. */
  gaveUp = false;
  #allEnded: () => void = () => {};

  constructor(
    server: SimServer,
    options: ServerOptions,
    { oracle, later }: NonNullable<ServerOptions['fuse']>,
  ) {
    this.#server = server;
    this.#oracle = oracle;
    this.#later = later;
    this.#faults = options.faults.fuse ?? {};
    this.#reactor = server.reactor;
    this.#prng = makePrng(options.scenario.seed, 300_000 + options.generation);
  }

  /** As mountDevice. Null: there is no memory left for it. */
  mount(delayMs: number): SimMount | null {
    const mount = new SimMount({
      reactor: this.#reactor,
      prng: this.#prng,
      delayMs,
      later: this.#later,
      fail: (text) => this.#oracle.fail(text),
    });
    const settings = {
      source: this.#source(),
      readOnly: false,
      directIo: true,
      maxReadahead: null,
      mode: 0o600,
      uid: 0,
      gid: 0,
      now: () => this.#reactor.nowMs() / 1000,
    };
    try {
      const connection = new FuseConnection(mount.device, NO_FD, settings, {
        ready: () => {},
        over: (reason) => {
          if (reason !== null) this.#oracle.fail(`a mount is over: ${reason}`);
          this.#end(mount);
        },
      });
      this.#mounts.set(mount, { connection, ending: null });
    } catch (error) {
      if (error instanceof ConfigError) return null;
      throw error;
    }
    mount.init();
    return mount;
  }

  /** As FuseFace.fence. */
  fence(): void {
    if (this.#faults.unfenced === true) return;
    for (const [mount, { connection, ending }] of this.#mounts) {
      if (mount.dead && ending === null) connection.gone();
    }
  }

  /** As FuseFace.cut. */
  cut(mount: SimMount): void {
    const held = this.#mounts.get(mount);
    if (held === undefined || held.ending !== null) return;
    this.#end(mount);
    this.gaveUp = true;
    held.connection.abandon();
  }

  /** As FuseFace.stop. */
  async stop(): Promise<void> {
    if (this.#mounts.size === 0) return;
    const ended = new Promise<void>((resolve) => {
      this.#allEnded = resolve;
    });
    for (const mount of Array.from(this.#mounts.keys())) this.#end(mount);
    await ended;
  }

  /** What is held though nobody is connected: '' for nothing. */
  get leaks(): string {
    return this.#mounts.size === 0 ? '' : `${this.#mounts.size} mounts`;
  }

  #end(mount: SimMount): void {
    const held = this.#mounts.get(mount) as Held;
    if (held.ending !== null) return;
    const { connection } = held;
    held.ending = this.#reactor.after(STOP_TIMEOUT_MS, () => {
      this.gaveUp = true;
      connection.abandon();
    });
    connection.close(() => {
      held.ending?.cancel();
      this.#mounts.delete(mount);
      mount.closed();
      if (this.#mounts.size === 0) this.#allEnded();
    });
  }

  #source(): FuseSource {
    const { submit, source } = this.#faults;
    const made = sourceOfDisk(this.#server.disk, () => this.#server.fence());
    const faulty = source?.(made, this.#server) ?? made;
    if (submit === undefined) return faulty;
    return {
      get sizeBytes() {
        return faulty.sizeBytes;
      },
      get preferredBytes() {
        return faulty.preferredBytes;
      },
      get readOnly() {
        return faulty.readOnly;
      },
      open: (writable, opened) =>
        faulty.open(writable, (file, refused) => {
          if (file === null) opened(null, refused);
          else opened({ device: tapped(file.device, submit), close: () => file.close() }, null);
        }),
    };
  }
}

function tapped(device: BlockDevice, submit: NonNullable<FuseFaults['submit']>): BlockDevice {
  return {
    get info() {
      return device.info;
    },
    submit: (io) => submit(io, (io.context as Part).request, (made) => device.submit(made)),
    close: () => device.close(),
  };
}
