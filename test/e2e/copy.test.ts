import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MiB } from '../../src/base/units.ts';
import { onBothReactors } from './support/both.ts';
import { run, succeed } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';

function assertSameBytes(one: string, other: string): void {
  assert.ok(readFileSync(one).equals(readFileSync(other)), `${one} and ${other} differ`);
}

onBothReactors(
  'nbdcopy over four connections copies out and in, byte for byte',
  ['nbdcopy'],
  async (t, reactor) => {
    const folder = workspace(t);
    const source = makeImage(folder, 96, 48, 'source.img');
    const target = makeImage(folder, 96, 0, 'target.img');
    const server = await startHoldfast(t, [`source=${source}`, `target=${target}`], { reactor });
    const many = ['--connections=4', '--requests=16', '--flush'];
    const out = join(folder, 'out.img');
    await succeed(['nbdcopy', ...many, server.uri('source'), out]);
    assertSameBytes(source, out);
    await succeed(['nbdcopy', ...many, out, server.uri('target')]);
    await succeed(['nbdcopy', ...many, server.uri('source'), server.uri('target')]);
    const counters = await server.stop();
    assertSameBytes(source, target);
    const written = counters.find((disk) => disk.export === 'target');
    assert.ok(written !== undefined && written.flushesAsked >= 1, 'nbdcopy --flush flushes');
    assert.equal(written.unstableWrites, 0);
    // Half of it is a hole, and stays one.
    assert.ok(statSync(target).blocks * 512 < 60 * MiB, 'the copy is sparse');
  },
);

onBothReactors(
  'qemu-img converts, compares and maps through the server',
  ['qemu-img'],
  async (t, reactor) => {
    const folder = workspace(t);
    const source = makeImage(folder, 64, 20, 'source.img');
    const target = makeImage(folder, 64, 0, 'target.img');
    const server = await startHoldfast(t, [`source=${source}`, `target=${target}`], { reactor });
    const [from, to] = [server.uri('source'), server.uri('target')];
    const info = JSON.parse(await succeed(['qemu-img', 'info', '--output=json', from])) as {
      'virtual-size': number;
      format: string;
    };
    assert.equal(info['virtual-size'], 64 * MiB);
    assert.equal(info.format, 'raw');
    await succeed(['qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', from, to]);
    const same = await run(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', from, to]);
    assert.equal(same.status, 0, same.stdout + same.stderr);
    const map = JSON.parse(
      await succeed(['qemu-img', 'map', '--output=json', '-f', 'raw', to]),
    ) as { start: number; length: number; zero: boolean; data: boolean }[];
    assert.equal(
      map.reduce((sum, extent) => sum + extent.length, 0),
      64 * MiB,
    );
    const data = map.filter((extent) => extent.data).reduce((sum, { length }) => sum + length, 0);
    assert.ok(data >= 20 * MiB && data < 22 * MiB, `data: ${data}`);
    await succeed(['qemu-io', '-f', 'raw', '-c', 'write -P 1 40M 4k', to]);
    const differ = await run(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', from, to]);
    assert.equal(differ.status, 1, 'compare sees the difference');
    await server.stop();
  },
);

onBothReactors('qemu-img bench finishes, flushing on the way', ['qemu-img'], async (t, reactor) => {
  const image = makeImage(workspace(t), 64, 16);
  const server = await startHoldfast(t, [image], { reactor });
  const bench = ['qemu-img', 'bench', '-f', 'raw', '-t', 'none', '-c', '4000', '-d', '32'];
  await succeed([...bench, '-s', '4k', server.uri()]);
  await succeed([...bench, '-w', '-s', '4k', '--flush-interval=64', server.uri()]);
  const [counters] = await server.stop();
  assert.ok(counters !== undefined);
  assert.ok(counters.reads >= 4000, `reads: ${counters.reads}`);
  assert.ok(counters.writes >= 4000, `writes: ${counters.writes}`);
  assert.ok(counters.flushesAsked >= 4000 / 64, `flushes: ${counters.flushesAsked}`);
});

onBothReactors(
  'an image of odd size is served to its last byte',
  ['nbdcopy'],
  async (t, reactor) => {
    const folder = workspace(t);
    const image = join(folder, 'odd.img');
    const bytes = Buffer.alloc(3 * 512 * 1000 + 512);
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = (i * 7 + (i >> 8)) & 0xff;
    writeFileSync(image, bytes);
    const server = await startHoldfast(t, [image], { reactor });
    const out = join(folder, 'out.img');
    await succeed(['nbdcopy', server.uri(), out]);
    await server.stop();
    assertSameBytes(image, out);
  },
);
