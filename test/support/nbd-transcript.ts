import { decodeText } from '../../src/protocols/nbd/bytes.ts';
import {
  decodeInfoReply,
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  nameOfOption,
  nameOfReply,
  NBD_HEADER,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
} from '../../src/protocols/nbd/wire.ts';

/** What one side says before the other says something. */
export interface Turn {
  readonly who: 'client' | 'server';
  readonly bytes: Buffer;
}

/** A recorded conversation: where it is from, and what was said. */
export interface Transcript {
  readonly about: string;
  readonly turns: readonly Turn[];
}

/** Reads a transcript. Indented lines are hex, up to a '|'; lines that start with '#' are for people. */
export function parseTranscript(text: string): Transcript {
  const turns: { who: 'client' | 'server'; hex: string }[] = [];
  let about = '';
  for (const line of text.split('\n')) {
    if (line === 'client:' || line === 'server:') {
      turns.push({ who: line === 'client:' ? 'client' : 'server', hex: '' });
    } else if (line.startsWith('# ') && turns.length === 0) {
      about += `${line.slice(2)}\n`;
    } else {
      const last = turns.at(-1);
      if (last !== undefined) last.hex += (line.split('|')[0] as string).replaceAll(/\s/g, '');
    }
  }
  return {
    about: about.trim(),
    turns: turns.map(({ who, hex }) => ({ who, bytes: Buffer.from(hex, 'hex') })),
  };
}

/** Writes a transcript that `parseTranscript` reads, each message of the handshake with what it means. */
export function formatTranscript({ about, turns }: Transcript): string {
  const lines = about.split('\n').map((line) => `# ${line}`);
  const state = { client: 0, server: 0, over: false };
  for (const { who, bytes } of turns) {
    lines.push('', `${who}:`);
    for (let at = 0; at < bytes.length;) {
      const rest = bytes.subarray(at);
      const message = describe(who, rest, state);
      state[who] += 1;
      const hex =
        rest
          .subarray(0, message.length)
          .toString('hex')
          .match(/.{1,80}/g) ?? [];
      lines.push(...hex.map((row, i) => `  ${row}${i === 0 ? ` | ${message.text}` : ''}`));
      at += message.length;
    }
  }
  return `${lines.join('\n')}\n`;
}

interface Message {
  readonly length: number;
  readonly text: string;
}

function describe(
  who: 'client' | 'server',
  bytes: Buffer,
  state: { client: number; server: number; over: boolean },
): Message {
  if (state.over) return { length: bytes.length, text: 'transmission phase' };
  if (state[who] === 0) {
    return who === 'server'
      ? { length: NBD_HEADER.GREETING, text: 'greeting' }
      : { length: NBD_HEADER.CLIENT_FLAGS, text: 'client flags' };
  }
  if (who === 'client') {
    const header = decodeOptionHeader(bytes.subarray(0, NBD_HEADER.OPTION));
    if (header === null) return { length: bytes.length, text: 'transmission phase' };
    const length = NBD_HEADER.OPTION + header.length;
    return {
      length,
      text: describeOption(header.option, bytes.subarray(NBD_HEADER.OPTION, length)),
    };
  }
  const header = decodeOptionReplyHeader(bytes.subarray(0, NBD_HEADER.OPTION_REPLY));
  if (header === null) {
    state.over = true;
    return { length: bytes.length, text: 'the answer to NBD_OPT_EXPORT_NAME' };
  }
  const length = NBD_HEADER.OPTION_REPLY + header.length;
  const payload = bytes.subarray(NBD_HEADER.OPTION_REPLY, length);
  if (header.option === NBD_OPT.GO && header.type === NBD_REP.ACK) state.over = true;
  return { length, text: `${nameOfReply(header.type)}${describeReply(header.type, payload)}` };
}

function describeOption(option: number, data: Buffer): string {
  const name = nameOfOption(option);
  if (option === NBD_OPT.INFO || option === NBD_OPT.GO) {
    const request = decodeInfoRequest(data);
    const asks = request?.information.map(
      (type) => Object.entries(NBD_INFO).find(([, value]) => value === type)?.[0] ?? type,
    );
    return `${name} '${request?.name ?? '?'}' ${asks?.join(' ') ?? ''}`.trim();
  }
  if (option === NBD_OPT.LIST_META_CONTEXT || option === NBD_OPT.SET_META_CONTEXT) {
    const request = decodeMetaContextRequest(data);
    return `${name} '${request?.name ?? '?'}' ${request?.queries.join(' ') ?? ''}`.trim();
  }
  return option === NBD_OPT.EXPORT_NAME ? `${name} '${decodeText(data) ?? '?'}'` : name;
}

function describeReply(type: number, payload: Buffer): string {
  if (type === NBD_REP.INFO) return ` ${JSON.stringify(decodeInfoReply(payload))}`;
  if (type === NBD_REP.META_CONTEXT) return ` ${decodeText(payload.subarray(4)) ?? '?'}`;
  return type >= 2 ** 31 ? `: ${decodeText(payload) ?? '?'}` : '';
}
