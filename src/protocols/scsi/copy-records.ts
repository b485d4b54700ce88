import type { Nexus } from './nexus.ts';

/** What became of an EXTENDED COPY, for RECEIVE COPY RESULTS [SPC-4 6.20]. */
export interface CopyRecord {
  readonly listId: number;
  /** It is not kept when it is done well. */
  readonly discards: boolean;
  status: 'under way' | 'done' | 'failed';
  segments: number;
  bytes: number;
  /** With 'failed': the sense data of the command. */
  sense: Uint8Array;
}

/** The most results kept for one nexus; the oldest goes when there is another [SPC-4 6.20.1]. */
const MOST_KEPT = 16;

/** The copies of one logical unit that is their copy manager, by nexus and list identifier. */
export class CopyRecords {
  readonly #records = new Map<Nexus, Map<number, CopyRecord>>();
  /** Copies under way, with list identifiers and without. */
  running = 0;

  find(nexus: Nexus, listId: number): CopyRecord | null {
    return this.#records.get(nexus)?.get(listId) ?? null;
  }

  /** Keeps a new record, in place of an older one with its identifier. */
  keep(nexus: Nexus, record: CopyRecord): void {
    const records = this.#records.get(nexus) ?? new Map<number, CopyRecord>();
    this.#records.set(nexus, records);
    records.delete(record.listId);
    for (const [listId, { status }] of records) {
      if (records.size < MOST_KEPT) break;
      if (status !== 'under way') records.delete(listId);
    }
    records.set(record.listId, record);
  }

  forget(nexus: Nexus, listId: number): void {
    this.#records.get(nexus)?.delete(listId);
  }

  /** I_T nexus loss. */
  close(nexus: Nexus): void {
    this.#records.delete(nexus);
  }

  /** Logical unit reset. */
  clear(): void {
    this.#records.clear();
  }
}
