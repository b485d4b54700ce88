import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import test, { type TestContext, type TestOptions } from 'node:test';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';
import {
  listIscsiSuite,
  parseSuite,
  runIscsiSuite,
  skippedInAll,
  type SuiteRun,
  type SuiteTest,
} from './support/iscsi-suite.ts';
import { requires, tool } from './support/requires.ts';

// libiscsi's test suite of SCSI and iSCSI against a disk in all the forms that it can have.

const TARGET = 'iqn.2026-11.org.example:suite';
/** All families of libiscsi 1.19 together. */
const TESTS = 615;
const MOST_SKIPPED = 40;
/** Less than a GiB: what READ (6) can address; more than the largest transfer of any test. */
const MIB = 256;

interface Variant {
  readonly name: string;
  /** An image, a disk in memory, or a block device with blocks of 4096 bytes. */
  readonly disk: 'image' | 'memory' | 'device';
  readonly args: readonly string[];
  /** Of each portal. */
  readonly keys: readonly string[];
  /** "FAMILY.SUITE"; absent: everything in one run. */
  readonly only?: (names: readonly string[]) => readonly string[];
  /** "SUITE.TEST" that fail, for the suite is wrong: the documentation says why. */
  readonly wrong?: readonly string[];
  /** Of these: what passes in a run of its own. */
  readonly alone?: readonly string[];
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

const UNMAP_SINGLE = 'GetLBAStatus.UnmapSingle';
const SANITIZE_RESET = 'Sanitize.Reset';

const VARIANTS: readonly Variant[] = [
  { name: 'plain', disk: 'image', args: [], keys: ['?thin=off'] },
  { name: 'thin', disk: 'memory', args: [], keys: ['?thin=on'], wrong: [UNMAP_SINGLE] },
  {
    // Where a physical block is no larger than a logical one, the suite and the standard agree on UnmapSingle.
    name: 'blocks of 4096 bytes',
    disk: 'device',
    args: ['--cache', 'none'],
    keys: ['?thin=on'],
    // ProutReserve writes 512 bytes as a block; Sanitize looks for holes, which a block device does not tell of.
    only: (names) => suitesOf(names).filter((each) => !/\.(?:ProutReserve|Sanitize)$/.test(each)),
  },
  { name: 'removable', disk: 'image', args: [], keys: ['?thin=off&removable=on'] },
  {
    name: 'read-only',
    disk: 'image',
    args: ['--read-only'],
    keys: ['?thin=on'],
    only: (names) => suitesOf(names).filter((each) => READING.has(each.replace(/^\w+\./, ''))),
  },
  {
    name: 'two paths',
    disk: 'image',
    args: [],
    keys: ['?thin=on', ''],
    wrong: [UNMAP_SINGLE, SANITIZE_RESET],
    alone: [SANITIZE_RESET],
  },
];

/** "SUITE.TEST", without the family that it is in. */
function bare(name: string): string {
  return name.replace(/^\w+\./, '');
}

async function serveAndRun(
  t: TestContext,
  { disk: kind, args, keys, only, alone = [] }: Variant,
  names: readonly string[],
): Promise<{ together: SuiteRun; apart: SuiteRun }> {
  const disk = makeDisk(t, kind);
  const listen = keys.flatMap((each) => ['--listen', `iscsi://127.0.0.1:0/${TARGET}${each}`]);
  const words = ['--json', disk, ...args, ...listen];
  const server = await startHoldfast(t, words, { readyLine: /"iscsi":.*\n/ });
  const { disks } = JSON.parse(server.stdout) as { disks: { iscsi: { url: string }[] }[] };
  const urls = disks[0]?.iscsi.map(({ url }) => url) ?? [];
  const runAll = async (choices: readonly (string | null)[]): Promise<SuiteRun> => {
    const runs: SuiteRun[] = [];
    for (const choice of choices) runs.push(await runIscsiSuite(urls, names, choice));
    return {
      tests: runs.flatMap(({ tests }) => tests),
      output: runs.map(({ output }) => output).join('\n'),
    };
  };
  const together = await runAll(only?.(names) ?? [null]);
  const apart = await runAll(names.filter((name) => alone.includes(bare(name))));
  await server.stop();
  assert.doesNotMatch(server.stderr, /assert/i);
  return { together, apart };
}

function makeDisk(t: TestContext, kind: Variant['disk']): string {
  if (kind === 'memory') return `memory:${MIB}M`;
  const image = makeImage(workspace(t), MIB);
  if (kind === 'image') return image;
  const losetup = tool('losetup');
  const options = ['--sector-size', '4096', '--find', '--show', image];
  const device = execFileSync(losetup, options, { encoding: 'utf8' }).trim();
  // What was registered last is done first: the server has ended by then.
  t.after(() => void execFileSync(losetup, ['--detach', device]));
  return device;
}

/** The tests that stand in a section of the documentation. */
function documented(title: string): string[] {
  const page = readFileSync(new URL('../../docs/reference/iscsi.md', import.meta.url), 'utf8');
  const section = page.split(/^## /m).find((text) => text.startsWith(title));
  // What stands before the reason.
  const heads = (section ?? '').split('\n').filter((line) => line.startsWith('- '));
  const names = heads.map((line) => line.replace(/: .*$/, '')).join('\n');
  return [...names.matchAll(/`(\w+\.[\w-]+)`/g)].map(([, name = '']) => name);
}

/** A block device with blocks of a given size can be made by root alone. */
function variantOptions({ disk }: Variant): TestOptions {
  if (disk !== 'device') return {};
  return process.getuid?.() === 0 ? requires('losetup') : { skip: 'loop devices are for root' };
}

function assertPassed(tests: readonly SuiteTest[]): void {
  const failed = tests.filter(({ passed }) => !passed);
  assert.deepEqual(
    failed.map(({ name, text }) => `${name}\n${text.slice(0, 500)}`),
    [],
  );
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
  `libiscsi's suite: no test fails but those that are wrong, at most ${MOST_SKIPPED} are left out`,
  // Most of the time is spent waiting for SANITIZE: the variants run side by side.
  { ...requires('iscsi-test-cu'), concurrency: true },
  async (t) => {
    const names = await listIscsiSuite();
    assert.equal(names.length, TESTS);
    const runs: SuiteRun[] = [];
    const variants = VARIANTS.map((variant) =>
      t.test(variant.name, variantOptions(variant), async (sub) => {
        const { together, apart } = await serveAndRun(sub, variant, names);
        runs.push(together);
        assertPassed(together.tests.filter(({ name }) => !variant.wrong?.includes(bare(name))));
        assertPassed(apart.tests);
        const wrong = together.tests.filter(({ name }) => variant.wrong?.includes(bare(name)));
        const passed = wrong.filter((each) => each.passed).map(({ name }) => name);
        assert.deepEqual(passed, [], 'said to be wrong, and passes');
      }),
    );
    await Promise.all(variants);
    await t.test('what is wrong in the suite is documented', () => {
      const wrong = new Set(VARIANTS.flatMap((variant) => variant.wrong ?? []));
      assert.deepEqual(
        documented('What the suite is wrong about').toSorted(),
        [...wrong].toSorted(),
      );
    });
    await t.test('what is left out in all of them is documented', () => {
      assert.ok(runs.length >= VARIANTS.length - 1);
      const skipped = skippedInAll(runs);
      assert.ok(skipped.length <= MOST_SKIPPED, `${skipped.length}: ${skipped.join(', ')}`);
      const tests = new Set(skipped.map(bare));
      assert.deepEqual(documented('What the suite leaves out').toSorted(), [...tests].toSorted());
    });
  },
);
