import { chmodSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { ConfigError, messageOf } from '../../base/errors.ts';
import {
  CUT_MODELS,
  type CutReport,
  type CutRequest,
  type FlushFault,
} from '../../layers/volatile-cache/requests.ts';
import type { DiskCounters } from '../../server/config.ts';
import type { Mark } from '../../trace/trace.ts';
import { UnavailableError } from '../exit-codes.ts';

// The operator's way to a running server: a Unix socket for its owner alone, one line of JSON asked, one answered.

export type ControlRequest =
  | { readonly op: 'counters' }
  | { readonly op: 'resume'; readonly export: string }
  /** `agoMs`: how long before the request it was. */
  | {
      readonly op: 'mark';
      readonly kind: Mark['kind'];
      readonly text: string;
      readonly agoMs: number;
    }
  | ({ readonly op: 'cut'; readonly export: string } & CutRequest)
  | ({ readonly op: 'fail-flush'; readonly export: string } & FlushFault);

export type ControlAnswer =
  | { readonly ok: true; readonly disks: readonly DiskCounters[] }
  | { readonly ok: true; readonly cut: CutReport }
  | { readonly ok: false; readonly error: string };

/** What can be asked of a server while it runs. */
export interface Controlled {
  counters(): Promise<readonly DiskCounters[]>;
  resume(exportName: string): Promise<void>;
  mark(kind: Mark['kind'], text: string, agoMs: number): Promise<void>;
  cutPower(exportName: string, request: CutRequest): Promise<CutReport>;
  failFlush(exportName: string, fault: FlushFault): Promise<void>;
}

/** A request is a name of at most 4096 bytes and a few words; whoever sends more is cut off. */
const MAX_REQUEST_BYTES = 32_768;

/** An operator waits for a moment, not for ever. */
const ANSWER_TIMEOUT_MS = 10_000;

/** A mark is made by a program that has just been started. */
const MOST_AGO_MS = 60_000;

/** A power cut answers when what survives is on the disk: gigabytes at worst. */
const CUT_TIMEOUT_MS = 300_000;

/** Listens at `path` until the returned function is called, which removes it. Throws ConfigError. */
export async function openControl(path: string, server: Controlled): Promise<() => void> {
  const listener = createServer((socket) => serveControl(socket, server));
  await new Promise<void>((resolve, reject) => {
    listener.once('error', (error) => {
      reject(
        new ConfigError(
          `cannot listen on the control socket ${path}: ${messageOf(error)}`,
          'choose a path that does not exist in a directory that does',
          { cause: error },
        ),
      );
    });
    listener.listen(path, resolve);
  });
  // Whoever may resume a disk accepts the loss of data: only the owner of the server.
  chmodSync(path, 0o600);
  // It must not keep a process alive that has nothing else to do.
  listener.unref();
  return () => {
    listener.close();
    rmSync(path, { force: true });
  };
}

function serveControl(socket: Socket, server: Controlled): void {
  socket.unref();
  socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy());
  // A peer that goes away in the middle is no concern of the server.
  socket.on('error', () => socket.destroy());
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (piece: string) => {
    text += piece;
    const end = text.indexOf('\n');
    if (end < 0 && text.length <= MAX_REQUEST_BYTES) return;
    socket.removeAllListeners('data');
    // How long the answer takes is for whoever asks to bound.
    socket.setTimeout(0);
    const line = end < 0 ? '' : text.slice(0, end);
    void answerTo(line, server).then((answer) => socket.end(`${JSON.stringify(answer)}\n`));
  });
}

/** Never rejects: what goes wrong is the answer. */
export async function answerTo(line: string, server: Controlled): Promise<ControlAnswer> {
  try {
    const request = JSON.parse(line) as Asked | null;
    if (request?.op === 'counters') return { ok: true, disks: await server.counters() };
    if (request?.op === 'mark') return await answerToMark(request, server);
    if (typeof request?.export === 'string') return await answerOf(request, request.export, server);
    return NOT_UNDERSTOOD;
  } catch (error) {
    return { ok: false, error: messageOf(error) };
  }
}

/** A request as it comes: nothing of it can be relied upon. */
type Asked = Partial<
  Record<'op' | 'export' | 'kind' | 'text' | 'agoMs' | keyof CutRequest | keyof FlushFault, unknown>
>;

const NOT_UNDERSTOOD: ControlAnswer = { ok: false, error: 'the request is not understood' };

async function answerToMark(request: Asked, server: Controlled): Promise<ControlAnswer> {
  const { kind, text, agoMs } = request;
  const isPast = typeof agoMs === 'number' && agoMs >= 0 && agoMs <= MOST_AGO_MS;
  if ((kind !== 'ack' && kind !== 'note') || typeof text !== 'string' || !isPast) {
    return NOT_UNDERSTOOD;
  }
  await server.mark(kind, text, agoMs);
  return { ok: true, disks: await server.counters() };
}

/** To what is asked of one disk. */
async function answerOf(
  request: Asked,
  exportName: string,
  server: Controlled,
): Promise<ControlAnswer> {
  const { op } = request;
  const cut = op === 'cut' ? cutRequest(request) : null;
  const fault = op === 'fail-flush' ? flushFault(request) : null;
  if (cut !== null) return { ok: true, cut: await server.cutPower(exportName, cut) };
  if (fault !== null) await server.failFlush(exportName, fault);
  else if (op === 'resume') await server.resume(exportName);
  else return NOT_UNDERSTOOD;
  return { ok: true, disks: await server.counters() };
}

function cutRequest({ seed, model, offForMs }: Asked): CutRequest | null {
  const known = CUT_MODELS.find((name) => name === model);
  return known !== undefined && isCount(seed) && isCount(offForMs)
    ? { seed, model: known, offForMs }
    : null;
}

function flushFault({ when, data }: Asked): FlushFault | null {
  const known = (['once', 'always', 'never'] as const).find((name) => name === when);
  return known !== undefined && (data === 'keep' || data === 'drop') ? { when: known, data } : null;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Asks a running server. Rejects with UnavailableError when none answers at `path`. */
export async function askControl(path: string, request: ControlRequest): Promise<ControlAnswer> {
  const socket = connect(path);
  try {
    const patienceMs = request.op === 'cut' ? CUT_TIMEOUT_MS : ANSWER_TIMEOUT_MS;
    socket.setTimeout(patienceMs, () => socket.destroy(new Error('no answer')));
    socket.write(`${JSON.stringify(request)}\n`);
    for await (const line of createInterface({ input: socket })) {
      return JSON.parse(line) as ControlAnswer;
    }
    throw new Error('no answer');
  } catch (error) {
    throw new UnavailableError(
      `no server answers at the control socket ${path}: ${messageOf(error)}`,
      'was it started with --control?',
      { cause: error },
    );
  } finally {
    socket.destroy();
  }
}
