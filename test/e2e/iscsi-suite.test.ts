import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';
import { parseSuite, runIscsiSuite, skippedInAll, type SuiteRun } from './support/iscsi-suite.ts';
import { requires } from './support/requires.ts';

// libiscsi's test suite of SCSI and iSCSI against one disk in all the forms that it can have.

const TARGET = 'iqn.2026-11.org.example:suite';
/** All families of libiscsi 1.19 together. */
const TESTS = 615;
const MOST_SKIPPED = 40;
/** Less than a GiB: what READ (6) can address; more than the largest transfer of any test. */
const MIB = 256;

interface Variant {
  readonly name: string;
  readonly args: readonly string[];
  /** Of each portal. */
  readonly keys: readonly string[];
}

const VARIANTS: readonly Variant[] = [
  { name: 'plain', args: [], keys: ['?thin=off'] },
  { name: 'thin', args: [], keys: ['?thin=on'] },
  { name: 'removable', args: [], keys: ['?thin=on&removable=on'] },
  { name: 'read-only', args: ['--read-only'], keys: ['?thin=off'] },
  { name: 'two paths', args: [], keys: ['?thin=on', ''] },
];

async function serveAndRun(t: TestContext, { args, keys }: Variant): Promise<SuiteRun> {
  const image = makeImage(workspace(t), MIB);
  const listen = keys.flatMap((each) => ['--listen', `iscsi://127.0.0.1:0/${TARGET}${each}`]);
  const words = ['--json', image, ...args, ...listen];
  const server = await startHoldfast(t, words, { readyLine: /"iscsi":.*\n/ });
  const { disks } = JSON.parse(server.stdout) as { disks: { iscsi: { url: string }[] }[] };
  const run = await runIscsiSuite(disks[0]?.iscsi.map(({ url }) => url) ?? []);
  await server.stop();
  assert.doesNotMatch(server.stderr, /internal|assert/i);
  return run;
}

/** The tests that the documentation says are left out. */
function documented(): string[] {
  const page = readFileSync(new URL('../../docs/reference/iscsi.md', import.meta.url), 'utf8');
  const section = page.split(/^## /m).find((text) => text.startsWith('What the suite leaves out'));
  return [...(section ?? '').matchAll(/`(\w+\.[\w-]+)`/g)].map(([, name = '']) => name);
}

test('the verdicts are read as they stand', () => {
  const output = [
    'Suite: Read6',
    '  Test: Simple ...passed',
    '  Test: BeyondEol ...    [SKIPPED] LUN is too big.',
    'passed',
    'Suite: Control',
    '  Test: Control-D_SENSE ...',
    '    Something is said, not passed or FAILED in a word',
    'FAILED',
    '    1. ../test.c:1  - CU_FAIL("it has passed")',
    'Suite: Read6',
    '  Test: Simple ...[SKIPPED] no',
    '    [SKIPPED] again passed',
    '',
  ].join('\n');
  assert.deepEqual(
    parseSuite(output).map(({ name, passed, skips }) => [name, passed, skips.length]),
    [
      ['Read6.Simple', true, 0],
      ['Read6.BeyondEol', true, 1],
      ['Control.Control-D_SENSE', false, 0],
      ['Read6.Simple#2', true, 2],
    ],
  );
});

test(
  `libiscsi's suite: no test fails, at most ${MOST_SKIPPED} are left out`,
  requires('iscsi-test-cu'),
  async (t) => {
    const runs: SuiteRun[] = [];
    for (const variant of VARIANTS) {
      await t.test(variant.name, async (sub) => {
        const run = await serveAndRun(sub, variant);
        runs.push(run);
        const failed = run.tests.filter(({ passed }) => !passed);
        assert.deepEqual(
          failed.map(({ name, text }) => `${name}\n${text}`),
          [],
        );
        assert.equal(run.tests.length, TESTS);
      });
    }
    await t.test('what is left out in all of them is documented', () => {
      assert.equal(runs.length, VARIANTS.length);
      const skipped = skippedInAll(runs);
      assert.ok(skipped.length <= MOST_SKIPPED, `${skipped.length}: ${skipped.join(', ')}`);
      const names = new Set(skipped.map((name) => name.replace(/#\d+$/, '')));
      assert.deepEqual(documented().toSorted(), [...names].toSorted());
    });
  },
);
