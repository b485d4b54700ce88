import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import { ConfigError } from '../base/errors.ts';
import { TlsBridgeClient } from '../reactor/tls-bridge.ts';
import { DataPlane } from './data-plane.ts';
import type { DataPlaneStart, ErrorMessage, FromDataPlane, ToDataPlane } from './messages.ts';

// The data plane's thread. Control stays on the main thread; what the two say is in messages.ts.

async function main(port: MessagePort, { config }: DataPlaneStart): Promise<void> {
  const say = (message: FromDataPlane): void => port.postMessage(message);
  const tls = new TlsBridgeClient(say);
  const plane = await DataPlane.start(config, {
    log: (level, line) => say({ type: 'log', level, line }),
    bridgeTls: tls.bridgeTls,
    over: () => say({ type: 'over' }),
  });
  port.on('message', (message: ToDataPlane) => {
    if (tls.handle(message)) return;
    void obey(plane, message, port, say);
  });
  say({ type: 'ready', served: plane.served, reactor: plane.reactorLine });
}

async function obey(
  plane: DataPlane,
  message: ToDataPlane,
  port: MessagePort,
  say: (message: FromDataPlane) => void,
): Promise<void> {
  if (message.type === 'tls-ready' || message.type === 'tls-failed') return;
  const { id } = message;
  try {
    // Counters are read before the disks are gone.
    const counters = plane.counters();
    if (message.type === 'resume') plane.resume(message.exportName);
    if (message.type === 'fail-flush') plane.failFlush(message.exportName, message.fault);
    if (message.type === 'mark') plane.mark(message.kind, message.text, message.timeNs);
    if (message.type === 'cut') {
      const cut = await plane.cutPower(message.exportName, message.request);
      say({ type: 'answer', id, counters, cut });
      return;
    }
    if (message.type !== 'stop') {
      say({ type: 'answer', id, counters });
      return;
    }
    say({ type: 'answer', id, counters: await plane.stop() });
    say({ type: 'tls-close' });
    port.close();
  } catch (error) {
    say({ type: 'refused', id, error: errorMessage(error) });
  }
}

function errorMessage(error: unknown): ErrorMessage {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const { name, message } = error;
  // The cause stays behind; its code says whether something is busy or wrong, which is the exit code's concern.
  const code =
    (error as NodeJS.ErrnoException).code ??
    (error.cause as NodeJS.ErrnoException | undefined)?.code;
  return {
    name,
    message,
    ...(error instanceof ConfigError ? { hint: error.hint } : {}),
    ...(code === undefined ? {} : { code }),
  };
}

const port = parentPort;
assert(port !== null, 'the data plane runs on a thread of its own');
main(port, workerData as DataPlaneStart).catch((error: unknown) => {
  port.postMessage({ type: 'failed', error: errorMessage(error) } satisfies FromDataPlane);
  port.close();
});
