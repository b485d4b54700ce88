import assert from 'node:assert/strict';
import test from 'node:test';
import { makeImage, workspace } from '../e2e/support/holdfast.ts';
import { startVhostUser } from '../e2e/support/vhost-user.ts';
import { attackVhostUser } from './vhost-user-live.ts';

/** `npm run fuzz -- --live vhost-user-blk:PATH` does it for as long as one likes. */
const SECONDS = 3;

for (const kind of ['memory', 'file'] as const) {
  const where = kind === 'file' ? 'a file' : 'memory';
  test(`fuzz: a guest rewrites its memory while a server with a disk in ${where} reads it`, async (t) => {
    const disk = kind === 'file' ? makeImage(workspace(t), 8) : 'memory:8M';
    const server = await startVhostUser(t, [disk]);
    const said: string[] = [];
    await attackVhostUser({
      path: server.socket,
      seconds: SECONDS,
      seed: 3,
      pid: server.pid,
      say: (line) => said.push(line),
    });
    assert.match(said.at(-1) ?? '', /a sound driver is served/);
    assert.ok(!server.ended, server.stderr);
    await server.stop();
    assert.equal(server.exitCode, 0);
    assert.doesNotMatch(server.stderr, /internal error|assert/i);
  });
}
