import { letEventLoopRun } from '../../base/event-loop.ts';
import type { Disk } from '../../durability/disk.ts';
import { NbdConnection, type ConnectionContext } from '../../protocols/nbd/connection.ts';
import { NbdExport } from '../../protocols/nbd/export.ts';
import { formatNbdUri } from '../../protocols/nbd/uri.ts';
import type { Listener, Stream } from '../../reactor/reactor.ts';
import type { NbdListen } from '../config.ts';
import type { Face, FaceContext, Place } from './face.ts';

/** All disks by their export names, at every place alike. */
export class NbdFace implements Face {
  readonly #context: FaceContext;
  readonly #exports = new Map<string, NbdExport>();
  readonly #listeners: Listener[] = [];
  readonly #connections = new Set<NbdConnection>();
  readonly #connectionContext: ConnectionContext;
  #stopping = false;
  #allEnded: () => void = () => {};

  constructor(context: FaceContext) {
    this.#context = context;
    for (const [name, { config, disk }] of context.disks) {
      this.#exports.set(name, new NbdExport(name, config.description, disk));
    }
    const { tls, tlsMode } = context.config;
    this.#connectionContext = {
      reactor: context.reactor,
      exports: this.#exports,
      tlsMode,
      ...(tls === undefined ? {} : { tls }),
      log: context.log,
      fence: (disk) => context.fence(disk),
      ended: (connection) => this.#ended(connection),
    };
  }

  async listen({ address: asked }: NbdListen): Promise<Place> {
    const listener = await this.#context.reactor.listen(asked, (stream) => this.#accept(stream));
    this.#listeners.push(listener);
    const { address } = listener;
    if (address.kind === 'fd') return { address, names: [] };
    const tls = this.#context.config.tlsMode === 'off' ? null : {};
    const names = [...this.#exports.keys()];
    return {
      address,
      names: names.map((exportName) => formatNbdUri({ address, exportName, tls })),
    };
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    for (const listener of this.#listeners.splice(0)) await listener.close();
    if (this.#connections.size === 0) return;
    const ended = new Promise<void>((resolve) => {
      this.#allEnded = resolve;
    });
    for (const connection of this.#connections) connection.shutdown();
    await ended;
  }

  fence(disk: Disk): void {
    for (const served of this.#exports.values()) if (served.disk === disk) served.fenceGone();
  }

  cut(disk: Disk): void {
    for (const served of this.#exports.values()) {
      if (served.disk !== disk) continue;
      for (const connection of served.connections) connection.cut();
    }
  }

  #accept(stream: Stream): void {
    const { log, config } = this.#context;
    if (this.#stopping || this.#connections.size >= config.maxConnections) {
      const why = this.#stopping ? 'the server is stopping' : 'too many connections';
      log(`${stream.peer}: refused: ${why}`);
      stream.close(() => {});
      return;
    }
    this.#connections.add(new NbdConnection(this.#connectionContext, stream));
  }

  #ended(connection: NbdConnection): void {
    this.#connections.delete(connection);
    if (this.#stopping && this.#connections.size === 0) {
      this.#allEnded();
      letEventLoopRun();
    }
  }
}
