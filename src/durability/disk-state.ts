import { messageOf } from '../base/errors.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import type { ResumeGuard } from './disk.ts';
import type { FlushDomainOptions, Recorded } from './flush-domain.ts';
import { readStateFile, type StateRecord, writeStateFile } from './state-file.ts';

/**
 * How long after a host crash a peer from outside still gets its failing flush. A client that has not come back after
 * a day has been rebooted or has given up; without an end, every new peer for ever would meet one failing flush.
 */
const RESUME_WINDOW_MS = 24 * 60 * 60 * 1000;

/** Peers remembered as told. More than any one disk has clients; beyond it the oldest are told a second time. */
const MAX_TOLD = 1024;

/** Writes a record and calls back, once it is stable or has failed. May do so before it returns. */
export type PersistState = (
  path: string,
  record: StateRecord,
  done: (error: Error | null) => void,
) => void;

export interface DiskStateOptions {
  readonly path: string;
  /** Of this boot, see readBootId. */
  readonly bootId: string;
  /** Wall clock, milliseconds since 1970. */
  readonly now: () => number;
  /** One line for the operator. */
  readonly log: (line: string) => void;
  /** Writes on this thread, at once, unless said otherwise. */
  readonly persist?: PersistState;
}

/**
 * What outlives the process, kept for one flush domain (P5, P10). It is written when it has to be: nothing is left
 * behind by a server that only reads, or whose writes are all stable when they complete.
 *
 * A crash of the process loses nothing that was completed, for the host's page cache has it: same boot, nothing
 * fails. A crash of the host (another boot, and not marked clean) loses what was unstable. A client on this host went
 * down with it; one elsewhere may come back and believe that its next flush covers its old writes, so that one fails.
 */
export class DiskState implements ResumeGuard {
  readonly #options: DiskStateOptions;
  readonly #persist: PersistState;
  #record: StateRecord;
  #writing = false;
  /** Whoever waits for the write after the one under way. */
  #waiting: ((error: Error | null) => void)[] = [];
  #changed = false;

  private constructor(options: DiskStateOptions, record: StateRecord) {
    this.#options = options;
    this.#persist = options.persist ?? persistNow;
    this.#record = record;
  }

  /** Reads the state and notices a host crash. Throws a ConfigError if the file is there and cannot be trusted. */
  static open(options: DiskStateOptions): DiskState {
    const { bootId, path, log, now } = options;
    const old = readStateFile(path);
    if (old === null) {
      return new DiskState(options, {
        version: 1,
        bootId,
        clean: true,
        poisoned: null,
        hostCrash: null,
      });
    }
    let { hostCrash } = old;
    const crashed = !old.clean && old.bootId !== bootId;
    if (crashed) {
      hostCrash = { when: new Date(now()).toISOString(), told: [] };
      log(
        'this host went down while writes were unstable: acknowledged writes may be lost, check the disk',
      );
    }
    if (old.poisoned !== null) {
      const { error, when } = old.poisoned;
      log(`a sync failed with ${error} at ${when} and nobody has cleared it: the disk is poisoned`);
    }
    // An unclean record of this boot stays unclean: what it stands for may still be only in the page cache.
    const clean = old.clean || crashed;
    return new DiskState(options, { ...old, bootId, clean, hostCrash });
  }

  /** What a failed sync said, or null. For FlushDomain.restorePoison at open. */
  get poisoned(): BlockErrorCode | null {
    return this.#record.poisoned === null ? null : 'EIO';
  }

  get record(): StateRecord {
    return this.#record;
  }

  /** What a flush domain is made with so that this state is kept. */
  get hooks(): Pick<FlushDomainOptions, 'onFirstVolatile' | 'onPoisoned' | 'onResumed'> {
    return {
      onFirstVolatile: (recorded) => this.firstVolatile(recorded),
      onPoisoned: (error, recorded) => this.syncFailed(error, recorded),
      onResumed: () => this.resumed(),
    };
  }

  /** Before the first acknowledgement of something unstable. `recorded(null)` when a crash would be noticed. */
  firstVolatile(recorded: Recorded): void {
    if (!this.#record.clean && !this.#changed && !this.#writing) {
      recorded(null);
      return;
    }
    this.#update({ clean: false }, (error) => {
      if (error !== null) this.#cannotWrite(error, 'writes fail until it can be written');
      recorded(error === null ? null : 'EIO');
    });
  }

  /** P5: a failed sync is on record before anyone is told, where the record can be written at all. */
  syncFailed(error: BlockErrorCode, recorded: Recorded): void {
    const when = new Date(this.#options.now()).toISOString();
    this.#options.log(`a sync failed with ${error}: acknowledged writes may be lost`);
    this.#update({ poisoned: { error, when } }, (failure) => {
      if (failure !== null)
        this.#cannotWrite(failure, 'a restart will not know of the failed sync');
      recorded(failure === null ? null : 'EIO');
    });
  }

  /** An operator cleared the poison of a running server. */
  resumed(): void {
    this.#update({ poisoned: null }, (error) => {
      if (error !== null) this.#cannotWrite(error, 'after a restart the disk is poisoned again');
    });
  }

  /**
   * A clean stop: everything is stable (FlushDomain.clean after drain and flush). Calls back when that is recorded;
   * does nothing if there was nothing to record.
   */
  markClean(done: (error: Error | null) => void): void {
    if (this.#record.clean && !this.#changed && !this.#writing) done(null);
    else this.#update({ clean: true }, done);
  }

  hasLost(key: string): boolean {
    const { hostCrash } = this.#record;
    if (hostCrash === null || hostCrash.told.includes(key)) return false;
    return this.#options.now() - Date.parse(hostCrash.when) <= RESUME_WINDOW_MS;
  }

  told(key: string): void {
    const { hostCrash } = this.#record;
    if (hostCrash === null) return;
    const told = [...hostCrash.told, key].slice(-MAX_TOLD);
    this.#update({ hostCrash: { ...hostCrash, told } }, (error) => {
      if (error !== null) this.#cannotWrite(error, `${key} may be told again after a restart`);
    });
  }

  #cannotWrite(error: Error, consequence: string): void {
    this.#options.log(
      `cannot write the state file ${this.#options.path} (${messageOf(error)}): ${consequence}`,
    );
  }

  /** One write at a time; changes made meanwhile go together in the next. */
  #update(change: Partial<StateRecord>, done: (error: Error | null) => void): void {
    this.#record = { ...this.#record, ...change };
    this.#changed = true;
    this.#waiting.push(done);
    this.#write();
  }

  #write(): void {
    if (this.#writing || this.#waiting.length === 0) return;
    this.#writing = true;
    const told = this.#waiting;
    this.#waiting = [];
    this.#changed = false;
    this.#persist(this.#options.path, this.#record, (error) => {
      this.#writing = false;
      if (error !== null) this.#changed = true;
      for (const done of told) done(error);
      this.#write();
    });
  }
}

function persistNow(path: string, record: StateRecord, done: (error: Error | null) => void): void {
  let failure: Error | null = null;
  try {
    writeStateFile(path, record);
  } catch (error) {
    failure = error instanceof Error ? error : new Error(messageOf(error));
  }
  done(failure);
}
