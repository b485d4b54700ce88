import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { holdfast, scratch, start } from './testing.ts';

// An operator's mistakes: one line that says what and what to do, the documented exit code, nothing created or changed.

interface Mistake {
  readonly name: string;
  readonly words: readonly string[];
  readonly code: number;
  readonly says: RegExp;
}

const PRIVATE = ['-k', 'sock'];

const MISTAKES: readonly Mistake[] = [
  {
    name: 'an unknown mode',
    words: ['serve', 'disk.img', '--cache', 'writebak'],
    code: 2,
    says: /'writebak' is invalid.*writeback/,
  },
  {
    name: 'an unknown option',
    words: ['serve', 'disk.img', '--tls-psks', 'x'],
    code: 2,
    says: /unknown option '--tls-psks'.*--tls-psk/,
  },
  {
    name: 'a port that is none',
    words: ['serve', 'disk.img', '-p', '70000'],
    code: 2,
    says: /--port must be a number from 0 to 65535, not '70000'/,
  },
  {
    name: 'a URI that is none',
    words: ['serve', 'disk.img', '--listen', 'tcp://localhost:1'],
    code: 2,
    says: /--listen 'tcp:\/\/localhost:1'/,
  },
  {
    name: 'a target name that is none',
    words: ['serve', 'disk.img', '--listen', 'iscsi://127.0.0.1/disk'],
    code: 2,
    says: /'disk' is not an iSCSI name: it starts with 'iqn\.'/,
  },
  {
    name: 'a CHAP file that is not there',
    words: ['serve', 'disk.img', '--listen', 'iscsi://127.0.0.1:0?chap=no/such'],
    code: 78,
    says: /the CHAP file no\/such cannot be read.*USER:SECRET/,
  },
  {
    name: 'a size that is none',
    words: ['create', 'new.img', '1X'],
    code: 2,
    says: /not a size: '1X'/,
  },
  {
    name: 'keys without TLS',
    words: ['serve', 'disk.img', '--tls-psk', 'keys'],
    code: 2,
    says: /TLS is off; add --tls/,
  },
  {
    name: 'a missing file',
    words: ['serve', 'missing.img', ...PRIVATE],
    code: 78,
    says: /'missing\.img' does not exist.*create/,
  },
  {
    name: 'a directory',
    words: ['serve', 'directory', ...PRIVATE],
    code: 78,
    says: /'directory' is a directory.*raw image/,
  },
  {
    name: 'an odd size',
    words: ['serve', 'odd.img', ...PRIVATE],
    code: 78,
    says: /'odd\.img' has an odd size: 1000 bytes.*truncate/,
  },
  {
    name: 'an empty image',
    words: ['serve', 'empty.img', ...PRIVATE],
    code: 78,
    says: /'empty\.img' is empty/,
  },
  {
    name: 'a file system without O_DIRECT',
    words: ['serve', '--read-only', '--cache', 'none', '/sys/kernel/uevent_seqnum', ...PRIVATE],
    code: 78,
    says: /without O_DIRECT \(sysfs\).*--cache writeback/,
  },
  {
    name: 'missing certificates',
    words: ['serve', 'disk.img', '--tls', 'require', '--tls-certificates', 'directory', ...PRIVATE],
    code: 78,
    says: /server-cert\.pem.*does not exist/,
  },
  {
    name: 'a pid file that cannot be written',
    words: ['serve', 'disk.img', '--pid-file', 'no/where', ...PRIVATE],
    code: 78,
    says: /cannot write the pid file no\/where/,
  },
  {
    name: 'an image that exists',
    words: ['create', 'disk.img', '1M'],
    code: 78,
    says: /'disk\.img': it exists.*--overwrite/,
  },
  {
    name: 'a size that no disk has',
    words: ['create', 'new.img', '1000'],
    code: 78,
    says: /1000 bytes.*multiple of 512/,
  },
  {
    name: 'a server that is not there',
    words: ['info', 'nbd+unix:///?socket=no'],
    code: 69,
    says: /cannot connect/,
  },
  {
    name: 'information about nothing',
    words: ['info', 'missing.img'],
    code: 78,
    says: /does not exist/,
  },
  {
    name: 'an explanation of nothing',
    words: ['explain', 'directory'],
    code: 78,
    says: /is a directory/,
  },
  {
    name: 'clearing nothing',
    words: ['clear', 'missing.img', '--yes'],
    code: 78,
    says: /does not exist/,
  },
  { name: 'a page of no command', words: ['man', 'frob'], code: 2, says: /no command 'frob'/ },
];

function workplace(t: TestContext): string {
  const path = scratch(t);
  writeFileSync(join(path, 'disk.img'), 'x'.repeat(4096));
  writeFileSync(join(path, 'odd.img'), 'x'.repeat(1000));
  writeFileSync(join(path, 'empty.img'), '');
  mkdirSync(join(path, 'directory'));
  return path;
}

/** Names and contents of all there is. */
function snapshot(path: string): string[] {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .map((entry) => {
      const file = join(entry.parentPath, entry.name);
      return entry.isFile() ? `${file}: ${readFileSync(file, 'latin1')}` : file;
    })
    .toSorted();
}

/** Relative names keep the messages short; the program is started in `path`. */
function assertRefused(
  ended: { code: number | string; stdout: string; stderr: string },
  mistake: Mistake,
): void {
  assert.equal(ended.code, mistake.code, ended.stderr);
  assert.equal(ended.stdout, '');
  assert.match(ended.stderr, /^holdfast: [^\n]+\n$/, 'one line');
  assert.match(ended.stderr, mistake.says);
}

for (const mistake of MISTAKES) {
  test(`${mistake.name}: exit code ${mistake.code}`, async (t) => {
    const path = workplace(t);
    const before = snapshot(path);
    const words = mistake.words.map((word) =>
      /^(disk|odd|empty|missing|new)\.img$|^(directory|sock|keys|no\/where)$/.test(word)
        ? join(path, word)
        : word,
    );
    const ended = await holdfast(t, ...words);
    assertRefused({ ...ended, stderr: ended.stderr.replaceAll(`${path}/`, '') }, mistake);
    assert.deepEqual(snapshot(path), before, 'nothing created or changed');
  });
}

test('a busy port: exit code 69, and the disk is as it was', async (t) => {
  const path = workplace(t);
  const before = snapshot(path);
  const other = createServer().listen(0, '127.0.0.1');
  t.after(() => other.close());
  await new Promise((resolve) => other.once('listening', resolve));
  const address = other.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  const ended = await holdfast(t, 'serve', join(path, 'disk.img'), '-p', String(port));
  assertRefused(ended, {
    name: '',
    words: [],
    code: 69,
    says: new RegExp(`127\\.0\\.0\\.1:${port}.*in use`),
  });
  assert.deepEqual(snapshot(path), before);
});

test('a disk in use: exit code 69', async (t) => {
  const path = workplace(t);
  const disk = join(path, 'disk.img');
  const first = start(t, 'serve', disk, '-q', '-k', '-');
  await first.until(/nbd\+unix/);
  const ended = await holdfast(t, 'serve', disk, '-q', '-k', join(path, 'sock'));
  assertRefused(ended, { name: '', words: [], code: 69, says: /disk\.img' is in use/ });
  assertRefused(await holdfast(t, 'create', '--overwrite', disk, '1M'), {
    name: '',
    words: [],
    code: 69,
    says: /is in use/,
  });
  first.kill('SIGTERM');
  assert.equal((await first.ended).code, 0);
});

test('the line of a mistake has no colour and no second line, also with -v', async (t) => {
  const path = workplace(t);
  truncateSync(join(path, 'disk.img'), 4095);
  const ended = await holdfast(t, 'serve', '-v', join(path, 'disk.img'), '-k', join(path, 'sock'));
  assert.equal(ended.code, 78);
  const errors = ended.stderr.split('\n').filter((line) => line.includes('odd size'));
  assert.equal(errors.length, 1);
  assert.ok(!ended.stderr.includes('\u001B'));
});
