import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import test, { type TestContext } from 'node:test';
import { UsageError } from '../../base/errors.ts';
import type { DiskConfig } from '../../server/config.ts';
import { holdfast, MAIN, Program, scratch, start } from '../testing.ts';
import { attachVhostUserBlk } from './attach-vhost-user.ts';
import { chooseListen } from './listen.ts';
import { humanReport, jsonReport, servedDisks } from './report.ts';
import { nameDisk, parseVhostUserBlk, vhostUserBlkName } from './vhost-user.ts';

function disk(exportName: string): DiskConfig {
  return {
    disk: '/images/a.img',
    exportName,
    description: '',
    cache: 'writeback',
    readOnly: false,
    onSyncError: 'poison',
  };
}

function refused(text: string): string {
  let message = '';
  assert.throws(
    () => parseVhostUserBlk(text),
    (error) => {
      assert.ok(error instanceof UsageError, String(error));
      ({ message } = error);
      return true;
    },
  );
  return message;
}

test('a path alone, relative or not, with everything else as it is by default', () => {
  const plain = { protocol: 'vhost-user-blk', exportName: null, offerFua: false, connect: false };
  for (const path of ['/run/vm.sock', 'vm.sock', './fd:3', '/a,b', '/a=b', '/a:b', '/100', 'é']) {
    const address = { kind: 'unix', path };
    assert.deepEqual(parseVhostUserBlk(`vhost-user-blk:${path}`), { ...plain, address }, path);
  }
  const odd = parseVhostUserBlk('vhost-user-blk:/a%3Fb%25c%26d?');
  assert.deepEqual(odd, { ...plain, address: { kind: 'unix', path: '/a?b%c&d' } });
  const descriptor = parseVhostUserBlk('vhost-user-blk:fd:7');
  assert.deepEqual(descriptor, { ...plain, address: { kind: 'fd', fd: 7 } });
  assert.equal(vhostUserBlkName(descriptor), 'vhost-user-blk:fd:7');
});

test('every key', () => {
  const text = 'vhost-user-blk:/s?export=a%20b&queues=256&serial=S%26N-1&fua=on&connect=on';
  assert.deepEqual(parseVhostUserBlk(text), {
    protocol: 'vhost-user-blk',
    address: { kind: 'unix', path: '/s' },
    exportName: 'a b',
    queues: 256,
    serial: 'S&N-1',
    offerFua: true,
    connect: true,
  });
  const off = parseVhostUserBlk('vhost-user-blk:/s?fua=off&connect=off&export=');
  assert.deepEqual([off.offerFua, off.connect, off.exportName], [false, false, '']);
});

test('mistakes are named', () => {
  const mistakes: readonly [string, RegExp][] = [
    ['', /path of the socket is missing/],
    ['?queues=1', /path of the socket is missing/],
    ['/s?frob=1', /'frob' is not known \(known: export, queues/],
    ['/s?queues', /queues needs a value/],
    ['/s?queues=1&queues=2', /queues is there twice/],
    ['/s?queues=0', /queues must be a number from 1 to 256, not '0'/],
    ['/s?queues=257', /from 1 to 256/],
    ['/s?serial=', /1 to 20 printable/],
    ['/s?serial=123456789012345678901', /1 to 20 printable/],
    ['/s?serial=%C3%A9', /1 to 20 printable/],
    ['/s?serial=a%00', /1 to 20 printable/],
    ['/s?fua=yes', /fua is on or off, not 'yes'/],
    ['/s?connect=1', /connect is on or off/],
    ['/s%', /written %25/],
    ['/s%C3', /written %25/],
    ['/s%00', /no NUL/],
    ['fd:x', /followed by a number/],
    ['fd:3?connect=on', /connected already/],
  ];
  for (const [rest, says] of mistakes) assert.match(refused(`vhost-user-blk:${rest}`), says, rest);
});

test('which disk: the only one, or the one that is named', () => {
  const open = parseVhostUserBlk('vhost-user-blk:/s');
  const named = parseVhostUserBlk('vhost-user-blk:/s?export=b');
  assert.equal(nameDisk(open, [disk('')]).exportName, '');
  assert.equal(nameDisk(named, [disk('a'), disk('b')]).exportName, 'b');
  assert.throws(() => nameDisk(open, [disk('a'), disk('b')]), {
    name: 'UsageError',
    message: /vhost-user-blk:\/s serves one disk; add \?export=NAME, one of 'a', 'b'/,
  });
  assert.throws(() => nameDisk(named, [disk('a')]), {
    name: 'UsageError',
    message: /no disk is named 'b'; there is 'a'/,
  });
});

test('it is a place like others, beside those for NBD, and no TCP port is opened for it', () => {
  const choice = parseVhostUserBlk('vhost-user-blk:/s');
  const listen = { listen: ['vhost-user-blk:/s'] };
  assert.deepEqual(chooseListen(listen, [], 'off'), [choice]);
  assert.deepEqual(chooseListen({ ...listen, run: 'true' }, [], 'off'), [choice]);
  assert.deepEqual(chooseListen({ ...listen, socket: '/n' }, [], 'off'), [
    choice,
    { kind: 'unix', path: '/n' },
  ]);
  // Sockets of a service manager are for NBD.
  const activated = chooseListen(listen, [{ fd: 3, name: '' }], 'off');
  assert.deepEqual(activated, [{ kind: 'fd', fd: 3 }, choice]);
  const long = `vhost-user-blk:/${'x'.repeat(107)}`;
  assert.throws(() => chooseListen({ listen: [long] }, [], 'off'), /longer than the 107 bytes/);
});

function json(path: string): unknown {
  return JSON.parse(readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8'));
}

function words(command: string): string[] {
  const run = spawnSync('sh', ['-c', `printf '%s\\n' ${command}`], { encoding: 'utf8' });
  return run.stdout.trimEnd().split('\n');
}

test('the commands: what a shell makes of them is what QEMU is to get', () => {
  const place = { protocol: 'vhost-user-blk', exportName: '' } as const;
  const listening = attachVhostUserBlk({
    ...place,
    address: { kind: 'unix', path: "/run/it's, 1" },
  });
  assert.deepEqual(words(listening[0]?.command ?? ''), [
    'qemu-system-x86_64',
    '-m',
    '1G',
    '-object',
    'memory-backend-memfd,id=mem,size=1G,share=on',
    '-machine',
    'memory-backend=mem',
    '-chardev',
    "socket,id=holdfast0,path=/run/it's,, 1,reconnect-ms=1000",
    '-device',
    'vhost-user-blk-pci,chardev=holdfast0',
  ]);
  assert.match(listening[1]?.command ?? '', /,bootindex=0$/);
  assert.match(listening[2]?.command ?? '', /,reconnect=1' /);
  assert.equal(listening.length, 3, 'others cannot take a comma');
  const address = { kind: 'unix', path: '/run/vm.sock' } as const;
  const all = attachVhostUserBlk({ ...place, address }).map(({ command }) => command);
  const info = 'driver=virtio-blk-vhost-user,path=/run/vm.sock,cache.direct=on';
  assert.equal(all.at(-1), `qemu-img info --image-opts ${info}`);
  const connecting = attachVhostUserBlk({ ...place, address, connect: true });
  assert.match(connecting[0]?.command ?? '', /path=\/run\/vm\.sock,server=on -device/);
  assert.deepEqual(attachVhostUserBlk({ ...place, address: { kind: 'fd', fd: 3 } }), []);
});

test('the reports name the places of each disk', () => {
  const disks = [disk('a'), disk('b')];
  const where = nameDisk(parseVhostUserBlk('vhost-user-blk:/run/vm.sock?export=b'), disks);
  const served = servedDisks(disks, [], { mode: 'off' }, [where]);
  const lines = humanReport(served, [], false);
  const place = lines.indexOf('  vhost-user-blk:/run/vm.sock');
  assert.ok(place > lines.findIndex((line) => line.includes("as 'b'")), lines.join('\n'));
  const { disks: shown } = JSON.parse(jsonReport(served, 7)) as { disks: object[] };
  assert.ok(!('vhostUserBlk' in (shown[0] ?? {})));
  assert.deepEqual(Object.entries(shown[1] ?? {}).at(-1), [
    'vhostUserBlk',
    [{ socket: '/run/vm.sock', connect: false }],
  ]);
});

interface Shown {
  readonly kind: string;
  readonly sizeBytes: number;
  readonly writeCache: boolean;
  readonly queues: number;
  readonly readOnly: boolean;
}

async function info(t: TestContext, socket: string): Promise<Shown> {
  const ended = await holdfast(t, 'info', '--json', `vhost-user-blk:${socket}`);
  assert.equal(ended.code, 0, ended.stderr);
  return JSON.parse(ended.stdout) as Shown;
}

test('serve, and info as a virtual machine would ask', async (t) => {
  const socket = `${scratch(t)}/odd ?%&.sock`;
  const place = `vhost-user-blk:${socket.replaceAll(/[?%&]/g, encodeURIComponent)}`;
  const words = ['memory:4M', '--cache', 'writethrough', '--listen', `${place}?queues=3`];
  const program = start(t, 'serve', '--json', ...words);
  await program.until(/^\{"format":1,.*\}$/m);
  const [report] = (JSON.parse(program.stdout) as { disks: { uris: string[] }[] }).disks;
  assert.deepEqual(report?.uris, [], 'nothing listens for NBD');
  const shown = await info(t, socket.replaceAll(/[?%&]/g, encodeURIComponent));
  const { kind, sizeBytes, writeCache, queues } = shown;
  assert.deepEqual([kind, sizeBytes, writeCache, queues], ['vhost-user-blk', 2 ** 22, false, 3]);
  program.kill('SIGTERM');
  assert.equal((await program.ended).code, 0);
  const gone = await holdfast(t, 'info', `vhost-user-blk:${scratch(t)}/no`);
  assert.equal(gone.code, 69, gone.stderr);
  assert.equal((await holdfast(t, 'info', `${place}?queues=3`)).code, 2);
});

// The back-end program [vhost-user "Back-end program conventions"].

test('--print-capabilities: the JSON, exit code 0, whatever else is there', async (t) => {
  for (const more of [[], ['--socket-path=/no', '--frob'], ['--fd=1', 'x', '--cache', 'y']]) {
    const ended = await holdfast(t, 'vhost-user-blk', '--print-capabilities', ...more);
    assert.equal(ended.code, 0, ended.stderr);
    assert.equal(ended.stderr, '');
    assert.deepEqual(JSON.parse(ended.stdout), {
      type: 'block',
      features: ['read-only', 'blk-file'],
    });
  }
});

test('the program that management software is told of is one that npm installs', () => {
  const { bin } = json('package.json') as { bin: Record<string, string> };
  const told = json('packaging/50-holdfast.json') as { type: string; binary: string };
  assert.equal(told.type, 'block');
  assert.match(told.binary, /^\/usr\/bin\/[^/]+$/);
  assert.equal(bin[told.binary.replace(/.*\//, '')], './dist/cli/vhost-user-blk.js');
});

test('--socket-path: serves there, and SIGTERM ends it with 0', async (t) => {
  const socket = `${scratch(t)}/s`;
  const words = [`--socket-path=${socket}`, '--blk-file=memory:4M', '--read-only'];
  const program = start(t, 'vhost-user-blk', ...words);
  await program.until(/vhost-user-blk:/);
  assert.equal((await info(t, socket)).readOnly, true);
  program.kill('SIGTERM');
  assert.equal((await program.ended).code, 0);
});

/** GET_FEATURES, as a front-end asks it first [vhost-user "Header"]. */
const GET_FEATURES = Uint8Array.of(1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0);

test('--fd: serves whoever is at the other end, and ends with 0 when that one goes', async (t) => {
  const words = [MAIN, 'vhost-user-blk', '--fd=3', '--blk-file=memory:4M'];
  // Node makes the pipe a pair of connected Unix sockets.
  const program = new Program(t, process.execPath, words, ['ignore', 'pipe', 'pipe', 'pipe']);
  const socket = program.child.stdio[3] as Duplex;
  socket.write(GET_FEATURES);
  const [answer] = (await once(socket, 'data')) as [Uint8Array];
  assert.equal(answer.length, 20);
  socket.destroy();
  const { code, stderr } = await program.ended;
  assert.equal(code, 0, stderr);
});

test('a command line that does not hold together: exit code 2 and one line', async (t) => {
  const socket = `--socket-path=${scratch(t)}/s`;
  const mistakes: readonly [readonly string[], RegExp][] = [
    [['--blk-file=memory:1M'], /--socket-path PATH or --fd FDNUM, one of the two/],
    [[socket, '--fd=3', '--blk-file=memory:1M'], /one of the two/],
    [[socket], /needs --blk-file/],
    [[socket, '--blk-file=memory:1Q'], /not a size/],
    [['--fd=2', '--blk-file=memory:1M'], /--fd must be a number from 3/],
    [[socket, '--blk-file=memory:1M', '--num-queues=0'], /--num-queues must be a number from 1/],
    [[socket, '--blk-file=memory:1M', '--serial='], /--serial has 1 to 20/],
  ];
  for (const [more, says] of mistakes) {
    const ended = await holdfast(t, 'vhost-user-blk', ...more);
    assert.equal(ended.code, 2, ended.stderr);
    assert.match(ended.stderr, /^holdfast: [^\n]+\n$/);
    assert.match(ended.stderr, says);
  }
});

test('descriptors that are no connected sockets, and a reactor that cannot share: exit code 78', async (t) => {
  const none = await holdfast(t, 'vhost-user-blk', '--fd=99', '--blk-file=memory:1M');
  assert.equal(none.code, 78, none.stderr);
  assert.match(none.stderr, /descriptor 99 is no socket/);
  const place = `vhost-user-blk:${scratch(t)}/s`;
  const words = ['serve', 'memory:1M', '--reactor', 'portable', '--listen', place];
  const portable = await holdfast(t, ...words);
  assert.equal(portable.code, 78, portable.stderr);
  assert.match(portable.stderr, /^holdfast: vhost-user-blk needs io_uring[^\n]*portable[^\n]*\n$/);
});
