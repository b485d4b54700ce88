import { TextResponder } from './discovery.ts';
import type { IscsiNode } from './node.ts';
import { type PduSender, STAT_SN } from './pdu-sender.ts';
import type { IscsiSession } from './session.ts';
import {
  FIELD,
  flagsOf,
  initiatorTaskTag,
  LOGOUT_REASON,
  LOGOUT_RESPONSE,
  REJECT,
  RESERVED_TAG,
  writeLogoutResponse,
  writeNopIn,
  writeTextResponse,
} from './wire.ts';

export interface RequestsHost {
  reject(reason: number, header: DataView): void;
  /** Nothing more is taken in. */
  stop(): void;
  /** All is said: the connection ends. */
  leave(): void;
}

/** NOP-Out, Text and Logout requests. */
export class Requests {
  readonly #session: IscsiSession;
  readonly #sender: PduSender;
  readonly #host: RequestsHost;
  readonly #text: TextResponder;
  #gone = false;
  /** Logouts under way. */
  count = 0;

  constructor(session: IscsiSession, sender: PduSender, node: IscsiNode, host: RequestsHost) {
    // Where the initiator has come we do not know: it does.
    this.#text = new TextResponder(node, session.login, '');
    this.#session = session;
    this.#sender = sender;
    this.#host = host;
  }

  /** The connection is gone: nobody is answered any more. */
  dispose(): void {
    this.#gone = true;
  }

  /**
   * [RFC 7143 11.18] A ping is answered with its data, as much as fits the initiator's PDUs; an answer to ours ends
   * here.
   */
  nopOut(header: DataView, data: Uint8Array): void {
    const itt = initiatorTaskTag(header, 0);
    if (itt === RESERVED_TAG) return;
    const sender = this.#sender;
    const echo = data.subarray(0, this.#session.sendSegmentBytes);
    sender.open(echo.length);
    writeNopIn(sender.view, sender.at, itt, RESERVED_TAG, echo.length);
    sender.bytes.set(echo, sender.dataAt);
    sender.close(STAT_SN.OWN);
  }

  /** [RFC 7143 11.10] */
  text(header: DataView, data: Uint8Array): void {
    const answer = this.#text.request(header, data);
    this.#session.sendSegmentBytes = this.#text.sendSegmentBytes;
    if (typeof answer === 'number') {
      this.#host.reject(answer, header);
      return;
    }
    const sender = this.#sender;
    const { length } = answer.data;
    sender.open(length);
    const itt = initiatorTaskTag(header, 0);
    writeTextResponse(sender.view, sender.at, itt, answer.ttt, answer.flags, length);
    sender.bytes.set(answer.data, sender.dataAt);
    sender.close(STAT_SN.OWN);
  }

  /** [RFC 7143 11.14] */
  logout(header: DataView): void {
    const itt = initiatorTaskTag(header, 0);
    const reason = flagsOf(header, 0) & 0x7f;
    const cid = header.getUint16(FIELD.CID);
    if (reason > LOGOUT_REASON.REMOVE_CONNECTION_FOR_RECOVERY) {
      this.#host.reject(REJECT.INVALID_PDU_FIELD, header);
    } else if (reason === LOGOUT_REASON.REMOVE_CONNECTION_FOR_RECOVERY) {
      // [RFC 7143 11.15.1] Only from error recovery level 2 on.
      this.#answerLogout(itt, LOGOUT_RESPONSE.RECOVERY_NOT_SUPPORTED);
    } else if (reason === LOGOUT_REASON.CLOSE_CONNECTION && cid !== this.#session.login.cid) {
      this.#answerLogout(itt, LOGOUT_RESPONSE.CID_NOT_FOUND);
    } else {
      // The session has one connection: closing that closes the session.
      this.count += 1;
      this.#host.stop();
      this.#session.end(() => {
        this.count -= 1;
        if (this.#gone) return;
        this.#answerLogout(itt, LOGOUT_RESPONSE.CLOSED);
        this.#host.leave();
      });
    }
  }

  #answerLogout(itt: number, response: number): void {
    const { defaultTime2Wait, defaultTime2Retain } = this.#session.parameters;
    const sender = this.#sender;
    sender.open(0);
    writeLogoutResponse(
      sender.view,
      sender.at,
      itt,
      response,
      response === LOGOUT_RESPONSE.CLOSED ? 0 : defaultTime2Wait,
      response === LOGOUT_RESPONSE.CLOSED ? 0 : defaultTime2Retain,
    );
    sender.close(STAT_SN.OWN);
  }
}
