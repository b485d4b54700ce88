import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';
import {
  listIscsiSuite,
  parseSuite,
  runIscsiSuite,
  skippedInAll,
  type SuiteRun,
} from './support/iscsi-suite.ts';
import { requires } from './support/requires.ts';

// libiscsi's test suite of SCSI and iSCSI against a disk in all the forms that it can have.

const TARGET = 'iqn.2026-11.org.example:suite';
/** All families of libiscsi 1.19 together. */
const TESTS = 615;
const MOST_SKIPPED = 40;
/** Less than a GiB: what READ (6) can address; more than the largest transfer of any test. */
const MIB = 256;

interface Variant {
  readonly name: string;
  /** A disk in memory, or an image. */
  readonly memory: boolean;
  readonly args: readonly string[];
  /** Of each portal. */
  readonly keys: readonly string[];
  /** "FAMILY.SUITE", "FAMILY.SUITE.TEST"; absent: everything in one run. */
  readonly only?: (names: readonly string[]) => readonly string[];
}

/** Of the suites that write nothing: the others fail on a write-protected disk, as they should. */
const READING: ReadonlySet<string> = new Set([
  'Inquiry',
  'Mandatory',
  'Prefetch10',
  'Prefetch16',
  'Read10',
  'Read12',
  'Read16',
  'ReadCapacity10',
  'ReadCapacity16',
  'ReadDefectData10',
  'ReadDefectData12',
  'ReadOnly',
  'ReportSupportedOpcodes',
  'TestUnitReady',
]);

/** "FAMILY.SUITE" of all tests. */
function suitesOf(names: readonly string[]): string[] {
  return [...new Set(names.map((name) => name.replace(/\.[^.]+$/, '')))];
}

const VARIANTS: readonly Variant[] = [
  { name: 'plain', memory: false, args: [], keys: ['?thin=off'] },
  { name: 'thin', memory: true, args: [], keys: ['?thin=on'] },
  { name: 'removable', memory: false, args: [], keys: ['?thin=off&removable=on'] },
  {
    name: 'read-only',
    memory: false,
    args: ['--read-only'],
    keys: ['?thin=on'],
    only: (names) => suitesOf(names).filter((each) => READING.has(each.replace(/^\w+\./, ''))),
  },
  {
    name: 'two paths',
    memory: false,
    args: [],
    keys: ['?thin=on', ''],
    // Sanitize.Reservations leaves a RESERVE (6) of the second path behind, which SANITIZE in the next test conflicts with: each
    // of these has sessions of its own.
    only: (names) =>
      suitesOf(names).flatMap((suite) =>
        suite.endsWith('.Sanitize') ? names.filter((name) => name.startsWith(suite)) : [suite],
      ),
  },
];

async function serveAndRun(
  t: TestContext,
  { memory, args, keys, only }: Variant,
  names: readonly string[],
): Promise<SuiteRun> {
  const disk = memory ? `memory:${MIB}M` : makeImage(workspace(t), MIB);
  const listen = keys.flatMap((each) => ['--listen', `iscsi://127.0.0.1:0/${TARGET}${each}`]);
  const words = ['--json', disk, ...args, ...listen];
  const server = await startHoldfast(t, words, { readyLine: /"iscsi":.*\n/ });
  const { disks } = JSON.parse(server.stdout) as { disks: { iscsi: { url: string }[] }[] };
  const urls = disks[0]?.iscsi.map(({ url }) => url) ?? [];
  const runs: SuiteRun[] = [];
  for (const each of only?.(names) ?? [null]) {
    runs.push(await runIscsiSuite(urls, names, each));
  }
  await server.stop();
  assert.doesNotMatch(server.stderr, /assert/i);
  return {
    tests: runs.flatMap(({ tests }) => tests),
    output: runs.map(({ output }) => output).join('\n'),
  };
}

/** The tests that the documentation says are left out. */
function documented(): string[] {
  const page = readFileSync(new URL('../../docs/reference/iscsi.md', import.meta.url), 'utf8');
  const section = page.split(/^## /m).find((text) => text.startsWith('What the suite leaves out'));
  // What stands before the reason.
  const heads = (section ?? '').split('\n').filter((line) => line.startsWith('- '));
  const names = heads.map((line) => line.replace(/: .*$/, '')).join('\n');
  return [...names.matchAll(/`(\w+\.[\w-]+)`/g)].map(([, name = '']) => name);
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
    '  Test: Last ...',
    'passed    [FAILED] what cleans up has met a unit attention',
    '',
  ].join('\n');
  const tests = parseSuite(output);
  assert.deepEqual(
    tests.map(({ name, passed, skips }) => [name, passed, skips.length]),
    [
      ['Read6.Simple', true, 0],
      ['Read6.BeyondEol', true, 1],
      ['Control.Control-D_SENSE', false, 0],
      ['Read6.Simple', true, 2],
      ['Read6.Last', true, 0],
    ],
  );
  assert.deepEqual(skippedInAll([{ tests, output }]), ['Read6.BeyondEol']);
});

test(
  `libiscsi's suite: no test fails, at most ${MOST_SKIPPED} are left out`,
  // Most of the time is spent waiting for SANITIZE: the variants run side by side.
  { ...requires('iscsi-test-cu'), concurrency: true },
  async (t) => {
    const names = await listIscsiSuite();
    assert.equal(names.length, TESTS);
    const runs: SuiteRun[] = [];
    const variants = VARIANTS.map((variant) =>
      t.test(variant.name, async (sub) => {
        const run = await serveAndRun(sub, variant, names);
        runs.push(run);
        const failed = run.tests.filter(({ passed }) => !passed);
        const told = failed.map(({ name, text }) => `${name}\n${text.slice(0, 500)}`);
        assert.deepEqual(told, []);
      }),
    );
    await Promise.all(variants);
    await t.test('what is left out in all of them is documented', () => {
      assert.equal(runs.length, VARIANTS.length);
      const skipped = skippedInAll(runs);
      assert.ok(skipped.length <= MOST_SKIPPED, `${skipped.length}: ${skipped.join(', ')}`);
      const tests = new Set(skipped.map((name) => name.replace(/^\w+\./, '')));
      assert.deepEqual(documented().toSorted(), [...tests].toSorted());
    });
  },
);
