import type { Peer } from '../../durability/disk-session.ts';
import { CollectBudget } from './collect-budget.ts';
import type { IscsiTarget, LoginResult } from './node.ts';
import { IscsiSession, portName, type SessionConnection } from './session.ts';
import { MAX_COLLECTED_BYTES, MAX_SESSIONS } from './session-limits.ts';
import { LOGIN_STATUS, type LoginStatus } from './wire.ts';

/** What a login says of the session that it is for. */
export type SessionIdentity = Pick<
  LoginResult,
  'type' | 'initiatorName' | 'isid' | 'tsih' | 'cid' | 'target'
>;

/** All sessions of a node, those that are ending too. */
export class SessionTable {
  /** Data-Out collected by all of them. */
  readonly budget: CollectBudget;
  readonly #all = new Set<IscsiSession>();
  /** The newest session of each initiator port at each target. */
  readonly #byPort = new Map<string, IscsiSession>();
  readonly #limit: number;
  #lastTsih = 0;

  constructor(limit: number = MAX_SESSIONS, collectedBytes: number = MAX_COLLECTED_BYTES) {
    this.#limit = limit;
    this.budget = new CollectBudget(collectedBytes);
  }

  get size(): number {
    return this.#all.size;
  }

  [Symbol.iterator](): IterableIterator<IscsiSession> {
    return this.#all.values();
  }

  /**
   * Whether a login may go on [RFC 7143 6.3.1 and table 11.12.7]: a new session, one that takes the place of
   * another, or a new connection for the one it names.
   */
  admits(identity: SessionIdentity): LoginStatus {
    if (this.#all.size >= this.#limit) return LOGIN_STATUS.OUT_OF_RESOURCES;
    if (identity.tsih === 0) return LOGIN_STATUS.SUCCESS;
    const named = this.#byPort.get(keyOf(identity));
    if (named === undefined || named.tsih !== identity.tsih) {
      return LOGIN_STATUS.SESSION_DOES_NOT_EXIST;
    }
    // Another connection beside the one that is there: MaxConnections is 1. The same again reinstates it.
    return named.login.cid === identity.cid
      ? LOGIN_STATUS.SUCCESS
      : LOGIN_STATUS.TOO_MANY_CONNECTIONS;
  }

  /**
   * The handle for a session that a login is about to begin: that of the session it names, or a new one. Not yet
   * taken: `open` takes it in the same turn.
   */
  tsihFor(identity: SessionIdentity): number {
    if (identity.tsih !== 0) return identity.tsih;
    const taken = new Set([...this.#all].map(({ tsih }) => tsih));
    let next = this.#lastTsih;
    do {
      next = (next % 0xffff) + 1;
    } while (taken.has(next));
    return next;
  }

  /**
   * The login is complete [RFC 7143 6.3.5]: a session of the same initiator port at the same target ends, and when
   * nothing of it is under way any more, the new one's nexus is opened. Its commands wait for that.
   */
  open(login: LoginResult, tsih: number, connection: SessionConnection, peer: Peer): IscsiSession {
    const session = new IscsiSession(this, login, tsih, connection, peer);
    this.#lastTsih = tsih;
    this.#all.add(session);
    if (login.type === 'Discovery') {
      session.open();
      return session;
    }
    const key = keyOf(login);
    const before = this.#byPort.get(key);
    this.#byPort.set(key, session);
    if (before === undefined) {
      session.open();
    } else {
      before.connection.drop('its initiator has logged in again');
      before.end(() => session.open());
    }
    return session;
  }

  /** [RFC 7143 11.5.1] TARGET COLD RESET: all sessions of a target end, but `except`. */
  dropAll(target: IscsiTarget | null, except: IscsiSession, reason: string): void {
    // Those that end at once leave the set, which a loop over it allows.
    for (const session of this.#all) {
      if (session.target === target && session !== except) session.connection.drop(reason);
    }
  }

  /** For IscsiSession. */
  ended(session: IscsiSession): void {
    this.#all.delete(session);
    const key = keyOf(session.login);
    if (this.#byPort.get(key) === session) this.#byPort.delete(key);
  }
}

function keyOf({ initiatorName, isid, target }: SessionIdentity): string {
  return `${portName(initiatorName, isid)}\n${target?.name ?? ''}`;
}
