import { ConfigError } from '../base/errors.ts';
import type { Timer } from '../base/clock.ts';
import type { CutReport, CutRequest } from '../layers/volatile-cache/requests.ts';
import type { VolatileCache } from '../layers/volatile-cache/volatile-cache.ts';
import type { Reactor } from '../reactor/reactor.ts';
import type { Face, OpenDisk } from './faces/face.ts';

export interface PowerSwitchOptions {
  readonly open: OpenDisk;
  readonly cache: VolatileCache;
  readonly faces: Iterable<Face>;
  readonly reactor: Pick<Reactor, 'after'>;
  /** A line that the operator must see. */
  readonly warn: (line: string) => void;
}

/** The power of one disk with a volatile cache: cuts it, and brings it back. */
export class PowerSwitch {
  readonly #options: PowerSwitchOptions;
  /** From a cut until the power is back. */
  #cutting: Promise<CutReport> | null = null;
  #timer: Timer | null = null;
  #stopping = false;

  constructor(options: PowerSwitchOptions) {
    this.#options = options;
  }

  /**
   * Cuts the power now. Resolves when what survives is on the disk; the power is back then, or comes back later, as the
   * request says. Rejects with a ConfigError when it cannot be cut, with a BlockError when the disk fails.
   */
  async cut(request: CutRequest): Promise<CutReport> {
    const { open, cache } = this.#options;
    const { disk, exportName } = open.config;
    if (this.#cutting !== null || this.#stopping) {
      throw new ConfigError(`${disk}: its power is off already`, 'wait until it is back');
    }
    const { health } = cache.domain;
    if (health !== 'well' && health !== 'poisoned') {
      throw new ConfigError(
        `${disk}: its requests are held back after a failed sync`,
        `let it go on first: holdfast resume SOCKET${exportName === '' ? '' : ` ${exportName}`} --yes`,
      );
    }
    const cutting = this.#cutNow(request);
    this.#cutting = cutting;
    try {
      const report = await cutting;
      if (request.offForMs > 0 && !this.#stopping) {
        this.#timer = this.#options.reactor.after(request.offForMs, () => this.#on());
      } else this.#on();
      return report;
    } catch (error) {
      this.#on();
      throw error;
    }
  }

  /** The server stops: whoever waits for the power is let go with the others, so it is on. */
  async stop(): Promise<void> {
    this.#stopping = true;
    // Its outcome is told to whoever asked for it.
    await this.#cutting?.catch(() => undefined);
    this.#timer?.cancel();
    this.#on();
  }

  async #cutNow(request: CutRequest): Promise<CutReport> {
    const { open, cache, faces, warn } = this.#options;
    const { disk, config } = open;
    // In one turn: nothing completes between the cut and the end of the last client.
    const { inFlight } = cache;
    cache.cutPower();
    disk.holdSessions();
    for (const face of faces) face.cut(disk);
    try {
      const survived = await cache.survive(request);
      const report = { export: config.exportName, ...survived, inFlight };
      warn(`${config.disk}: the power was cut: ${JSON.stringify(report)}`);
      return report;
    } finally {
      // What the clients of before had begun has failed by now, and cannot come after the power.
      await disk.whenAllGone();
    }
  }

  #on(): void {
    if (this.#cutting === null) return;
    this.#cutting = null;
    this.#timer = null;
    const { open, cache } = this.#options;
    cache.powerOn();
    // As after any loss of power, the write cache is what the mode says, whatever guests had made of it.
    open.disk.restoreWriteCache(() => {});
    open.disk.handOutSessions();
  }
}
