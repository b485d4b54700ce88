import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { Client, VolatileStore } from '../../test/durability/volatile-store.ts';
import { ConfigError } from '../base/errors.ts';
import type { BlockErrorCode } from '../block/errors.ts';
import { FLAG } from '../block/io.ts';
import { Disk } from './disk.ts';
import type { DiskSession } from './disk-session.ts';
import { DiskState, type PersistState } from './disk-state.ts';
import { FlushDomain } from './flush-domain.ts';
import {
  clearPoison,
  readBootId,
  readStateFile,
  statePathOf,
  writeStateFile,
} from './state-file.ts';

const HOUR_MS = 60 * 60 * 1000;
const REMOTE = { flushes: true, peer: { resumable: true, key: '10.0.0.7' } };

function statePath(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-state-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return statePathOf(join(folder, 'disk.img'));
}

/** One run of a server on the disk whose state lies at `path`, in the boot `bootId`. */
class Run {
  readonly lines: string[] = [];
  readonly state: DiskState;
  readonly store: VolatileStore;
  readonly domain: FlushDomain;
  readonly disk: Disk;

  constructor(
    path: string,
    bootId: string,
    options: { nowMs?: number; persist?: PersistState } = {},
  ) {
    const { nowMs = Date.UTC(2026, 10, 1), persist } = options;
    this.state = DiskState.open({
      path,
      bootId,
      now: () => nowMs,
      log: (line) => this.lines.push(line),
      ...(persist === undefined ? {} : { persist }),
    });
    this.store = new VolatileStore((target) => new FlushDomain({ target, ...this.state.hooks }), {
      auto: true,
    });
    this.domain = this.store.flusher as FlushDomain;
    const { poisoned } = this.state;
    if (poisoned !== null) this.domain.restorePoison(poisoned);
    this.disk = new Disk({
      store: this.store,
      mode: 'writeback',
      domain: this.domain,
      resumeGuard: this.state,
      log: (line) => this.lines.push(line),
    });
  }

  client(options = REMOTE): Client {
    const opened: DiskSession[] = [];
    this.disk.openSession(options, (session) => opened.push(session));
    return new Client(opened[0] as DiskSession);
  }

  /** As a file store does at its close. */
  async stop(): Promise<void> {
    await this.disk.close();
    assert.ok(this.domain.clean);
    let failure: Error | null | undefined;
    this.state.markClean((error) => (failure = error));
    assert.equal(failure, null);
  }
}

test('the record: written beside the disk, replaced as a whole, read back', (t) => {
  const path = statePath(t);
  assert.match(path, /disk\.img\.holdfast$/);
  assert.equal(readStateFile(path), null);
  const record = {
    version: 1,
    bootId: readBootId(),
    clean: false,
    poisoned: { error: 'EIO', when: '2026-11-01T00:00:00.000Z' },
    hostCrash: { when: '2026-11-01T00:00:00.000Z', told: ['10.0.0.7'] },
  } as const;
  writeStateFile(path, record);
  writeStateFile(path, record);
  assert.deepEqual(readStateFile(path), record);
  assert.match(record.bootId, /^[0-9a-f-]{36}$/);
  assert.deepEqual(readdirSync(join(path, '..')), ['disk.img.holdfast']);
});

test('a record that cannot be trusted is the operator’s matter, not a clean disk', (t) => {
  const path = statePath(t);
  const good = { version: 1, bootId: 'b', clean: true, poisoned: null, hostCrash: null };
  for (const text of [
    '',
    '{"version":1',
    'null',
    JSON.stringify({ ...good, version: 2 }),
    JSON.stringify({ ...good, clean: 'yes' }),
    JSON.stringify({ ...good, poisoned: {} }),
    JSON.stringify({ ...good, poisoned: undefined }),
    JSON.stringify({ ...good, hostCrash: { when: 'once', told: [] } }),
    JSON.stringify({ ...good, hostCrash: { when: '2026-11-01', told: [7] } }),
  ]) {
    writeFileSync(path, text);
    assert.throws(() => readStateFile(path), ConfigError, text);
  }
  rmSync(path);
  assert.throws(() => readStateFile(join(path, '..')), ConfigError);
});

test('P10: reading, flushing and FUA writes leave no file behind; a volatile write does, before its reply', (t) => {
  const path = statePath(t);
  const run = new Run(path, 'boot-1');
  const client = run.client();
  assert.ok(client.read(1).succeeded && client.flush().succeeded);
  assert.ok(client.write(1, FLAG.FUA).succeeded);
  assert.equal(existsSync(path), false);
  const write = client.write(2);
  assert.ok(write.succeeded);
  assert.deepEqual([readStateFile(path)?.clean, readStateFile(path)?.bootId], [false, 'boot-1']);
});

test('P10: a clean stop says clean, and the next boot fails nothing', async (t) => {
  const path = statePath(t);
  const run = new Run(path, 'boot-1');
  run.client().write(1);
  await run.stop();
  assert.equal(readStateFile(path)?.clean, true);
  const next = new Run(path, 'boot-2');
  assert.ok(next.client().flush().succeeded);
  assert.deepEqual(next.lines, []);
});

test('P10: a stop without a write leaves no file', async (t) => {
  const path = statePath(t);
  await new Run(path, 'boot-1').stop();
  assert.equal(existsSync(path), false);
});

test('P10: a crash of the process (same boot) fails nothing, and is still unclean', async (t) => {
  const path = statePath(t);
  new Run(path, 'boot-1').client().write(1);
  const second = new Run(path, 'boot-1');
  assert.ok(second.client().flush().succeeded);
  second.client().write(1);
  assert.equal(readStateFile(path)?.clean, false);
  await second.stop();
  assert.equal(readStateFile(path)?.clean, true);
});

test('P10: a crash of the host fails one flush of each resumable peer, across restarts', (t) => {
  const path = statePath(t);
  new Run(path, 'boot-1').client().write(1);
  const after = new Run(path, 'boot-2');
  assert.match(after.lines.join('\n'), /went down while writes were unstable/);
  const other = { flushes: true, peer: { resumable: true, key: '10.0.0.8' } };
  const local = { flushes: true, peer: { resumable: false, key: '' } };
  assert.ok(after.client(local).flush().succeeded);
  const client = after.client();
  assert.equal(client.flush().error, 'EIO');
  assert.ok(client.flush().succeeded);
  assert.match(after.lines.at(-1) ?? '', /10\.0\.0\.7 is told once/);
  client.write(1);
  // kill -9 and again: who was told is not told twice, who was not is told still.
  const again = new Run(path, 'boot-2');
  assert.ok(again.client().flush().succeeded);
  assert.equal(again.client(other).flush().error, 'EIO');
  assert.ok(again.client(other).flush().succeeded);
});

test('P10: a second crash of the process in the new boot is not taken for one of the host', (t) => {
  const path = statePath(t);
  new Run(path, 'boot-1').client().write(1);
  const local = { flushes: true, peer: { resumable: false, key: '' } };
  new Run(path, 'boot-2').client(local).write(1);
  const record = readStateFile(path);
  assert.deepEqual([record?.bootId, record?.clean], ['boot-2', false]);
  assert.deepEqual(record?.hostCrash?.told, []);
  const again = new Run(path, 'boot-2');
  assert.deepEqual(again.lines, []);
  assert.equal(again.client().flush().error, 'EIO');
});

test('P10: a clean stop before the peer came back does not make its writes stable', async (t) => {
  const path = statePath(t);
  new Run(path, 'boot-1').client().write(1);
  const after = new Run(path, 'boot-2');
  after.client({ flushes: true, peer: { resumable: false, key: '' } }).write(1);
  await after.stop();
  assert.equal(new Run(path, 'boot-2').client().flush().error, 'EIO');
});

test('P10: a day after the crash nobody is taken for a survivor any more', (t) => {
  const path = statePath(t);
  new Run(path, 'boot-1').client().write(1);
  const crashMs = Date.UTC(2026, 10, 1);
  const first = new Run(path, 'boot-2', { nowMs: crashMs });
  assert.equal(first.client().flush().error, 'EIO');
  const other = { flushes: true, peer: { resumable: true, key: '10.0.0.8' } };
  const later = new Run(path, 'boot-2', { nowMs: crashMs + 25 * HOUR_MS });
  assert.ok(later.client(other).flush().succeeded);
});

test('P5: poison outlives the process, the boot and reconnects, until the operator clears it', (t) => {
  const path = statePath(t);
  const run = new Run(path, 'boot-1');
  const client = run.client();
  client.write(1);
  run.store.nextSync = 'EIO';
  assert.equal(client.flush().error, 'EIO');
  assert.equal(readStateFile(path)?.poisoned?.error, 'EIO');
  for (const boot of ['boot-1', 'boot-2']) {
    const next = new Run(path, boot);
    const again = next.client({ flushes: true, peer: { resumable: false, key: '' } });
    assert.equal(again.flush().error, 'EIO');
    assert.equal(again.write(1).error, 'EIO');
    assert.equal(next.disk.counters.poisoned, true);
    assert.match(next.lines.join('\n'), /a sync failed with EIO at 2026-11-01T00:00:00\.000Z/);
  }
  assert.equal(clearPoison(path)?.error, 'EIO');
  assert.equal(clearPoison(path), null);
  const cleared = new Run(path, 'boot-1');
  assert.equal(cleared.domain.health, 'well');
  assert.ok(
    cleared.client({ flushes: true, peer: { resumable: false, key: '' } }).write(1).succeeded,
  );
});

test('P5: a failed sync is on record before the flush is answered', (t) => {
  const path = statePath(t);
  const run = new Run(path, 'boot-1');
  const client = run.client();
  client.write(1);
  run.store.nextSync = 'EIO';
  run.store.auto = false;
  const flush = client.flush();
  flush.onDone = () => assert.equal(readStateFile(path)?.poisoned?.error, 'EIO');
  run.store.finishSync('EIO');
  assert.equal(flush.error, 'EIO');
});

test('P5: an operator who resumes a running server clears the record too', (t) => {
  const path = statePath(t);
  const run = new Run(path, 'boot-1');
  const client = run.client();
  client.write(1);
  run.store.nextSync = 'EIO';
  client.flush();
  run.domain.resume();
  assert.equal(readStateFile(path)?.poisoned, null);
  assert.ok(client.flush().succeeded);
});

test('clearPoison of a disk without a record', (t) => {
  assert.equal(clearPoison(statePath(t)), null);
});

test('a state file that cannot be written: volatile writes fail and say why, FUA writes go on', (t) => {
  const path = statePath(t);
  const run = new Run(join(path, 'nowhere', 'x'), 'boot-1', {
    persist: (_path, _record, done) => done(new Error('no space')),
  });
  const client = run.client();
  assert.equal(client.write(1).error, 'EIO');
  assert.equal(client.write(1).error, 'EIO');
  assert.match(run.lines[0] ?? '', /cannot write the state file .* \(no space\): writes fail/);
  assert.ok(client.write(1, FLAG.FUA).succeeded);
});

test('a state file that cannot be written does not hide a failed sync', (t) => {
  let full = false;
  const run = new Run(statePath(t), 'boot-1', {
    persist: (_path, _record, done) => done(full ? new Error('no space') : null),
  });
  const client = run.client();
  client.write(1);
  full = true;
  run.store.nextSync = 'EIO';
  assert.equal(client.flush().error, 'EIO');
  assert.match(run.lines.join('\n'), /a restart will not know of the failed sync/);
  assert.equal(client.flush().error, 'EIO');
});

test('a slow state file: one write at a time, the last change wins, everybody hears', (t) => {
  const writes: { clean: boolean; poisoned: boolean; done: (error: Error | null) => void }[] = [];
  const run = new Run(statePath(t), 'boot-1', {
    persist: (_path, { clean, poisoned }, done) =>
      writes.push({ clean, poisoned: poisoned !== null, done }),
  });
  const heard: (BlockErrorCode | null)[] = [];
  run.state.firstVolatile((error) => heard.push(error));
  run.state.syncFailed('EIO', (error) => heard.push(error));
  run.state.resumed();
  assert.equal(writes.length, 1);
  writes[0]?.done(null);
  assert.deepEqual([heard.length, writes.length], [1, 2]);
  assert.deepEqual([writes[1]?.clean, writes[1]?.poisoned], [false, false]);
  writes[1]?.done(new Error('gone'));
  assert.deepEqual(heard, [null, 'EIO']);
});

test('the file is small and plain', (t) => {
  const path = statePath(t);
  new Run(path, 'boot-1').client().write(1);
  assert.equal(
    readFileSync(path, 'utf8'),
    '{"version":1,"bootId":"boot-1","clean":false,"poisoned":null,"hostCrash":null}\n',
  );
});
