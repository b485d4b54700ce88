import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeLabFolder, ownFile, removeLabFolder } from '../check/lab-folder.ts';
import { fillRecordingDisk, reserveRecordingDisk } from './recording-disk.ts';
import { fillIn, runWorkload, type Workload } from './workload.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-workload-'));
test.after(() => rmSync(folder, { recursive: true }));

function workload(script: string, more: Partial<Workload> = {}): Workload {
  return {
    command: ['sh', '-c', script],
    env: {},
    ackPattern: /^ACK\b\s*(.*)/,
    acknowledged: () => {},
    line: () => {},
    signal: new AbortController().signal,
    ...more,
  };
}

test('acknowledgements are found among the lines, and the exit code is the one of the workload', async () => {
  const [acks, lines]: [string[], string[]] = [[], []];
  const code = await runWorkload(
    workload('echo ACK 1; echo ACKNOWLEDGED; echo two; printf "ACK  3"; exit 7', {
      acknowledged: (text) => acks.push(text),
      line: (line) => lines.push(line),
    }),
  );
  assert.equal(code, 7);
  assert.deepEqual(acks, ['1', '3']);
  assert.deepEqual(lines, ['ACK 1', 'ACKNOWLEDGED', 'two', 'ACK  3']);
});

test('a program that is not there is the mistake of whoever asked for it', async () => {
  await assert.rejects(
    runWorkload({ ...workload(''), command: ['/no/such/program'] }),
    /the workload cannot be started/,
  );
});

test('what a workload leaves running in its group ends with it', async () => {
  const alive = join(folder, 'alive');
  await runWorkload(workload(`(while sleep 0.1; do date > ${alive}; done) & sleep 0.5`));
  assert.ok(existsSync(alive), 'it ran');
  writeFileSync(alive, '');
  await sleep(400);
  assert.equal(readFileSync(alive, 'utf8'), '', 'it runs no more');
});

test('who holds the standard output of a workload that has ended is not waited for', async () => {
  const started = performance.now();
  const code = await runWorkload(workload('setsid sleep 4 & exit 0'));
  assert.equal(code, 0);
  assert.ok(performance.now() - started < 3500);
});

test('an interrupted workload is told to end, with all its group', async () => {
  const interrupt = new AbortController();
  const ended = join(folder, 'ended');
  const code = await runWorkload(
    workload(`sh -c 'trap "echo yes > ${ended}; exit" TERM; echo up; sleep 20 & wait'; exit 3`, {
      signal: interrupt.signal,
      line: () => interrupt.abort(),
    }),
  );
  assert.equal(code, 128 + 15);
  for (let i = 0; i < 50 && !existsSync(ended); i += 1) await sleep(20);
  assert.ok(existsSync(ended));
});

test('words in braces are filled in; one without a value is refused', () => {
  const words = ['a{disk}b', '{mount}', '{other}'];
  assert.deepEqual(fillIn(words, { disk: '/d', mount: '/m' }), ['a/db', '/m', '{other}']);
  assert.throws(() => fillIn(words, { disk: '/d', mount: undefined }), /\{mount\}.*there is none/);
});

test('a file that is there is no scratch disk, and stays as it is', async () => {
  const path = join(folder, 'x.trace.disk');
  writeFileSync(path, 'mine');
  assert.throws(() => reserveRecordingDisk(path), /cannot make the disk/);
  assert.equal(readFileSync(path, 'utf8'), 'mine');
  const image = join(folder, 'image');
  writeFileSync(image, 'image');
  const copy = join(folder, 'copy');
  reserveRecordingDisk(copy);
  await fillRecordingDisk(copy, image, 0);
  assert.equal(readFileSync(copy, 'utf8'), 'image');
});

test("files that go with a lab's folder are removed with it", () => {
  const lab = makeLabFolder();
  const path = join(folder, 'scratch\n.disk');
  writeFileSync(path, '');
  ownFile(lab, path);
  ownFile(lab, join(folder, 'never-made'));
  removeLabFolder(lab);
  assert.ok(!existsSync(path));
  assert.ok(!existsSync(lab));
});
