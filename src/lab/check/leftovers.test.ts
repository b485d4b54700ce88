import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { TraceBuilder } from '../../trace/builder.ts';
import { openCrashModel } from '../model/crash-model.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';
import { openStateDisks } from '../state-device/state-device.ts';
import { writtenFiles } from './disk-files.ts';
import { makeLabFolder, mountsUnder, readMounts, removeLabFolder } from './lab-folder.ts';
import { openCheckerPool } from './pool.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-left-'));
test.after(() => rmSync(folder, { recursive: true }));

const ALL: StateSpec = { cut: 0, rule: { kind: 'all' } };
const FLOOR: StateSpec = { cut: 0, rule: { kind: 'floor' } };
const skip = process.getuid?.() === 0 ? false : "loop devices and mounts are root's";

/** A small ext2 file system with a file in it, all written at once. */
function extModel(path: string): CrashModel {
  const image = join(folder, 'ext.img');
  const source = join(folder, 'source');
  mkdirSync(source, { recursive: true });
  writeFileSync(join(source, 'file'), 'content');
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext2', '-d', source, image, '1024'], {
    stdio: 'ignore',
  });
  const bytes = readFileSync(image);
  const builder = new TraceBuilder({ disks: [{ sizeBytes: bytes.length }] });
  for (let at = 0; at < bytes.length; at += 65_536) {
    builder.wrote({ offset: at, data: bytes.subarray(at, at + 65_536) });
  }
  const trace = builder.save(path);
  return openCrashModel(trace, { model: 'M2', unitBytes: 512, overlap: 'issued', poison: false });
}

/** Loop devices over disks of this process's labs. */
function loops(): string[] {
  return readdirSync('/sys/block').filter((name) => {
    try {
      const backing = readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8');
      return backing.includes(`/holdfast-lab-${process.pid}-`);
    } catch {
      return false;
    }
  });
}

test(
  'file systems left mounted and loop devices left attached are taken away',
  { skip },
  async () => {
    const at = join(folder, 'at');
    mkdirSync(at);
    const model = extModel(join(folder, 'trace-loop'));
    const pool = await openCheckerPool({
      model,
      checker: {
        kind: 'command',
        options: {
          command: `l=$(losetup -f --show {disk}); mount $l ${at} || exit 10; test "$(cat ${at}/file)" = content`,
        },
        timeoutMs: 10_000,
      },
      jobs: 1,
      wantReads: true,
    });
    try {
      const classes: string[] = [];
      for (const state of [ALL, FLOOR, ALL, FLOOR]) {
        const [run] = await pool.run([state]);
        classes.push(`${run?.verdict.outcome} ${run?.verdict.class}`);
        assert.deepEqual(loops(), []);
        assert.equal(
          readMounts().some((mount) => mount.at === at),
          false,
        );
      }
      assert.deepEqual(classes, ['pass ', 'pass state 10', 'pass ', 'pass state 10']);
    } finally {
      await pool.close();
      model.trace.close();
    }
  },
);

test(
  'a mount in the scratch folder is undone, and nothing below it is removed',
  { skip },
  async () => {
    const precious = join(folder, 'precious');
    mkdirSync(precious);
    writeFileSync(join(precious, 'file'), 'mine');
    const model = extModel(join(folder, 'trace-scratch'));
    const line = `mkdir {scratch}/m && mount --bind ${precious} {scratch}/m && touch {scratch}/x && true {disk}`;
    const checker = { kind: 'command', options: { command: line }, timeoutMs: 10_000 };
    const pool = await openCheckerPool({ model, checker, jobs: 1, wantReads: false });
    try {
      // The second run finds the folder empty, or mkdir would fail.
      for (let i = 0; i < 2; i += 1)
        assert.equal((await pool.run([ALL]))[0]?.verdict.outcome, 'pass');
      assert.equal(readFileSync(join(precious, 'file'), 'utf8'), 'mine');
    } finally {
      await pool.close();
      model.trace.close();
    }
  },
);

test("without FUSE each state is written out, sparse and without the last one's bytes", async () => {
  const builder = new TraceBuilder({ disks: [{ sizeBytes: 1 << 30 }] });
  builder.wrote({ offset: 0, data: 1, length: 4096 });
  builder.wrote({ offset: 1 << 29, data: 2, length: 4096 });
  const model = openCrashModel(builder.trace(), {
    model: 'M2',
    unitBytes: 512,
    overlap: 'issued',
    poison: false,
  });
  const disks = openStateDisks(model, false);
  const lab = makeLabFolder();
  mkdirSync(join(lab, 'worker0'));
  const files = writtenFiles(disks, join(lab, 'worker0'));
  const [path] = files.paths;
  assert.ok(path !== undefined);
  const read = (at: number): number =>
    execFileSync('dd', [`if=${path}`, 'bs=1', `skip=${at}`, 'count=1', 'status=none'])[0] ?? -1;
  for (const state of [ALL, FLOOR, ALL]) {
    disks.shown.show(state);
    await files.begin();
    const there = state === ALL;
    assert.deepEqual([read(0), read(1 << 29), read(4096)], [there ? 1 : 0, there ? 2 : 0, 0]);
    writeFileSync(path, 'scribble', { flag: 'r+' });
    await files.end();
  }
  await files.close();
  await disks.close();
  assert.equal(existsSync(path), false);
  removeLabFolder(lab);
  assert.equal(existsSync(lab), false);
});

/** Another process that opens a pool, says so, and waits. */
function startLab(trace: string): { child: ReturnType<typeof spawn>; ready: Promise<string> } {
  const script = `
    import { readdirSync } from 'node:fs';
    import { tmpdir } from 'node:os';
    const { openTrace } = await import(${JSON.stringify(url('../../trace/reader.ts'))});
    const { openCrashModel } = await import(${JSON.stringify(url('../model/crash-model.ts'))});
    const { openCheckerPool } = await import(${JSON.stringify(url('./pool.ts'))});
    const options = { model: 'M2', unitBytes: 512, overlap: 'issued', poison: false };
    const model = openCrashModel(openTrace(${JSON.stringify(trace)}), options);
    const checker = { kind: 'command', options: { command: 'tail -f {disk}' }, timeoutMs: 1e6 };
    const pool = await openCheckerPool({ model, checker, jobs: 1, wantReads: true });
    void pool.run([{ cut: 0, rule: { kind: 'all' } }]);
    const isOurs = (name) => name.startsWith('holdfast-lab-' + process.pid + '-');
    setTimeout(() => console.log(readdirSync(tmpdir()).find(isOurs)), 300);
  `;
  const file = join(folder, 'lab.mjs');
  writeFileSync(file, script);
  const child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ready = new Promise<string>((resolve) => {
    child.stdout?.once('data', (data: Buffer) => resolve(join(tmpdir(), data.toString().trim())));
  });
  return { child, ready };
}

function url(path: string): string {
  return fileURLToPath(new URL(path, import.meta.url));
}

/** Processes whose command line has this word in it. */
function programsWith(word: string): number[] {
  return readdirSync('/proc').flatMap((name) => {
    try {
      const line = readFileSync(`/proc/${name}/cmdline`, 'utf8');
      return /^\d+$/.test(name) && line.split('\0').some((part) => part.includes(word))
        ? [Number(name)]
        : [];
    } catch {
      return [];
    }
  });
}

test('a lab that is interrupted leaves nothing, and what a killed one left goes with the next', async () => {
  const path = join(folder, 'trace-end');
  const builder = new TraceBuilder();
  builder.wrote({ offset: 0, data: 1 });
  builder.save(path).close();
  for (const signal of ['SIGINT', 'SIGKILL'] as const) {
    const { child, ready } = startLab(path);
    const lab = await ready;
    assert.equal(mountsUnder(lab).length, 1);
    const [running] = programsWith(basename(lab));
    assert.ok(running !== undefined);
    const ended = new Promise<string | null>((resolve) => {
      child.once('exit', (_code, by) => resolve(by));
    });
    child.kill(signal);
    assert.equal(await ended, signal);
    if (signal === 'SIGINT') {
      assert.equal(existsSync(lab), false);
      assert.deepEqual(programsWith(basename(lab)), []);
    } else {
      process.kill(running, 'SIGKILL');
      removeLabFolder(makeLabFolder());
      assert.equal(existsSync(lab), false);
    }
    assert.deepEqual(mountsUnder(lab), []);
  }
});
