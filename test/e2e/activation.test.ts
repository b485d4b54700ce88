import assert from 'node:assert/strict';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { existsSync } from 'node:fs';
import { onBothReactors } from './support/both.ts';
import { killGroup, run, succeed, until } from './support/command.ts';
import { makeImage, workspace } from './support/holdfast.ts';
import { tool } from './support/requires.ts';

const MAIN = resolve(import.meta.dirname, '../../src/cli/main.ts');

onBothReactors(
  'systemd hands over the socket, and the server starts with the first client',
  ['systemd-socket-activate', 'nbdinfo'],
  async (t, reactor) => {
    const folder = workspace(t);
    const image = makeImage(folder, 8, 1);
    const socket = join(folder, 'a.sock');
    const child = spawn(
      tool('systemd-socket-activate'),
      [
        `--listen=${socket}`,
        `--setenv=HOLDFAST_REACTOR=${reactor}`,
        process.execPath,
        MAIN,
        'serve',
        image,
      ],
      { detached: true, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
    }
    t.after(() => killGroup(child.pid, 'SIGKILL'));
    await until('the socket', 5000, () => (existsSync(socket) ? true : null));
    const size = await succeed(['nbdinfo', '--size', `nbd+unix:///?socket=${socket}`], {
      timeoutMs: 20_000,
    }).catch((error: Error) => {
      throw new Error(`${error.message}\nserver said: ${said}`);
    });
    assert.equal(size.trim(), String(8 * 1024 * 1024));
    // Same process, next client.
    await succeed(['nbdinfo', `nbd+unix:///?socket=${socket}`]);
    const ended = new Promise<number | null>((done) => child.once('exit', (code) => done(code)));
    child.kill('SIGTERM');
    assert.equal(await ended, 0, said);
  },
);

onBothReactors(
  'a socket that was handed over excludes options that name another',
  ['systemd-socket-activate', 'nbdinfo'],
  async (t, reactor) => {
    const folder = workspace(t);
    const image = makeImage(folder, 8, 1);
    const env = { LISTEN_FDS: '1', HOLDFAST_REACTOR: reactor };
    // The shell's process id becomes the server's: LISTEN_PID must name it.
    const line = `LISTEN_PID=$$ exec "$@" 3<&0`;
    const server = [process.execPath, MAIN, 'serve', image, '-U', join(folder, 'b.sock')];
    const result = await run(['sh', '-c', line, 'sh', ...server], { env, timeoutMs: 20_000 });
    assert.equal(result.status, 2, result.stderr);
  },
);
