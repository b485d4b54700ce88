import { createConnection } from 'node:net';

interface QmpReply {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

/** Sends commands to QEMU's monitor over a connection of their own, in order [QEMU "QEMU Machine Protocol"]. */
export function qmp(
  path: string,
  commands: readonly { execute: string; arguments?: Record<string, unknown> }[],
): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    const left = [{ execute: 'qmp_capabilities' }, ...commands];
    let text = '';
    const next = (): void => {
      const command = left.shift();
      if (command === undefined) {
        socket.destroy();
        resolve();
      } else {
        socket.write(`${JSON.stringify(command)}\n`);
      }
    };
    socket.on('error', reject);
    socket.once('close', () => reject(new Error('QEMU closed its monitor')));
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const reply = JSON.parse(text.slice(0, end)) as QmpReply & { QMP?: unknown };
        text = text.slice(end + 1);
        if (reply.error !== undefined) {
          reject(new Error(`QEMU's monitor: ${reply.error.desc}`));
          socket.destroy();
          return;
        }
        // Events have neither; the greeting starts it all.
        if (reply.return !== undefined || reply.QMP !== undefined) next();
      }
    });
  });
}
