export type Kind = 'read' | 'write' | 'zeroes' | 'trim' | 'flush' | 'cache' | 'status';

/** What the oracle knows of the connection of a request. */
export interface OracleSession {
  readonly id: number;
  /** Names the client across connections; resumable: it outlives a crash of the host. */
  readonly peerKey: string;
  readonly resumable: boolean;
  /** Whether the client was told that it may flush. */
  flushes: boolean;
  /** The connection was cut by the client at this tick. */
  goneAt: number;
  goArrivedAt: number;
  /** When its first flush arrived. */
  firstFlushAt: number;
  /** Its requests lie in memory that outlives the server: a virtual machine's, with an in-flight region. */
  survives: boolean;
  /** It was told that the write cache is off, and relies on every completed write (P3). */
  believesThrough: boolean;
}

export function newSession(
  facts: Pick<OracleSession, 'id' | 'peerKey' | 'resumable' | 'flushes'>,
): OracleSession {
  return {
    ...facts,
    goneAt: Infinity,
    goArrivedAt: Infinity,
    firstFlushAt: Infinity,
    survives: false,
    believesThrough: false,
  };
}

/** One request of a client. Ticks are the oracle's own count of events: exact, unlike milliseconds. */
export class Op {
  readonly id: number;
  readonly kind: Kind;
  readonly session: OracleSession;
  readonly first: number;
  readonly sectors: number;
  readonly fua: boolean;
  /** Nothing passes it, and it is stable when it completes. */
  barrier = false;
  /** A guest's mutation, which barriers put in order; but not if it is `split`. */
  ordered = false;
  /** It has more parts than go to the store together: some are submitted later, and each counts by itself. */
  split = false;
  /** Its session relied on every completed write when it arrived. */
  through = false;
  /** Of a flush: it covers its sectors alone. `immediate`: it is answered before it is done, and promises nothing. */
  ranged = false;
  immediate = false;
  /** Its data may come long after it: what counts of it is when the last of it was submitted. */
  streamed = false;
  startedAt = Infinity;
  /** When it arrived last: a server process takes up again what its predecessor left. */
  lastArrivedAt = Infinity;
  /** When its header was in the server's memory; Infinity: it never was. */
  arrivedAt = Infinity;
  /** When the server said its answer, or when it can have no effect any more. */
  endedAt = Infinity;
  answered = false;
  error = 0;
  /** It was answered with success, and what it wrote is there for readers until something newer is. */
  definite = false;
  /** A promise was given that a power cut does not take it. */
  guaranteed = false;
  /** Parts of it that the store has done; whether one came to it, or left it, with the write cache on. */
  parts = 0;
  cameLoose = false;
  leftLoose = false;
  /** Where in the order of the media each sector's version is. */
  readonly orders = new Map<number, number>();

  constructor(
    id: number,
    kind: Kind,
    session: OracleSession,
    first: number,
    sectors: number,
    fua: boolean,
  ) {
    this.id = id;
    this.kind = kind;
    this.session = session;
    this.first = first;
    this.sectors = sectors;
    this.fua = fua;
  }

  get mutates(): boolean {
    return this.kind === 'write' || this.kind === 'zeroes' || this.kind === 'trim';
  }

  get zero(): boolean {
    return this.kind !== 'write';
  }

  get text(): string {
    const fua = (this.fua ? '+fua' : '') + (this.barrier ? '+barrier' : '');
    return `${this.kind}${fua} #${this.id} of sectors ${this.first}+${this.sectors} (session ${this.session.id})`;
  }
}
