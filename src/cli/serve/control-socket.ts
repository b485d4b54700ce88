import { chmodSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { ConfigError, messageOf } from '../../base/errors.ts';
import type { CutReport, CutRequest, FlushFault } from '../../layers/volatile-cache/requests.ts';
import type { DiskCounters } from '../../server/config.ts';
import { UnavailableError } from '../exit-codes.ts';

// The operator's way to a running server: a Unix socket for its owner alone, one line of JSON asked, one answered.

export type ControlRequest =
  | { readonly op: 'counters' }
  | { readonly op: 'resume'; readonly export: string }
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
}

/** A request is a name of at most 4096 bytes and a few words; whoever sends more is cut off. */
const MAX_REQUEST_BYTES = 32_768;

/** An operator waits for a moment, not for ever. */
const ANSWER_TIMEOUT_MS = 10_000;

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
    const line = end < 0 ? '' : text.slice(0, end);
    void answerTo(line, server).then((answer) => socket.end(`${JSON.stringify(answer)}\n`));
  });
}

/** Never rejects: what goes wrong is the answer. */
export async function answerTo(line: string, server: Controlled): Promise<ControlAnswer> {
  try {
    const request = JSON.parse(line) as Partial<{ op: unknown; export: unknown }> | null;
    if (request?.op === 'counters') return { ok: true, disks: await server.counters() };
    if (request?.op === 'resume' && typeof request.export === 'string') {
      await server.resume(request.export);
      return { ok: true, disks: await server.counters() };
    }
    return { ok: false, error: 'the request is not understood' };
  } catch (error) {
    return { ok: false, error: messageOf(error) };
  }
}

/** Asks a running server. Rejects with UnavailableError when none answers at `path`. */
export async function askControl(path: string, request: ControlRequest): Promise<ControlAnswer> {
  const socket = connect(path);
  try {
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy(new Error('no answer')));
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
