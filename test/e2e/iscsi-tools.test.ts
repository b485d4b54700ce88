import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { onBothReactors } from './support/both.ts';
import { run, succeed } from './support/command.ts';
import { workspace } from './support/holdfast.ts';
import { IQN, iscsiUrl, startIscsi } from './support/iscsi.ts';
import { requires } from './support/requires.ts';

// libiscsi's programs: discovery, login with and without secrets.

const SECRET = 'correct-horse-1';
const OTHER = 'battery-staple-2';

onBothReactors(
  'iscsi-ls and iscsi-inq: targets, portals, LUNs, identities',
  ['iscsi-ls', 'iscsi-inq'],
  async (t, reactor) => {
    const { ports } = await startIscsi(t, ['a=memory:64M', 'b=memory:32M'], {
      reactor,
      ports: [0, 0],
      query: '?serial=0:A-1&removable=1:on',
    });
    const [first = 0, second] = [...new Set(ports)];
    const listed = await succeed(['iscsi-ls', '-s', `iscsi://127.0.0.1:${first}`]);
    for (const port of [first, second]) {
      assert.ok(listed.includes(`Target:${IQN} Portal:127.0.0.1:${port},1`), listed);
    }
    // It counts up to the last block, and rounds down.
    assert.match(listed, /Lun:0 +Type:DIRECT_ACCESS \(Size:63M\)/);
    assert.match(listed, /Lun:1 +Type:DIRECT_ACCESS \(Size:31M\)/);
    const inquired = await succeed(['iscsi-inq', iscsiUrl(first, 1)]);
    assert.match(inquired, /Removable:1/);
    assert.match(inquired, /Vendor:HOLDFAST/);
    const serial = await succeed(['iscsi-inq', '-e', '1', '-c', '128', iscsiUrl(first)]);
    assert.match(serial, /Unit Serial Number:\[A-1\]/);
  },
);

/** What the target is to prove, in a URL of libiscsi's. */
function proof(secret: string): string {
  return `?target_user=disk&target_password=${secret}`;
}

test(
  'CHAP: right secrets open, wrong ones do not, and no secret is seen anywhere',
  requires('iscsi-inq'),
  async (t) => {
    const folder = workspace(t);
    const [chap, mutual] = [join(folder, 'chap'), join(folder, 'mutual')];
    writeFileSync(chap, `bob:${SECRET}\n`, { mode: 0o600 });
    writeFileSync(mutual, `disk:${OTHER}\n`, { mode: 0o600 });
    const { server, ports } = await startIscsi(t, ['-v', 'memory:64M'], {
      query: `?chap=${chap}&mutual-chap=${mutual}`,
    });
    const port = ports[0] ?? 0;
    const login = async (who: string, query = ''): Promise<number | null> =>
      (await run(['iscsi-inq', `${iscsiUrl(port, 0, who)}${query}`])).status;
    assert.equal(await login(`bob%${SECRET}@`), 0);
    assert.equal(await login(`bob%${SECRET}@`, proof(OTHER)), 0, 'the target proves itself');
    assert.notEqual(await login(`bob%${SECRET}@`, proof(`${OTHER}x`)), 0, 'a wrong target');
    const before = server.stderr.length;
    assert.notEqual(await login(`bob%${SECRET}x@`), 0, 'a wrong secret');
    assert.notEqual(await login(`eve%${SECRET}@`), 0, 'a wrong name');
    assert.notEqual(await login(''), 0, 'no name');
    const refused = server.stderr
      .slice(before)
      .split('\n')
      .filter((line) => /refused/.test(line));
    assert.equal(refused.length, 3, server.stderr);
    const commandLine = readFileSync(`/proc/${server.pid}/cmdline`, 'utf8');
    for (const text of [server.stdout, server.stderr, commandLine]) {
      assert.ok(!text.includes(SECRET) && !text.includes(OTHER), text);
    }
    await server.stop();
  },
);

test(
  'initiators that are not named do not see the target, and may not log in',
  requires('iscsi-ls'),
  async (t) => {
    const allowed = 'iqn.2026-11.org.example:host';
    const { ports } = await startIscsi(t, ['memory:64M'], { query: `?initiator=${allowed}` });
    const port = ports[0] ?? 0;
    const as = (name: string): readonly string[] => [
      'iscsi-ls',
      '-i',
      name,
      `iscsi://127.0.0.1:${port}`,
    ];
    assert.match(await succeed(as(allowed)), new RegExp(IQN));
    const stranger = await run(as('iqn.2026-11.org.example:stranger'));
    assert.doesNotMatch(stranger.stdout, new RegExp(IQN));
    const inquiry = (name: string): Promise<{ readonly status: number | null }> =>
      run(['iscsi-inq', '-i', name, iscsiUrl(port)]);
    assert.equal((await inquiry(allowed)).status, 0);
    assert.notEqual((await inquiry('iqn.2026-11.org.example:stranger')).status, 0);
  },
);
