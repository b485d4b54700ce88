import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { flush, write } from '../../src/block/await.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { OP } from '../../src/block/io.ts';
import type { Exploration } from '../../src/lab/explore/types.ts';
import { connectNbd } from '../../src/protocols/nbd/client.ts';
import { openReactor } from '../../src/reactor/open.ts';
import { openTrace } from '../../src/trace/reader.ts';
import type { Trace } from '../../src/trace/trace.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';
import { lab, labSucceeds, MAIN } from './support/lab.ts';
import { peerTool, requiresPeers } from './support/peers.ts';
import { QEMU_ISCSI, requires, tool } from './support/requires.ts';

// Recording through every face, with clients that are not ours; promises from standard output and from `lab mark`; two disks in
// one trace.

/** What qemu-io is asked on every face: two writes, a flush, a write that is never flushed, one that is stable by itself. */
const COMMANDS = [
  'write -P 1 0 4k',
  'write -P 2 8k 4k',
  'flush',
  'write -P 3 16k 4k',
  'write -f -P 4 24k 4k',
];

function quoted(words: readonly string[]): string {
  return words.map((word) => `'${word}'`).join(' ');
}

/** The requests of a workload, as "WRITE 0+4096". Those of the server itself, which flushes when it ends, are not its. */
function requestsOf({ requests }: Trace): string[] {
  const names = new Map<number, string>(Object.entries(OP).map(([name, op]) => [op, name]));
  const { op, offset, length, source, flags } = requests;
  return [...op.keys()]
    .filter((r) => source[r] !== 0)
    .map((r) => {
      const fua = ((flags[r] as number) & 1) === 0 ? '' : ' FUA';
      const where = op[r] === OP.FLUSH ? '' : ` ${offset[r]}+${length[r]}`;
      return `${names.get(op[r] as number)}${where}${fua}`;
    });
}

async function recordIo(
  t: TestContext,
  face: string,
  qemuIo: readonly string[],
): Promise<{ trace: Trace; folder: string }> {
  const folder = workspace(t);
  const flags = COMMANDS.flatMap((command) => ['-c', command]);
  const mark = quoted([process.execPath, MAIN, 'lab', 'mark', '--ack', 'marked']);
  // The peers' programs are named from the root of the sources.
  const script = `cd ${quoted([process.cwd()])}; ${quoted(qemuIo)} ${quoted(flags)} "$0" && echo "ACK said" && ${mark}`;
  const words = [
    'record',
    '--face',
    face,
    '--size',
    '4M',
    '-o',
    't.trace',
    '--',
    'sh',
    '-c',
    script,
  ];
  // No quotes around it: its last word is filled in.
  await labSucceeds(t, folder, [
    ...words,
    face === 'vhost-user-blk'
      ? `driver=virtio-blk-vhost-user,path={disk},cache.direct=on`
      : '{disk}',
  ]);
  const trace = openTrace(join(folder, 't.trace'));
  t.after(() => trace.close());
  assert.ok(trace.complete);
  const acks = trace.marks.filter(({ kind }) => kind === 'ack').map(({ text }) => text);
  assert.deepEqual(acks, ['said', 'marked']);
  return { trace, folder };
}

function hasAll(trace: Trace): void {
  const found = requestsOf(trace);
  const order = ['WRITE 0+4096', 'WRITE 8192+4096', 'FLUSH', 'WRITE 16384+4096'];
  let at = -1;
  for (const one of order) {
    at = found.indexOf(one, at + 1);
    assert.ok(at >= 0, `${one} in ${found.join(', ')}`);
  }
  // qemu-io sends FUA where the protocol has it, else a flush after the write.
  const last = found.findIndex((one) => one.startsWith('WRITE 24576+4096'));
  assert.ok(
    last > at && (found[last]?.endsWith(' FUA') || found[last + 1] === 'FLUSH'),
    found.join(', '),
  );
}

for (const [face, programs] of [
  ['fuse', ['qemu-io']],
  ['nbd', ['qemu-io']],
  ['iscsi', ['qemu-io', QEMU_ISCSI]],
] as const) {
  test(`--face ${face}: what qemu-io does is in the trace`, requires(...programs), async (t) => {
    const { trace, folder } = await recordIo(t, face, [
      tool('qemu-io'),
      '-f',
      'raw',
      '-t',
      'writeback',
    ]);
    hasAll(trace);
    const { code, stdout, stderr } = await lab(t, folder, [
      'explore',
      't.trace',
      '--model',
      'M1',
      '--json',
    ]);
    assert.ok([0, 1].includes(code), stdout + stderr);
  });
}

test(
  '--face vhost-user-blk: what qemu-io does through libblkio is in the trace',
  requiresPeers(),
  async (t) => {
    const { command, env } = peerTool('qemu-io');
    const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const io = ['env', ...settings, ...command, '-t', 'none', '--image-opts'];
    const { trace } = await recordIo(t, 'vhost-user-blk', io);
    hasAll(trace);
  },
);

/** Rows that are logged on one disk and then written to the other. */
async function workOnTwo(socket: string, isSound: boolean): Promise<void> {
  const { reactor } = await openReactor('auto', {});
  const at = (name: string): Promise<BlockDevice> =>
    connectNbd(reactor, `nbd+unix:///${name}?socket=${socket}`);
  const [log, data] = [await at('log'), await at('data')];
  for (let i = 1; i <= 5; i += 1) {
    await write(log, i * 4096, new Uint8Array(512).fill(i));
    if (isSound) await flush(log);
    await write(data, i * 4096, new Uint8Array(512).fill(i));
    if (i === 3) await flush(data);
  }
  await log.close();
  await data.close();
  await reactor.close();
}

/** What is in the data must be in the log. */
const CHECK_TWO = `
export const usesAcks = false;
export async function check({ devices: [log, data] }, { readAll, pass, fail }) {
  for (let i = 1; i <= 5; i += 1) {
    const [logged] = await readAll(log, i * 4096, 1);
    const [there] = await readAll(data, i * 4096, 1);
    if (there === i && logged !== i) return fail('atomicity', 'data without its log');
  }
  return pass();
}`;

const CHECK_TWO_SH = `
for i in 1 2 3 4 5; do
  log=$(od -An -tu1 -j $((i * 4096)) -N1 "$1" | tr -d ' ')
  data=$(od -An -tu1 -j $((i * 4096)) -N1 "$2" | tr -d ' ')
  if [ "$data" = $i ] && [ "$log" != $i ]; then echo "atomicity: data without its log"; exit 1; fi
done`;

for (const how of ['sound', 'hasty']) {
  test(`two disks in one trace have one clock: a ${how} log`, async (t) => {
    const folder = workspace(t);
    const disks = ['log', 'data'].map(
      (name) => `${name}=${makeImage(folder, 1, 0, `${name}.img`)}`,
    );
    const control = join(folder, 'control');
    const trace = join(folder, 't.trace');
    const server = await startHoldfast(t, [...disks, '--record', trace, '--control', control]);
    await workOnTwo(server.socket, how === 'sound');
    await server.stop();

    writeFileSync(join(folder, 'check.mjs'), CHECK_TWO);
    writeFileSync(join(folder, 'check.sh'), CHECK_TWO_SH);
    for (const check of ['./check.mjs', 'sh check.sh {disk0} {disk1}']) {
      const { code, stdout, stderr } = await lab(t, folder, [
        'explore',
        't.trace',
        '--model',
        'M1',
        '--json',
        '--check',
        check,
      ]);
      assert.equal(code, how === 'sound' ? 0 : 1, stdout + stderr);
      const { exploration } = JSON.parse(stdout) as { exploration: Exploration };
      const decided = exploration.coverage.filter(({ reached }) => reached === 'exact');
      assert.equal(decided.length, exploration.coverage.length);
      if (how === 'hasty') {
        assert.equal(exploration.findings[0]?.verdict.class, 'data without its log');
        const id = exploration.findings[0]?.id ?? '';
        await labSucceeds(t, folder, ['show', id, '--write', 's.img']);
        const [log, data] = ['s.img', 's.img.1'].map((name) => readFileSync(join(folder, name)));
        const rows = [1, 2, 3, 4, 5].map((i) => [log?.[i * 4096], data?.[i * 4096], i]);
        assert.ok(rows.some(([logged, there, i]) => there === i && logged !== i));
      }
    }
  });
}

test(
  'a cache mode that swallows flushes is named by the recorder, the explorer and the report (D13)',
  requires('qemu-io'),
  async (t) => {
    const folder = workspace(t);
    const io = [tool('qemu-io'), '-f', 'raw', '-c', 'write -P 1 0 4k', '-c', 'flush', '{disk}'];
    const recorded = await lab(t, folder, [
      'record',
      '--face',
      'nbd',
      '--cache',
      'unsafe',
      '-o',
      't.trace',
      '--',
      ...io,
    ]);
    assert.equal(recorded.code, 0, recorded.stderr);
    assert.match(recorded.stderr, /cache mode unsafe: FLUSHes were answered and not done/);
    const explored = await lab(t, folder, [
      'explore',
      't.trace',
      '--check',
      'test -s {disk}',
      '--report',
      'r.html',
    ]);
    assert.equal(explored.code, 0, explored.stderr);
    assert.match(explored.stderr, /cache mode unsafe/);
    assert.match(readFileSync(join(folder, 'r.html'), 'utf8'), /was served with cache mode unsafe/);
    // The same with a mode that keeps its word says nothing of the kind.
    const honest = await lab(t, folder, ['record', '--face', 'nbd', '-o', 'h.trace', '--', ...io]);
    assert.doesNotMatch(honest.stderr, /unsafe/);
  },
);
