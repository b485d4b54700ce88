import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { ConfigError } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { write } from '../../src/block/await.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import type { Io } from '../../src/block/io.ts';
import {
  mountDevice,
  type FuseMount,
  type FuseMountOptions,
} from '../../src/protocols/fuse/mount.ts';
import { type FuseSource, type Opened, sourceOfDevice } from '../../src/protocols/fuse/source.ts';
import { openReactor } from '../../src/reactor/open.ts';
import type { Reactor } from '../../src/reactor/reactor.ts';
import { openMemoryStore } from '../../src/stores/memory/memory-store.ts';
import { run, succeed, until } from './support/command.ts';
import { fuse, mountedAt, mountFolder } from './support/fuse.ts';
import { REACTORS } from './support/holdfast.ts';

// Mounts as parts of Holdfast make them, in this process: its own thread serves the file, so it must not wait for it.

async function reactorFor(t: TestContext, kind: 'io_uring' | 'portable'): Promise<Reactor> {
  const { reactor } = await openReactor(kind);
  t.after(() => reactor.close());
  return reactor;
}

async function mounted(
  t: TestContext,
  reactor: Reactor,
  options: Partial<FuseMountOptions> & Pick<FuseMountOptions, 'source'>,
): Promise<{ mount: FuseMount; file: string }> {
  const file = join(mountFolder(t), 'file');
  const mount = await mountDevice(reactor, { path: file, name: 'test', ...options });
  return { mount, file };
}

async function filled(byte: number): Promise<BlockDevice> {
  const device = openMemoryStore({ name: String(byte), sizeBytes: MiB });
  await write(device, 0, new Uint8Array(MiB).fill(byte));
  return device;
}

/** The first open sees ones, the second twos, and so on. */
class Changing implements FuseSource {
  readonly sizeBytes = MiB;
  readonly preferredBytes = 4096;
  readonly readOnly = false;
  opens = 0;
  closed = 0;
  open(_writable: boolean, opened: Opened): void {
    this.opens += 1;
    void filled(this.opens).then((device) =>
      opened({ device, close: () => (this.closed += 1) }, null),
    );
  }
}

for (const kind of REACTORS) {
  for (const directIo of [true, false]) {
    const how = `${kind}, ${directIo ? 'direct' : 'page cache'}`;
    test(
      `every open shows its own device, and nothing of the one before: ${how}`,
      fuse,
      async (t) => {
        const reactor = await reactorFor(t, kind);
        const source = new Changing();
        const { mount, file } = await mounted(t, reactor, { source, directIo });
        for (const expected of [1, 2, 3]) {
          const bytes = await readFile(file);
          assert.equal(bytes.length, MiB);
          assert.ok(
            bytes.every((byte) => byte === expected),
            `open ${expected}`,
          );
        }
        assert.match(await succeed(['od', '-An', '-tu1', '-N1', file]), /^ +4\n$/);
        await until('the last close', 5000, () => (source.closed === 4 ? true : null));
        await mount.unmount();
        await mount.unmount();
        assert.equal(existsSync(file), false);
      },
    );
  }
}

/** Never answers. */
class Stuck implements BlockDevice {
  readonly info = openMemoryStore({ name: 'stuck', sizeBytes: MiB }).info;
  readonly held: Io[] = [];
  submit(io: Io): void {
    this.held.push(io);
  }
  async close(): Promise<void> {}
}

test('a cut: what waits gets an error, opens are let go, the file is gone', fuse, async (t) => {
  const reactor = await reactorFor(t, 'io_uring');
  const device = new Stuck();
  let closed = 0;
  const inner = sourceOfDevice(device);
  const source: FuseSource = {
    sizeBytes: inner.sizeBytes,
    preferredBytes: inner.preferredBytes,
    readOnly: false,
    open: (_writable, opened) => opened({ device, close: () => (closed += 1) }, null),
  };
  const { mount, file } = await mounted(t, reactor, { source });
  const reading = run(['dd', `if=${file}`, 'of=/dev/null', 'bs=4k', 'count=1']);
  await until('the read', 5000, () => (device.held.length > 0 ? true : null));
  const cut = mount.cut();
  assert.equal(closed, 1, 'before it returns');
  await cut;
  assert.notEqual((await reading).status, 0);
  assert.equal(mountedAt(file), null);
  // The device answers after all: nobody is there to hear it.
  for (const io of device.held.splice(0)) io.complete(null);
  const again = await mountDevice(reactor, {
    path: file,
    name: 'again',
    source: sourceOfDevice(await filled(7)),
  });
  assert.equal((await readFile(file))[0], 7);
  await again.unmount();
  assert.equal(reactor.pool.inUse, 0, 'all memory came back');
});

test('somebody else unmounts: `ended` is called once', fuse, async (t) => {
  const reactor = await reactorFor(t, 'io_uring');
  let ended = 0;
  const { mount, file } = await mounted(t, reactor, {
    source: sourceOfDevice(await filled(1)),
    ended: () => (ended += 1),
  });
  await succeed(['umount', file]);
  await until('the end', 5000, () => (ended > 0 ? true : null));
  await mount.unmount();
  assert.equal(ended, 1);
  assert.equal(existsSync(file), false);
  assert.equal(reactor.pool.inUse, 0);
});

/** Opens are counted; reads wait. */
class StuckSource implements FuseSource {
  readonly device = new Stuck();
  readonly sizeBytes = MiB;
  readonly preferredBytes = 4096;
  readonly readOnly = false;
  closed = 0;
  open(_writable: boolean, opened: Opened): void {
    opened({ device: this.device, close: () => (this.closed += 1) }, null);
  }
}

/** umount2(2) with MNT_FORCE and nothing else: umount(8) looks at the file, which waits for us. */
const FORCED = `
  import { unmount } from '${new URL('../../src/protocols/fuse/native.ts', import.meta.url).href}';
  await unmount(process.argv[1], 1);
`;

test(
  'P11: ended by force while a request waits: its open is let go before anybody is served',
  fuse,
  async (t) => {
    const reactor = await reactorFor(t, 'io_uring');
    for (const how of ['looked for', 'heard of']) {
      const source = new StuckSource();
      const { device } = source;
      let ended = 0;
      const { mount, file } = await mounted(t, reactor, { source, ended: () => (ended += 1) });
      const reading = run(['dd', `if=${file}`, 'of=/dev/null', 'bs=4k', 'count=1']);
      await until('the read', 5000, () => (device.held.length > 0 ? true : null));
      mount.endIfGone();
      assert.equal(source.closed, 0, 'it is there');
      // It is in use, and so it stays in the mount table: dead.
      if (how === 'looked for') {
        // Nothing of the reactor runs meanwhile, so nothing is heard of it.
        spawnSync(process.execPath, ['--input-type=module', '-e', FORCED, file], { timeout: 5000 });
        assert.equal(source.closed, 0, 'not heard of');
        mount.endIfGone();
        assert.equal(source.closed, 1, 'when it returns');
      } else await run(['umount', '-f', '-c', file]);
      await until('the close', 5000, () => (source.closed === 1 ? true : null));
      assert.notEqual((await reading).status, 0);
      assert.equal(ended, 0, 'not before the device has answered');
      for (const io of device.held.splice(0)) io.complete(null);
      await until('the end', 5000, () => (ended === 1 ? true : null));
      assert.equal(mountedAt(file), null);
      assert.equal(existsSync(file), false);
      assert.equal(reactor.pool.inUse, 0, 'all memory came back');
      mount.endIfGone();
      await mount.unmount();
      assert.equal(source.closed, 1);
    }
  },
);

test('where it can be mounted, and where not', fuse, async (t) => {
  const reactor = await reactorFor(t, 'io_uring');
  const folder = mountFolder(t);
  const source = sourceOfDevice(await filled(1));
  const refused = (path: string, why: RegExp): Promise<void> =>
    assert.rejects(mountDevice(reactor, { path, name: 'test', source }), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, why);
      assert.notEqual(error.hint, '');
      return true;
    });
  await mkdir(join(folder, 'directory'));
  await refused(join(folder, 'directory'), /is a directory/);
  await refused(join(folder, 'missing', 'file'), /directory cannot be reached/);
  await refused('/dev/null', /no regular file/);
  await symlink('nowhere', join(folder, 'dangling'));
  await refused(join(folder, 'dangling'), /leads nowhere/);

  // A file that is there is hidden meanwhile, and stays; a link leads to it.
  await writeFile(join(folder, 'there'), 'old');
  await symlink('there', join(folder, 'link'));
  const mount = await mountDevice(reactor, { path: join(folder, 'link'), name: 'test', source });
  assert.equal(mount.path, join(folder, 'there'));
  assert.equal((await stat(join(folder, 'there'))).size, MiB);
  await refused(join(folder, 'link'), /is a mount already/);
  await mount.unmount();
  assert.equal((await readFile(join(folder, 'there'))).toString(), 'old');
});

test(
  'permissions: the mode and the owner are those of the options until they are changed',
  fuse,
  async (t) => {
    const reactor = await reactorFor(t, 'io_uring');
    const source = sourceOfDevice(await filled(1));
    const { mount, file } = await mounted(t, reactor, { source, mode: 0o640, readOnly: true });
    assert.equal((await stat(file)).mode, 0o100640);
    await assert.rejects(open(file, 'r+'), { code: 'EROFS' });
    await mount.unmount();
  },
);
