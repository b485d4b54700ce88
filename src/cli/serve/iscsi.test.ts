import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { ConfigError, UsageError } from '../../base/errors.ts';
import type { DiskConfig, IscsiListen } from '../../server/config.ts';
import { scratch } from '../testing.ts';
import { attachIscsiLun, attachIscsiTarget, iscsiUrl } from './attach-iscsi.ts';
import { defaultTargetName, isIscsi, parseIscsi, settleIscsi } from './iscsi.ts';
import { readChapFile } from './iscsi-secret.ts';
import { chooseListen } from './listen.ts';
import { humanReport, jsonReport, servedDisks } from './report.ts';

const NAME = 'iqn.2026-11.org.example:a';
const SECRET = 'correct horse';

function disk(exportName: string, path = '/images/a.img'): DiskConfig {
  return {
    disk: path,
    exportName,
    description: '',
    cache: 'writeback',
    readOnly: false,
    onSyncError: 'poison',
  };
}

/** What a command line with these --listen makes. */
function settled(texts: readonly string[], disks: readonly DiskConfig[]): IscsiListen[] {
  return settleIscsi(texts.map(parseIscsi), disks, () => assert.fail('no warning is due'));
}

function refused(action: () => unknown, kind: typeof UsageError | typeof ConfigError): string {
  let message = '';
  assert.throws(action, (error) => {
    assert.ok(error instanceof kind, String(error));
    ({ message } = error);
    return true;
  });
  return message;
}

function where(text: string): unknown {
  return parseIscsi(text).address;
}

/** The default name's last part. */
function name(exportName: string, path?: string): string {
  return defaultTargetName([disk(exportName, path)]).replace('iqn.2026-11.local.holdfast:', '');
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function silent(): void {
  assert.fail('no warning is due');
}

function secretFile(t: TestContext, content: string, file = 'chap'): string {
  const path = join(scratch(t), file);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

test('loopback and port 3260 unless told otherwise', () => {
  const loopback = { kind: 'tcp', host: '127.0.0.1', port: 3260 };
  assert.deepEqual(where('iscsi://'), loopback);
  assert.deepEqual(where('iscsi:///'), loopback);
  assert.deepEqual(where(`iscsi:///${NAME}`), loopback);
  assert.deepEqual(where('iscsi://:0'), { ...loopback, port: 0 });
  assert.deepEqual(where('iscsi://host.example'), { ...loopback, host: 'host.example' });
  assert.deepEqual(where(`iscsi://[::]:860/${NAME}?alias=x`), {
    kind: 'tcp',
    host: '::',
    port: 860,
  });
  assert.ok(isIscsi('iscsi:x') && !isIscsi('./iscsi:x') && !isIscsi('nbd://iscsi:1'));
  assert.deepEqual(chooseListen({ listen: ['iscsi://'] }, [], 'off'), [parseIscsi('iscsi://')]);
  // A socket of systemd is one for NBD; the target listens beside it.
  const [, second] = chooseListen({ listen: ['iscsi://'] }, [{ fd: 3, name: '' }], 'off');
  assert.deepEqual(second, parseIscsi('iscsi://'));
});

test('the disks are LUN 0, 1, ... of a target that is named after the first', () => {
  const [one] = settled(['iscsi://'], [disk('root'), disk('data')]);
  assert.deepEqual(one?.target, {
    name: 'iqn.2026-11.local.holdfast:root',
    alias: '',
    luns: [
      { lun: 0, exportName: 'root' },
      { lun: 1, exportName: 'data' },
    ],
  });
});

test('default names are legal, stable and as different as the disks', () => {
  assert.equal(name(''), 'a');
  assert.equal(name('', '/images/vm-1.raw'), 'vm-1');
  assert.equal(name('', 'memory:64M'), 'memory');
  assert.equal(name('vm.1'), 'vm.1');
  const odd = ['Data', 'data ', 'd/ata', 'é', 'x'.repeat(65), 'x'.repeat(66), 'X'];
  const names = odd.map((each) => name(each));
  assert.equal(new Set([...names, name('data')]).size, odd.length + 1);
  for (const each of names) assert.match(each, /^[a-z0-9.:-]{1,64}-[0-9a-f]{8}$/);
});

test('every key', (t) => {
  const chap = secretFile(t, `user:${SECRET}\n`);
  const mutual = secretFile(t, `me:${SECRET}!`, 'm');
  const keys =
    `chap=${chap}&mutual-chap=${mutual}&initiator=iqn.2026-11.ORG.example:x&initiator=eui.0123456789abcdef` +
    '&alias=a%20%26%20b&lun=b:5&lun=a:0&removable=on&removable=5:off&thin=5:on&serial=0:A%3A1&serial=5:B';
  const [found] = settled([`iscsi://h/${NAME}?${keys}`], [disk('a'), disk('b')]);
  assert.deepEqual(found, {
    protocol: 'iscsi',
    address: { kind: 'tcp', host: 'h', port: 3260 },
    target: {
      name: NAME,
      alias: 'a & b',
      luns: [
        { lun: 5, exportName: 'b', removable: false, thin: true, serial: 'B' },
        { lun: 0, exportName: 'a', removable: true, serial: 'A:1' },
      ],
      chap: { user: 'user', secret: encode(SECRET) },
      mutualChap: { user: 'me', secret: encode(`${SECRET}!`) },
      initiators: ['iqn.2026-11.org.example:x', 'eui.0123456789abcdef'],
    },
  });
  const [only] = settled(['iscsi://?lun=:7&serial=S'], [disk('')]);
  assert.deepEqual(only?.target.luns, [{ lun: 7, exportName: '', serial: 'S' }]);
});

test('a target has several portals, and what it is like is said once', () => {
  const [a, b, c] = settled(
    [`iscsi://h/${NAME}?alias=x`, `iscsi://i/${NAME}`, 'iscsi://h'],
    [disk('a')],
  );
  assert.equal(a?.target, b?.target);
  assert.notEqual(a?.target.name, c?.target.name);
  const twice = refused(
    () => settled([`iscsi://h/${NAME}`, `iscsi://i/${NAME}?alias=x`], [disk('a')]),
    UsageError,
  );
  assert.match(twice, /first --listen/);
});

test('mistakes are named', () => {
  const mistakes: readonly [string, RegExp][] = [
    ['iscsi:host', /iscsi:\/\/HOST/],
    ['iscsi://u@h', /in a file: \?chap=FILE/],
    ['iscsi://a:b:c', /is not HOST/],
    ['iscsi://[1.2.3.4]', /not an IPv6 address/],
    ['iscsi://h:65536', /not a port/],
    ['iscsi://h:', /is not HOST/],
    ['iscsi://a b', /not a host name/],
    ['iscsi://h/disk', /not an iSCSI name: it starts with/],
    ['iscsi://h/iqn.2026-11.org.Example:a', /lower case/],
    [`iscsi://h/${NAME}/0`, /LUN is given as/],
    [`iscsi://h/${NAME}/`, /LUN is given as/],
    ['iscsi://h?frob=1', /'frob' is not known/],
    ['iscsi://h?alias', /alias needs a value/],
    ['iscsi://h?alias=a&alias=b', /alias is there twice/],
    ['iscsi://h?alias=%', /written %25/],
    [`iscsi://h?alias=${'x'.repeat(256)}`, /255 bytes/],
    ['iscsi://h?initiator=host', /no iSCSI name/],
    ['iscsi://h?mutual-chap=f', /needs chap/],
    ['iscsi://h?lun=a', /EXPORT:N/],
    ['iscsi://h?lun=a:16384', /0 to 16383/],
    ['iscsi://h?lun=c:0', /no disk is named 'c'; there is 'a', 'b'/],
    ['iscsi://h?lun=a:0&lun=b:0', /LUN 0 is there twice/],
    ['iscsi://h?removable=yes', /removable is on or off/],
    ['iscsi://h?thin=2:on', /LUN 2, which is not there/],
    ['iscsi://h?thin=1:on&thin=1:off', /thin for LUN 1 is there twice/],
    ['iscsi://h?thin=on&thin=off', /thin is there twice/],
    ['iscsi://h?serial=X', /serial=N:TEXT/],
    [`iscsi://h?serial=0:${'x'.repeat(33)}`, /1 to 32 printable/],
    ['iscsi://h?serial=0:%C3%A9', /printable ASCII/],
  ];
  for (const [text, says] of mistakes) {
    assert.match(
      refused(() => settled([text], [disk('a'), disk('b')]), UsageError),
      says,
      text,
    );
  }
  const shown = refused(() => parseIscsi('iscsi://user%hunter2hunter2@h'), UsageError);
  assert.doesNotMatch(shown, /hunter2/, 'a secret is not repeated');
});

test('CHAP files: one line, secrets of the right length, no content in messages', (t) => {
  const read = (content: string): unknown => readChapFile(secretFile(t, content), silent);
  assert.deepEqual(read(`u:${SECRET}`), { user: 'u', secret: new TextEncoder().encode(SECRET) });
  assert.deepEqual(read(`u:a:b c d e f g\r\n`), {
    user: 'u',
    secret: new TextEncoder().encode('a:b c d e f g'),
  });
  for (const [content, says] of [
    ['', /one line USER:SECRET/],
    ['hunter2hunter2', /one line/],
    [':hunter2hunter2', /one line/],
    ['u:hunter2hunter2\nv:hunter2hunter2\n', /one line/],
    ['u:hunter2', /secret of 7 bytes/],
    [`u:${'hunter2'.repeat(37)}`, /secret of 259 bytes/],
  ] as const) {
    const message = refused(() => read(content), ConfigError);
    assert.match(message, says);
    assert.doesNotMatch(message, /hunter2/);
  }
  assert.match(
    refused(() => readChapFile(join(scratch(t), 'no'), silent), ConfigError),
    /cannot be read/,
  );
  const open = secretFile(t, `u:${SECRET}`);
  chmodSync(open, 0o640);
  const warnings: string[] = [];
  readChapFile(open, (line) => warnings.push(line));
  assert.match(warnings.join('\n'), /can be read by others.*chmod 600/);
  const same = `iscsi://h?chap=${open}&mutual-chap=${secretFile(t, `v:${SECRET}`)}`;
  assert.match(
    refused(() => settleIscsi([parseIscsi(same)], [disk('a')], () => {}), UsageError),
    /same secret/,
  );
});

function portal(keys = '', host = '192.0.2.1'): IscsiListen {
  const [found] = settled([`iscsi://${host}:3261/${NAME}${keys}`], [disk('a')]);
  assert.ok(found !== undefined);
  return found;
}

test('commands to attach: discovery, login, QEMU, Windows where it can reach', () => {
  const far = portal();
  const url = `iscsi://192.0.2.1:3261/${NAME}/0`;
  const [lun] = far.target.luns;
  assert.ok(lun !== undefined);
  assert.equal(iscsiUrl(far, lun), url);
  const unit = attachIscsiLun(far, lun, false).map(({ command }) => command);
  assert.equal(
    unit[0],
    `qemu-system-x86_64 -m 1G -drive file=${url},format=raw,if=virtio,discard=unmap`,
  );
  const json = /-blockdev '([^']*)'/.exec(unit[1] ?? '')?.[1] ?? '';
  assert.deepEqual(JSON.parse(json), {
    driver: 'iscsi',
    'node-name': 'holdfast',
    transport: 'tcp',
    portal: '192.0.2.1:3261',
    target: NAME,
    lun: 0,
    discard: 'unmap',
  });
  assert.ok(attachIscsiLun(far, lun, true).every(({ command }) => !command.includes('discard')));
  const host = attachIscsiTarget(far).map(({ command }) => command);
  const record = `sudo iscsiadm -m node -T ${NAME} -p 192.0.2.1:3261`;
  assert.deepEqual(host, [
    'iscsi-ls -s iscsi://192.0.2.1:3261',
    'sudo iscsiadm -m discovery -t sendtargets -p 192.0.2.1:3261',
    `${record} --login`,
    `${record} --logout`,
    'New-IscsiTargetPortal -TargetPortalAddress 192.0.2.1 -TargetPortalPortNumber 3261',
    `Connect-IscsiTarget -NodeAddress ${NAME} -IsPersistent $true`,
  ]);
  const near = attachIscsiTarget(portal('', '[::1]')).map(({ command }) => command);
  assert.ok(near.every((command) => !command.includes('Windows') && !/New-Iscsi/.test(command)));
  assert.match(near[1] ?? '', /-p '\[::1\]:3261'$/);
});

test('a secret is in no report', (t) => {
  const file = secretFile(t, `bob:${SECRET}`);
  const secret = portal(`?chap=${file}`);
  const served = servedDisks([disk('a')], [], { mode: 'off' }, [secret]);
  const human = humanReport(served, [], false).join('\n');
  assert.match(human, /authmethod -v CHAP/);
  assert.match(human, /username -v bob/);
  const json = jsonReport(served, 1);
  for (const text of [human, json]) assert.doesNotMatch(text, /correct/);
  const { disks } = JSON.parse(json) as { disks: { iscsi: unknown }[] };
  assert.deepEqual(disks[0]?.iscsi, [
    {
      url: `iscsi://192.0.2.1:3261/${NAME}/0`,
      target: NAME,
      lun: 0,
      host: '192.0.2.1',
      port: 3261,
      chap: true,
    },
  ]);
});

test('the report: every disk with its URLs, every target once', () => {
  const texts = [`iscsi://127.0.0.1/${NAME}`, `iscsi://127.0.0.1:3261/${NAME}`];
  const disks = [disk('a'), disk('b')];
  const lines = humanReport(
    servedDisks(disks, [], { mode: 'off' }, settled(texts, disks)),
    [],
    false,
  );
  assert.deepEqual(
    lines.filter((line) => line.startsWith('  iscsi:')),
    [0, 0, 1, 1].map((lun, i) => `  iscsi://127.0.0.1:${i % 2 === 0 ? 3260 : 3261}/${NAME}/${lun}`),
  );
  assert.deepEqual(
    lines.filter((line) => line.startsWith('target')),
    [`target ${NAME}, LUNs 0, 1`],
  );
});
