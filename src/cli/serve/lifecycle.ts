import { messageOf } from '../../base/errors.ts';
import type { UriAddress } from '../../protocols/nbd/uri.ts';
import type { DiskCounters } from '../../server/config.ts';
import { EXIT } from '../exit-codes.ts';
import type { Output } from '../output.ts';
import { startCaptive, type Captive } from './captive.ts';
import type { Notify } from './notify.ts';
import { handleSignals } from './signals.ts';

/** What the life of a server process needs of the server. */
export interface RunningServer {
  counters(): Promise<readonly DiskCounters[]>;
  stop(): Promise<void>;
  /** No client can come any more. */
  readonly over: Promise<void>;
  readonly stopped: Promise<void>;
}

export interface LifecycleOptions {
  /** --run. */
  readonly command?: string;
  readonly uri: string;
  readonly address: UriAddress | null;
  /** Write the counters to standard error at the end. */
  readonly finalCounters: boolean;
  /** Whatever is to be undone at the end, also before an immediate exit: the pid file, the private directory. */
  readonly cleanUp: () => void;
  readonly exit: (code: number) => void;
  readonly stderr: { write(text: string): unknown };
  /** Called when signals are heeded: whoever is told of the server may stop it at once. */
  readonly ready: () => void;
}

/**
 * Lets the server work until a signal, the end of the --run command or its own end, then stops it: it drains, makes
 * everything stable and closes. Resolves with the exit code.
 */
export async function live(
  server: RunningServer,
  options: LifecycleOptions,
  output: Output,
  notify: Notify,
): Promise<number> {
  let captive: Captive | null = null;
  let asked = false;
  const stopAsked = new Promise<number>((resolve) => {
    const unhandle = handleSignals({
      stop: (signal) => {
        asked = true;
        output.note(`${signal}: stopping`);
        // A command of --run decides the exit status, so it is asked to end first.
        if (captive === null) resolve(EXIT.OK);
        else captive.kill('SIGTERM');
      },
      stopNow: (code) => {
        options.cleanUp();
        options.exit(code);
      },
      report: () => void printCounters(server, options.stderr, output),
    });
    void server.stopped.finally(unhandle).catch(() => undefined);
  });
  const endings = [stopAsked, ownEnd(server, () => asked), over(server, output)];
  options.ready();
  notify('READY=1');
  if (options.command !== undefined) {
    captive = startCaptive(options.command, captiveVariables(options));
    endings.push(captive.ended);
  }
  try {
    const code = await Promise.race(endings);
    notify('STOPPING=1');
    asked = true;
    await stopServer(server, options, output);
    return code;
  } finally {
    options.cleanUp();
  }
}

async function stopServer(
  server: RunningServer,
  options: LifecycleOptions,
  output: Output,
): Promise<void> {
  await server.stop();
  if (options.finalCounters) await printCounters(server, options.stderr, output);
}

/** Rejects when the server ends unasked: with its reason, or with the fact. */
async function ownEnd(server: RunningServer, asked: () => boolean): Promise<number> {
  await server.stopped;
  if (asked()) return EXIT.OK;
  throw new Error('the server stopped by itself');
}

/** Whoever was at the other end of the descriptor is gone, and there is no other place: the work is done. */
async function over(server: RunningServer, output: Output): Promise<number> {
  await server.over;
  output.note('no client can come any more: stopping');
  return EXIT.OK;
}

/** One line of JSON per disk. */
async function printCounters(
  server: RunningServer,
  stderr: { write(text: string): unknown },
  output: Output,
): Promise<void> {
  try {
    for (const counters of await server.counters()) stderr.write(`${JSON.stringify(counters)}\n`);
  } catch (error) {
    output.warn(`the counters cannot be read: ${messageOf(error)}`);
  }
}

function captiveVariables({ uri, address }: LifecycleOptions): {
  uri: string;
  unixsocket: string;
  port: string;
} {
  return {
    uri,
    unixsocket: address?.kind === 'unix' ? address.path : '',
    port: address?.kind === 'tcp' ? String(address.port) : '',
  };
}
