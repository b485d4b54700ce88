import { randomBytes } from 'node:crypto';
import { ConfigError, messageOf } from '../../../base/errors.ts';
import { letEventLoopRun } from '../../../base/event-loop.ts';
import { Region, Segments } from '../../../block/memory.ts';
import type { Reactor, Stream, StreamOwner } from '../../../reactor/reactor.ts';
import type { IscsiUri } from '../uri.ts';
import { formatIscsiUri } from '../uri.ts';
import { LOGIN_STATUS, LOGOUT_REASON } from '../wire.ts';
import { type CommandResult, IscsiInitiator } from './initiator.ts';

/** For connection, login and each command. */
const TIMEOUT_MS = 10_000;
const RECEIVE_BYTES = 64 * 1024;
const INITIATOR_NAME = 'iqn.2026-11.local.holdfast:info';
const KEYS = { HeaderDigest: 'None', DataDigest: 'None', MaxRecvDataSegmentLength: '65536' };
/** [SAM-5 5.3.1] */
const GOOD = 0x00;
const CHECK_CONDITION = 0x02;
/** A unit has fewer things to say to an initiator that is new to it. */
const ATTENTIONS = 10;

/**
 * Logs in at a target and asks one logical unit a few things, one after the other. Without CHAP: a target that wants it
 * refuses. Errors are ConfigErrors that name the URI.
 */
export class IscsiQuestions implements StreamOwner {
  readonly #reactor: Reactor;
  readonly #uri: IscsiUri;
  readonly #stream: Stream;
  readonly #initiator: IscsiInitiator;
  readonly #in = Region.plain(RECEIVE_BYTES);
  readonly #out: Uint8Array[] = [];
  readonly #segments = new Segments();
  #sending = false;
  #failed: ConfigError | null = null;
  #wake: () => void = () => {};

  private constructor(reactor: Reactor, uri: IscsiUri, stream: Stream) {
    this.#reactor = reactor;
    this.#uri = uri;
    this.#stream = stream;
    this.#initiator = new IscsiInitiator(
      {
        send: (bytes) => {
          this.#out.push(bytes);
          this.#send();
        },
      },
      {
        initiatorName: INITIATOR_NAME,
        // [RFC 7143 11.12.5] Random: nobody else's session is taken over.
        isid: Uint8Array.from([0x80, ...randomBytes(5)]),
        targetName: uri.target,
        keys: KEYS,
      },
    );
    stream.owner = this;
  }

  static async open(reactor: Reactor, uri: IscsiUri): Promise<IscsiQuestions> {
    let stream: Stream;
    try {
      stream = await reactor.connect({ kind: 'tcp', host: uri.host, port: uri.port });
    } catch (error) {
      throw new ConfigError(
        `${formatIscsiUri(uri)}: cannot connect: ${messageOf(error)}`,
        'is the server running, and is this its address?',
        { cause: error },
      );
    }
    const questions = new IscsiQuestions(reactor, uri, stream);
    try {
      stream.receive(questions.#in, 0, RECEIVE_BYTES);
      await questions.#logIn();
      return questions;
    } catch (error) {
      await questions.#close();
      throw error;
    }
  }

  /** Data-In of a command, at most `bytes`; null: the unit refuses it. */
  async ask(cdb: readonly number[], bytes: number): Promise<Uint8Array | null> {
    for (let i = 0; i < ATTENTIONS; i += 1) {
      const { status, data, sense } = await this.#await<CommandResult>((done) => {
        const { lun } = this.#uri;
        this.#initiator.command({ cdb: Uint8Array.from(cdb), read: bytes, lun }, done);
      });
      if (status === GOOD) return data;
      // Its first commands are told of resets and changes.
      const attention = status === CHECK_CONDITION && ((sense[2] ?? 0) & 0x0f) === 6;
      if (!attention) return null;
    }
    return null;
  }

  async close(): Promise<void> {
    await this.#await<number>((done) =>
      this.#initiator.logout(LOGOUT_REASON.CLOSE_SESSION, done),
    ).catch(() => {});
    await this.#close();
  }

  received(count: number): void {
    if (count <= 0) {
      this.#fail('the server closed the connection');
      return;
    }
    try {
      this.#initiator.receive(this.#in.bytes.slice(0, count));
    } catch (error) {
      // The initiator asserts what a target must do.
      this.#fail(`the server broke the protocol: ${messageOf(error)}`);
      return;
    }
    this.#stream.receive(this.#in, 0, RECEIVE_BYTES);
  }

  sent(result: number): void {
    this.#sending = false;
    if (result < 0) this.#fail('the connection broke');
    else this.#send();
  }

  #send(): void {
    if (this.#sending || this.#failed !== null || this.#out.length === 0) return;
    this.#sending = true;
    this.#segments.clear();
    const bytes = this.#out.shift() as Uint8Array;
    this.#segments.push(Region.plain(bytes), 0, bytes.length);
    this.#stream.send(this.#segments);
  }

  async #logIn(): Promise<void> {
    const status = await this.#await<number>((done) => this.#initiator.login(done));
    if (status === LOGIN_STATUS.SUCCESS && this.#initiator.loggedIn) return;
    const [why, hint] = refusal(status);
    throw new ConfigError(`${formatIscsiUri(this.#uri)}: ${why}`, hint);
  }

  /** Begins something, and waits for its answer. */
  async #await<T>(begin: (done: (answer: T) => void) => void): Promise<T> {
    const answers: T[] = [];
    let late = false;
    const timer = this.#reactor.after(TIMEOUT_MS, () => {
      late = true;
      this.#fail('no answer within 10 seconds');
    });
    await new Promise<void>((resolve) => {
      this.#wake = () => {
        resolve();
        letEventLoopRun();
      };
      if (this.#failed === null) {
        begin((answer) => {
          answers.push(answer);
          this.#wake();
        });
      } else resolve();
    });
    if (!late) timer.cancel();
    if (answers.length === 0) throw this.#failed as ConfigError;
    return answers[0] as T;
  }

  #fail(why: string): void {
    this.#failed ??= new ConfigError(
      `${formatIscsiUri(this.#uri)}: ${why}`,
      'is it an iSCSI server?',
    );
    this.#wake();
  }

  #close(): Promise<void> {
    this.#failed ??= new ConfigError('closed', '');
    return new Promise((resolve) => {
      this.#stream.close(() => {
        resolve();
        letEventLoopRun();
      });
    });
  }
}

/** What a login that did not succeed means, and what to do. */
function refusal(status: number): readonly [string, string] {
  switch (status) {
    case LOGIN_STATUS.SUCCESS:
    case LOGIN_STATUS.AUTHENTICATION_FAILURE:
      return ['the target asks for CHAP', 'ask it with iscsi-inq, which can prove a secret'];
    case LOGIN_STATUS.AUTHORIZATION_FAILURE:
      return [
        'this initiator may not log in',
        `its name is ${INITIATOR_NAME}; the server must list it`,
      ];
    case LOGIN_STATUS.NOT_FOUND:
      return ['there is no such target', 'ask the server which there are with iscsi-ls'];
    case LOGIN_STATUS.SERVICE_UNAVAILABLE:
    case LOGIN_STATUS.OUT_OF_RESOURCES:
      return ['the server takes no more sessions now', 'try again later'];
    default:
      return [`the login failed with status 0x${status.toString(16).padStart(4, '0')}`, ''];
  }
}
