import assert from 'node:assert/strict';
import test from 'node:test';
import type { Score } from '../../src/lab/calibrate/score.ts';
import type { RowResult } from '../../src/lab/calibrate/types.ts';
import { requiresMounts } from './support/crash-disks.ts';
import { fuse } from './support/fuse.ts';
import { workspace } from './support/holdfast.ts';
import { lab } from './support/lab.ts';

// The quick ones of the known answers; all of them are `npm run calibrate`, and a page of the documentation.

const GROUPS: readonly (readonly string[])[] = [
  ['S', 'K0'],
  ['F1', 'F5b'],
  ['Q1', 'Q5a', 'Q6'],
];

const needs = requiresMounts('mkfs.ext4', 'e2fsck', 'qemu-io');

for (const rows of GROUPS) {
  test(
    `known answers ${rows.join(', ')}: what breaks is found and named, what holds is left alone`,
    fuse.skip === false ? needs : fuse,
    async (t) => {
      const words = ['calibrate', ...rows, '--budget', '8s', '--json'];
      const { code, stdout, stderr } = await lab(t, workspace(t), words);
      const told = JSON.parse(stdout) as { rows: RowResult[]; score: Score };
      const wrong = told.rows.filter(({ outcome }) => outcome !== 'as-known');
      assert.deepEqual(wrong, [], stderr);
      assert.equal(code, 0);
      assert.ok(told.score.rows >= rows.length);
      for (const share of [told.score.sensitivity, told.score.specificity]) assert.equal(share, 1);
    },
  );
}
