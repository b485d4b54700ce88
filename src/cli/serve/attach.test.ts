import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import type { DiskConfig } from '../../server/config.ts';
import { attachCommands, shellQuote } from './attach.ts';
import { humanReport, jsonReport, servedDisks } from './report.ts';

const DISK: DiskConfig = {
  disk: '/images/a.img',
  exportName: '',
  description: '',
  cache: 'writeback',
  readOnly: false,
  onSyncError: 'poison',
};
const UNIX = { kind: 'unix', path: '/run/x.sock' } as const;
const TCP = { kind: 'tcp', host: '127.0.0.1', port: 10_809 } as const;
const PLAIN = { mode: 'off' } as const;

test('every disk has a URI at every address', () => {
  const [one, two] = servedDisks([DISK, { ...DISK, exportName: 'a b' }], [TCP, UNIX], PLAIN);
  assert.deepEqual(one?.uris, ['nbd://127.0.0.1/', 'nbd+unix:///?socket=/run/x.sock']);
  assert.deepEqual(two?.uris, ['nbd://127.0.0.1/a%20b', 'nbd+unix:///a%20b?socket=/run/x.sock']);
  const psk = { mode: 'require', settings: { psk: new Map() } } as const;
  assert.deepEqual(servedDisks([DISK], [TCP], psk)[0]?.uris, ['nbds://127.0.0.1/?tls-type=psk']);
});

test('the commands: what a shell makes of them is what the programs are to get', () => {
  const exportName = "it's, 1";
  const commands = attachCommands({
    uri: 'nbd+unix:///it%27s%2C%201?socket=/run/x.sock',
    endpoint: UNIX,
    exportName,
    readOnly: false,
    tls: false,
  });
  const words = (label: string): string[] => {
    const { command = '' } = commands.find((one) => one.label === label) ?? {};
    const script = command.replace(/^.*?(?=qemu-system|nbd-client)/, '').split(' && ')[0];
    const run = spawnSync('sh', ['-c', `printf '%s\\n' ${script}`], { encoding: 'utf8' });
    return run.stdout.trimEnd().split('\n');
  };
  assert.deepEqual(words('QEMU'), [
    'qemu-system-x86_64',
    '-m',
    '1G',
    '-drive',
    'file=nbd+unix:///it%27s%2C%201?socket=/run/x.sock,format=raw,if=virtio,discard=unmap',
  ]);
  const blockdev = words('or');
  assert.deepEqual(JSON.parse(blockdev[4] ?? ''), {
    driver: 'nbd',
    'node-name': 'holdfast',
    server: { type: 'unix', path: '/run/x.sock' },
    export: exportName,
    discard: 'unmap',
  });
  assert.deepEqual(blockdev.slice(5), ['-device', 'virtio-blk-pci,drive=holdfast']);
  const linux = commands.find((one) => one.label === 'Linux')?.command ?? '';
  assert.match(linux, /nbd-client -unix \/run\/x\.sock \/dev\/nbd0 -N 'it'\\''s, 1'$/);
});

test('a read-only disk is attached read-only everywhere, and nobody formats it', () => {
  const text = attachCommands({
    uri: 'nbd://127.0.0.1/',
    endpoint: TCP,
    exportName: '',
    readOnly: true,
    tls: false,
  })
    .map(({ command }) => command)
    .join('\n');
  assert.match(text, /-drive 'file=.*readonly=on'|-drive file=.*readonly=on/);
  assert.match(text, /"read-only":true/);
  assert.match(text, /nbd-client 127\.0\.0\.1 10809 \/dev\/nbd0 -readonly/);
  assert.match(text, /mount -r/);
  assert.doesNotMatch(text, /mkfs|discard/);
});

test('the report names the mode of every disk, and unsafe is loud', () => {
  const disks = [DISK, { ...DISK, exportName: 'u', cache: 'unsafe' } as const];
  const served = servedDisks(disks, [TCP], PLAIN);
  const text = humanReport(served, [TCP], false).join('\n');
  assert.match(text, /^\/images\/a\.img, cache=writeback: /m);
  assert.match(text, /^\/images\/a\.img as 'u', cache=unsafe: .*NOT DONE/m);
  const json = JSON.parse(jsonReport(served, 7)) as { pid: number; disks: unknown[] };
  assert.equal(json.pid, 7);
  assert.deepEqual(json.disks[1], {
    disk: '/images/a.img',
    export: 'u',
    cache: 'unsafe',
    readOnly: false,
    ignoresFlush: true,
    uris: ['nbd://127.0.0.1/u'],
  });
});

test('shell words', () => {
  assert.equal(shellQuote('nbd://127.0.0.1/'), 'nbd://127.0.0.1/');
  assert.equal(shellQuote('a b'), "'a b'");
  assert.equal(shellQuote("it's"), "'it'\\''s'");
  assert.equal(shellQuote(''), "''");
});
