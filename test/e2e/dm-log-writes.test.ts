import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { MiB } from '../../src/base/units.ts';
import { OP } from '../../src/block/io.ts';
import { exportDmLogWrites } from '../../src/trace/dm-log-writes-export.ts';
import { importDmLogWrites } from '../../src/trace/dm-log-writes.ts';
import { openTrace } from '../../src/trace/reader.ts';
import type { Trace } from '../../src/trace/trace.ts';
import { onBothReactors } from './support/both.ts';
import { succeed } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';
import { requires } from './support/requires.ts';

// QEMU's blklogwrites driver writes the format of dm-log-writes by code that is not ours.

const SIZE_MIB = 4;

test(
  'a log that QEMU has written is read: writes, zeroes, discards, flushes',
  requires('qemu-io'),
  async (t) => {
    const folder = workspace(t);
    const disk = makeImage(folder, SIZE_MIB);
    const log = join(folder, 'log');
    for (const sectorBytes of [512, 4096]) {
      await qemuIo(log, `file.driver=file,file.filename=${disk},log-sector-size=${sectorBytes}`, [
        'write -P 1 0 4k',
        'flush',
        'write -z 8k 4k',
        'discard 16k 4k',
        'write -P 7 4k 12k',
        'flush',
      ]);
      const trace = imported(log, join(folder, `${sectorBytes}.trace`));
      assert.equal(trace.disks[0]?.blockBytes, sectorBytes);
      assert.deepEqual(wordsOf(trace).slice(0, 6), [
        'WRITE 4096 at 0 of 1',
        'FLUSH',
        'WRITE 4096 at 8192 of 0',
        'DISCARD 4096 at 16384',
        'WRITE 12288 at 4096 of 7',
        'FLUSH',
      ]);
      trace.close();
    }
  },
);

test('QEMU goes on with a log that we have written', requires('qemu-io'), async (t) => {
  const folder = workspace(t);
  const disk = makeImage(folder, SIZE_MIB);
  const [first, log] = [join(folder, 'first'), join(folder, 'log')];
  const file = `file.driver=file,file.filename=${disk}`;
  await qemuIo(first, file, ['write -P 1 0 4k', 'flush', 'discard 16k 4k', 'flush']);
  const trace = imported(first, join(folder, '1.trace'));
  exportDmLogWrites(trace, log);
  const before = wordsOf(trace);
  trace.close();
  await qemuIo(log, `${file},log-append=on`, ['write -P 2 8k 4k', 'flush'], true);
  const longer = imported(log, join(folder, '2.trace'));
  assert.deepEqual(wordsOf(longer).slice(0, before.length + 2), [
    ...before,
    'WRITE 4096 at 8192 of 2',
    'FLUSH',
  ]);
  longer.close();
});

onBothReactors(
  'K0e: one run, recorded by us and by QEMU above us: the disk is the same at every flush',
  ['qemu-io'],
  async (t, reactor) => {
    const folder = workspace(t);
    const disk = makeImage(folder, SIZE_MIB);
    const ours = join(folder, 'ours.trace');
    const server = await startHoldfast(t, [disk, '--record', ours], { reactor });
    const commands: string[] = [];
    for (let i = 1; i <= 40; i += 1) {
      commands.push(`write -P ${i} ${((i * 37) % 500) * 4}k ${4 * (1 + (i % 9))}k`);
      if (i % 5 === 0) commands.push('flush');
    }
    const log = join(folder, 'log');
    const nbd = `file.driver=nbd,file.server.type=unix,file.server.path=${server.socket}`;
    await qemuIo(log, nbd, commands);
    await server.stop();
    const mine = openTrace(ours);
    const theirs = imported(log, join(folder, 'theirs.trace'));
    assert.ok(mine.complete);
    const [a, b] = [statesAtFlushes(mine), statesAtFlushes(theirs)];
    assert.equal(b.length, 8);
    assert.equal(a.length, b.length);
    for (const [i, state] of b.entries()) assert.ok(a[i]?.equals(state), `flush ${i}`);
    assert.ok(readFileSync(disk).equals(a.at(-1) as Buffer), 'and so is what is on the disk');
    // The log that we make of our trace says the same as theirs.
    const exported = join(folder, 'exported');
    exportDmLogWrites(mine, exported, { sectorBytes: 512 });
    const again = imported(exported, join(folder, 'again.trace'));
    assert.deepEqual(withoutRepeats(wordsOf(again)), withoutRepeats(wordsOf(theirs)));
    for (const trace of [mine, theirs, again]) trace.close();
  },
);

/** Runs qemu-io on blklogwrites over what `file` says, with no flushes of its own. Appends to the log or makes a new one. */
async function qemuIo(
  log: string,
  file: string,
  commands: string[],
  append = false,
): Promise<void> {
  if (!append) writeFileSync(log, '');
  const options = `driver=blklogwrites,${file},log.driver=file,log.filename=${log}`;
  const words = commands.flatMap((command) => ['-c', command]);
  await succeed(['qemu-io', '-t', 'writeback', '--image-opts', ...words, options]);
}

function imported(log: string, path: string): Trace {
  importDmLogWrites(log, path, { sizeBytes: SIZE_MIB * MiB });
  return openTrace(path);
}

function wordsOf(trace: Trace): string[] {
  const { requests } = trace;
  return Array.from({ length: requests.count }, (_, i) => {
    const where = `${requests.length[i]} at ${requests.offset[i]}`;
    if (requests.op[i] === OP.FLUSH) return 'FLUSH';
    if (requests.op[i] === OP.DISCARD) return `DISCARD ${where}`;
    return `WRITE ${where} of ${dataOf(trace, i)[0]}`;
  });
}

/**
 * QEMU flushes what is beneath blklogwrites twice for each flush, once for the driver and once for its child, and again
 * at the end; so do we. A FLUSH after a FLUSH says nothing.
 */
function withoutRepeats(words: readonly string[]): string[] {
  return words.filter((word, i) => word !== 'FLUSH' || words[i - 1] !== 'FLUSH');
}

/** The disk as it must be after each FLUSH that follows a write. */
function statesAtFlushes(trace: Trace): Buffer[] {
  const image = Buffer.alloc(SIZE_MIB * MiB);
  const states: Buffer[] = [];
  let changed = false;
  const { requests } = trace;
  for (let i = 0; i < requests.count; i += 1) {
    if (requests.op[i] === OP.WRITE) {
      image.set(dataOf(trace, i), requests.offset[i]);
      changed = true;
    } else if (requests.op[i] !== OP.FLUSH) {
      assert.fail('a trace of writes and flushes');
    } else if (changed) {
      states.push(Buffer.from(image));
      changed = false;
    }
  }
  return states;
}

function dataOf(trace: Trace, request: number): Uint8Array {
  const data = new Uint8Array(trace.requests.length[request] as number);
  trace.readData(trace.requests.dataAt[request] as number, data);
  return data;
}
