import assert from 'node:assert/strict';
import { MiB } from '../../src/base/units.ts';
import { onBothReactors } from './support/both.ts';
import { run, succeed } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';

interface NbdinfoExport {
  readonly 'export-name': string;
  readonly description?: string;
  readonly 'export-size': number;
  readonly is_read_only: boolean;
  readonly can_flush: boolean;
  readonly can_fua: boolean;
  readonly can_multi_conn: boolean;
  readonly can_trim: boolean;
  readonly can_zero: boolean;
  readonly can_fast_zero: boolean;
  readonly can_df: boolean;
  readonly can_cache: boolean;
  readonly contexts?: readonly string[];
  readonly block_size_minimum?: number;
  readonly block_size_maximum?: number;
}

interface NbdinfoReport {
  readonly protocol: string;
  readonly TLS: boolean;
  readonly structured: boolean;
  readonly exports: readonly NbdinfoExport[];
}

async function nbdinfo(...args: readonly string[]): Promise<NbdinfoReport> {
  return JSON.parse(await succeed(['nbdinfo', '--json', ...args])) as NbdinfoReport;
}

onBothReactors('nbdinfo reads what the export offers', ['nbdinfo'], async (t, reactor) => {
  const image = makeImage(workspace(t), 64, 1);
  const server = await startHoldfast(t, [image, '-D', 'a disk for tests'], { reactor });
  const report = await nbdinfo(server.uri());
  assert.equal(report.protocol, 'newstyle-fixed');
  assert.equal(report.structured, true);
  assert.equal(report.TLS, false);
  const [disk] = report.exports;
  assert.ok(disk !== undefined);
  assert.equal(disk['export-size'], 64 * MiB);
  assert.equal(disk.description, 'a disk for tests');
  assert.equal(disk.is_read_only, false);
  for (const ability of [
    'can_flush',
    'can_fua',
    'can_multi_conn',
    'can_trim',
    'can_zero',
    'can_fast_zero',
    'can_df',
    'can_cache',
  ] as const) {
    assert.equal(disk[ability], true, ability);
  }
  assert.deepEqual(disk.contexts, ['base:allocation']);
  assert.equal(disk.block_size_minimum, 1);
  await server.stop();
});

onBothReactors('nbdinfo --list names every export', ['nbdinfo'], async (t, reactor) => {
  const folder = workspace(t);
  const root = makeImage(folder, 8, 0, 'root.img');
  const data = makeImage(folder, 16, 0, 'data.img');
  const server = await startHoldfast(t, [`root=${root}`, `data ü=${data}`], { reactor });
  const report = await nbdinfo('--list', server.uri());
  assert.deepEqual(
    report.exports
      .map((entry) => [entry['export-name'], entry['export-size']])
      .toSorted((a, b) => String(a).localeCompare(String(b))),
    [
      ['data ü', 16 * MiB],
      ['root', 8 * MiB],
    ],
  );
  assert.equal((await succeed(['nbdinfo', '--size', server.uri('data ü')])).trim(), `${16 * MiB}`);
  const unknown = await run(['nbdinfo', server.uri('nothing')]);
  assert.notEqual(unknown.status, 0);
  assert.match(unknown.stderr, /nothing/);
  await server.stop();
});

onBothReactors('a read-only export says so', ['nbdinfo'], async (t, reactor) => {
  const image = makeImage(workspace(t), 8, 1);
  const server = await startHoldfast(t, [image, '--read-only'], { reactor });
  const [disk] = (await nbdinfo(server.uri())).exports;
  assert.equal(disk?.is_read_only, true);
  // [NBD proto "Ordering"]: a flush on a read-only export is legal and has nothing to do.
  assert.equal(disk?.can_flush, true);
  await server.stop();
});

interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

onBothReactors(
  'nbdinfo --map shows data and holes where they are',
  ['nbdinfo'],
  async (t, reactor) => {
    const image = makeImage(workspace(t), 64, 3);
    const server = await startHoldfast(t, [image], { reactor });
    const text = await succeed(['nbdinfo', '--json', '--map', server.uri()]);
    const extents = JSON.parse(text) as Extent[];
    assert.deepEqual(
      extents.map(({ offset, length, type }) => [offset, length, type]),
      [
        [0, 3 * MiB, 0],
        // NBD_STATE_HOLE | NBD_STATE_ZERO
        [3 * MiB, 61 * MiB, 3],
      ],
    );
    await server.stop();
  },
);

onBothReactors('cache=writethrough shows no write cache', ['nbdinfo'], async (t, reactor) => {
  const image = makeImage(workspace(t), 8);
  const server = await startHoldfast(t, [image, '--cache', 'writethrough'], { reactor });
  const [disk] = (await nbdinfo(server.uri())).exports;
  // [NBD proto "Transmission flags"]: no NBD_FLAG_SEND_FLUSH, nothing to flush.
  assert.equal(disk?.can_flush, false);
  await server.stop();
});
