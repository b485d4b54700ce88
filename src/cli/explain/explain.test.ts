import assert from 'node:assert/strict';
import test from 'node:test';
import { CACHE_MODES, type CacheMode } from '../../durability/modes.ts';
import { describeHost, type HostFacts } from '../../stores/file/host.ts';
import type { Mount } from '../../stores/file/mounts.ts';
import type { BlockDeviceNode } from '../../stores/file/sysfs.ts';
import { fileAnswer } from '../info/file-text.ts';
import { explain, explainMemory } from './explain.ts';
import { explanationLines, hostJson } from './text.ts';

const MODES = Object.keys(CACHE_MODES) as CacheMode[];

const DRIVE: BlockDeviceNode = {
  name: 'sda',
  device: '8:0',
  sizeBytes: 2 ** 40,
  kind: 'disk',
  detail: null,
  writeCache: 'write back',
  fua: false,
  rotational: true,
  logicalBlockBytes: 512,
  physicalBlockBytes: 4096,
  writesZeroes: false,
  model: 'EXAMPLE 4000',
  beneath: [],
};

const EXT4: Mount = {
  device: '8:1',
  root: '/',
  mountPoint: '/srv',
  fileSystem: 'ext4',
  source: '/dev/sda1',
  options: ['rw', 'relatime'],
};

function host(mount: Mount | null, device: BlockDeviceNode | null, more = {}): HostFacts {
  return {
    path: '/srv/a.img',
    realPath: '/srv/a.img',
    kind: mount === null ? 'block' : 'file',
    sizeBytes: 2 ** 30,
    allocatedBytes: mount === null ? null : 4096,
    direct: true,
    directAlignment: null,
    writeDsync: true,
    ...describeHost(mount, device),
    ...more,
  };
}

const ORDINARY = host(EXT4, DRIVE);

function codes(facts: HostFacts, mode: CacheMode): string[] {
  return explain(facts, mode).warnings.map(({ code }) => code);
}

test('writeback: acknowledged from the page cache, stable after a flush that reaches the drive', () => {
  const told = explain(ORDINARY, 'writeback');
  assert.match(told.write.join(' '), /page cache.*not stable until a flush/);
  assert.match(told.flush.join(' '), /ext4 needs.*volatile cache of sda/);
  assert.match(told.fua.join(' '), /RWF_DSYNC.*drive's whole cache/);
  assert.match(told.survives.hostCrash, /what was flushed/);
  assert.deepEqual(told.warnings, []);
});

test('none says that it is a write-back mode, also where no drive has a cache', () => {
  const told = explain(ORDINARY, 'none');
  assert.match(told.write.join(' '), /O_DIRECT.*'none' is a write-back mode too/);
  const through = host(EXT4, { ...DRIVE, writeCache: 'write through', fua: true });
  assert.match(explain(through, 'none').write.join(' '), /No drive below.*stable after a flush/);
  assert.match(explain(through, 'none').fua.join(' '), /takes it through its cache/);
  assert.match(explain(through, 'none').survives.hostCrash, /what was flushed/);
});

test('writethrough and directsync: stable when acknowledged, flushes cost nothing', () => {
  for (const mode of ['writethrough', 'directsync'] as const) {
    const told = explain(ORDINARY, mode);
    assert.match(told.write.join(' '), /acknowledged only when it is stable.*RWF_DSYNC/, mode);
    const without = explain({ ...ORDINARY, writeDsync: false }, mode);
    assert.doesNotMatch(without.write.join(' '), /RWF_DSYNC/, mode);
    assert.match(told.flush.join(' '), /nothing to do/, mode);
    assert.equal(told.survives.hostCrash, 'every acknowledged write', mode);
  }
});

test('until-flush is both, in its order', () => {
  const told = explain(ORDINARY, 'until-flush');
  assert.match(told.write.join(' '), /Until the session's first flush.*After that.*not stable/);
  assert.match(told.survives.hostCrash, /before a session's first flush, every acknowledged write/);
});

test('a guest without flushes gets write-through, but in the mode that promises nothing (P9)', () => {
  const says = MODES.filter((mode) =>
    /knows no flush/.test(explain(ORDINARY, mode).write.join(' ')),
  );
  assert.deepEqual(says, ['writeback', 'none', 'until-flush']);
});

test('unsafe is loud and promises nothing', () => {
  const told = explain(ORDINARY, 'unsafe');
  assert.match(told.flush.join(' '), /NOT done/);
  assert.match(told.survives.hostCrash, /nothing for certain/);
  assert.deepEqual(codes(ORDINARY, 'unsafe'), ['mode-ignores-flush']);
});

test('no mode promises a power cut what the host cannot keep', () => {
  const tmpfs = host({ ...EXT4, fileSystem: 'tmpfs', source: 'tmpfs' }, null);
  const bare = host({ ...EXT4, options: ['rw', 'nobarrier'] }, DRIVE);
  for (const mode of MODES) {
    assert.match(explain(tmpfs, mode).survives.hostCrash, /^nothing: the storage is memory/, mode);
    assert.ok(codes(tmpfs, mode).includes('volatile-storage'), mode);
    assert.match(explain(bare, mode).survives.hostCrash, /^nothing for certain/, mode);
    assert.ok(codes(bare, mode).includes('barriers-off'), mode);
  }
  assert.match(explain(tmpfs, 'writeback').fua.join(' '), /By itself: in memory/);
  assert.match(explain(bare, 'writeback').fua.join(' '), /By itself: .*no barriers/);
  // Barriers do nothing for a drive without a volatile cache.
  const through = host(
    { ...EXT4, options: ['nobarrier'] },
    { ...DRIVE, writeCache: 'write through' },
  );
  assert.match(explain(through, 'writeback').survives.hostCrash, /^what was flushed/);
});

test('the stack below: network, FUSE, overlay, loop and missing O_DIRECT are said', () => {
  const on = (fileSystem: string): HostFacts => host({ ...EXT4, fileSystem }, null);
  assert.deepEqual(codes(on('nfs4'), 'writeback'), ['network']);
  assert.match(explain(on('nfs4'), 'writeback').flush.join(' '), /asks the server of nfs4/);
  assert.deepEqual(codes(on('fuse.example'), 'writeback'), ['fuse']);
  assert.deepEqual(codes(on('overlay'), 'writeback'), ['overlay']);
  const loop = { ...DRIVE, name: 'loop0', kind: 'loop', detail: '/x' } as const;
  assert.deepEqual(codes(host(null, loop), 'writeback'), ['loop']);
  assert.deepEqual(codes({ ...ORDINARY, direct: false }, 'none'), ['direct-unavailable']);
  assert.deepEqual(codes({ ...ORDINARY, direct: false }, 'writeback'), []);
});

test('a size that cannot be served is said, by the rules of the mode', () => {
  assert.deepEqual(codes({ ...ORDINARY, sizeBytes: 1000 }, 'writeback'), ['not-servable']);
  const coarse = {
    ...ORDINARY,
    sizeBytes: 512,
    directAlignment: { offsetBytes: 4096, memoryBytes: 4096 },
  };
  assert.deepEqual(codes(coarse, 'writeback'), []);
  assert.deepEqual(codes(coarse, 'none'), ['not-servable']);
});

test('every text is complete sentences, and lines are short', () => {
  for (const facts of [ORDINARY, host(null, DRIVE), host(EXT4, null)]) {
    for (const mode of MODES) {
      const told = explain(facts, mode);
      for (const text of [...told.write, ...told.flush, ...told.fua]) {
        assert.match(text, /^[A-Z].*\.$/, text);
        assert.doesNotMatch(text, /undefined|null| {2}/, text);
      }
      const [, ...lines] = explanationLines('/srv/a.img', mode, facts, told);
      for (const line of lines) assert.ok(line.length <= 100, line);
    }
  }
});

test('memory disks: nothing survives, in any mode', () => {
  for (const mode of MODES) {
    const told = explainMemory(mode);
    assert.match(told.survives.serverCrash, /^nothing/);
    assert.equal(told.warnings.length, 1);
    const [first = '', ...rest] = explanationLines('memory:1M', mode, null, told);
    assert.match(first, mode === 'unsafe' ? /NOT DONE/ : /in the memory of the server/);
    assert.ok(rest.length > 4);
  }
});

test('the host in JSON and in lines: drives, mappings, and what is not known', () => {
  const dm = { ...DRIVE, name: 'dm-0', kind: 'dm', detail: 'vg-lv', beneath: [DRIVE] } as const;
  const text = explanationLines('x', 'none', host(EXT4, dm), explain(ORDINARY, 'none')).join('\n');
  assert.match(text, /device +dm-0 \(vg-lv\) on sda$/m);
  assert.match(text, /drive +sda \(EXAMPLE 4000\): volatile write cache, no FUA, rotational$/m);
  const unknown = host(EXT4, null, { direct: null });
  const json = hostJson(unknown) as Record<string, unknown>;
  assert.equal(json['volatileCache'], null);
  assert.equal(json['direct'], null);
  assert.deepEqual(json['drives'], []);
});

function lines(...rest: [Parameters<typeof fileAnswer>[1], string | null]): string {
  return fileAnswer(ORDINARY, ...rest).lines.join('\n');
}

test('info of a file: the state that is remembered, and a format it looks like', () => {
  const record = { version: 1, bootId: 'b', clean: true, poisoned: null, hostCrash: null } as const;
  assert.match(lines(null, null), /kind +image file$/m);
  assert.match(lines(null, 'qcow2'), /looks like qcow2/);
  assert.match(lines(record, null), /state +clean$/m);
  assert.match(lines({ ...record, clean: false }, null), /without a clean stop/);
  const poisoned = { error: 'EIO', when: '2026-01-01T00:00:00.000Z' };
  assert.match(lines({ ...record, poisoned }, null), /poisoned.*EIO at 2026.*holdfast clear/);
});
