import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { filesUnder, lineOf, readSource, readText, ROOT, type Source } from './support/sources.ts';

// What CONTRIBUTING.md asks of every file and no linter checks.

const MAX_COLUMNS = 130;
const MAX_FILE_LINES = 600;
const MAX_FUNCTION_LINES = 70;

const sources = ['src', 'test', 'bench', 'scripts', 'examples']
  .flatMap((directory) => filesUnder(directory, '.ts'))
  .map((path) => readSource(path));
const product = sources.filter((source) => !isTest(source.path));
const pages = filesUnder('.', '.md');

interface Ban {
  readonly what: RegExp;
  readonly why: string;
  /** Where it is right all the same. */
  readonly except?: RegExp;
}

/** Certificates and the state file live in the world's time; tests and benchmarks wait for other processes. */
const WALL_CLOCK =
  /^(test|bench|scripts)\/|\/log[^/]*\.ts$|\/(state-file|tls-credentials|file\/open)\.ts$/;

/** Looked for in code, not in comments and strings. */
const BANNED_IN_CODE: readonly Ban[] = [
  { what: /\ballocUnsafe/g, why: 'memory that was not cleared can reach a peer or the disk' },
  { what: /\bMath\.random\b/g, why: 'use a seeded Prng, or node:crypto for secrets' },
  {
    what: /\bDate\.now\b|\bnew Date\(\)/g,
    why: 'time comes from Timers; the wall clock is for what people read',
    except: WALL_CLOCK,
  },
  {
    what: /(?<![\w.#])console\./g,
    why: 'data goes to stdout and talk to stderr, by the parts that own them',
  },
  {
    what: /\b(?:test|it|describe|suite)\.(?:skip|only|todo)\b/g,
    why: 'a test that does not run proves nothing',
  },
  { what: /\b(?:only|todo):\s*true\b/g, why: 'a test that does not run proves nothing' },
  {
    what: /(?<=^|\n)\s*(?:export\s+)?(?:declare\s+)?(?:const\s+)?enum\s+\w/g,
    why: 'enums cannot be erased',
  },
  {
    what: /(?<=^|\n)\s*(?:export\s+)?(?:declare\s+)?(?:namespace|module)\s+[\w.]+\s*\{/g,
    why: 'namespaces cannot be erased',
  },
];

/** Looked for everywhere. In brackets so that this file does not find itself. */
const BANNED_WORDS: Ban = {
  what: /\b(?:[T]ODO|[F]IXME|[X]XX)\b/g,
  why: 'finish it, or open an issue',
};

test('the project has the files that this test is about', () => {
  assert.ok(product.length > 50 && sources.length > product.length);
  assert.ok(pages.length > 0);
});

test('no line is longer than 130 columns', () => {
  const long = sources.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, i) => (line.length > MAX_COLUMNS ? [`${path}:${i + 1}`] : [])),
  );
  assert.deepEqual(long, []);
});

test('no file has more than 600 lines, tests excepted', () => {
  const long = product.flatMap(({ path, text }) => {
    const lines = text.split('\n').length - 1;
    return lines > MAX_FILE_LINES ? [`${path}: ${lines} lines`] : [];
  });
  assert.deepEqual(long, []);
});

test('no function has more than 70 lines, tests and conformance suites excepted', () => {
  const plain = product.filter(({ path }) => !path.includes('/conformance/'));
  const long = plain.flatMap((source) =>
    functionsIn(source.code)
      .filter(({ lines }) => lines > MAX_FUNCTION_LINES)
      .map(({ line, lines }) => `${source.path}:${line}: ${lines} lines`),
  );
  assert.deepEqual(long, []);
});

test('file names are kebab-case', () => {
  for (const { path } of sources) {
    assert.match(path, /^([a-z0-9]+(-[a-z0-9]+)*\/)*[a-z0-9]+([-.][a-z0-9]+)*\.ts$/);
  }
});

test('nothing banned is in the code', () => {
  const found = sources.flatMap((source) =>
    BANNED_IN_CODE.flatMap((ban) => occurrences(source.path, source.code, ban)),
  );
  assert.deepEqual(found, []);
});

test('nothing is left unfinished', () => {
  const texts = [...sources, ...pages.map((path) => ({ path, text: readText(path) }))];
  const found = texts.flatMap(({ path, text }) => occurrences(path, text, BANNED_WORDS));
  assert.deepEqual(found, []);
});

test('every limit says where it comes from', () => {
  const bare: string[] = [];
  const limits = product.filter(({ path }) => path.endsWith('/limits.ts'));
  assert.ok(limits.length > 0);
  for (const { path, text } of limits) {
    const lines = text.split('\n');
    for (const [i, line] of lines.entries()) {
      if (!line.startsWith('export const ')) continue;
      const above = lines[i - 1] ?? '';
      if (!/\*\/$|^\/\//.test(above.trim())) bare.push(`${path}:${i + 1}: ${line}`);
    }
  }
  assert.deepEqual(bare, []);
});

test('every page has one title, first', () => {
  for (const path of pages) {
    const text = withoutFences(readText(path)).replace(/^---\n[^]*?\n---\n/, '');
    const titles = text.match(/^# .+$/gm) ?? [];
    assert.equal(titles.length, 1, `${path} has ${titles.length} titles`);
    assert.match(text.trimStart(), /^(?:<[^\n]*>\s*)*# /, `${path} does not begin with its title`);
  }
});

test('relative links in pages lead somewhere', () => {
  const broken: string[] = [];
  for (const path of pages) {
    const text = withoutFences(readText(path)).replaceAll(/`[^`\n]*`/g, '');
    const links = [
      ...text.matchAll(/\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)/g),
      ...text.matchAll(/^\[[^\]]+\]:\s*(\S+)/gm),
      ...text.matchAll(/(?:src|href)="([^"]+)"/g),
    ];
    for (const [, link = ''] of links) {
      if (/^[a-z][a-z+.-]*:/i.test(link)) continue;
      const [file = '', anchor] = link.split('#', 2);
      const target = file === '' ? path : join(dirname(path), decodeURIComponent(file));
      if (!existsSync(join(ROOT, target))) broken.push(`${path}: ${link}`);
      else if (anchor !== undefined && target.endsWith('.md') && !anchorsOf(target).has(anchor)) {
        broken.push(`${path}: ${link} (no such heading)`);
      }
    }
  }
  assert.deepEqual(broken, []);
});

test('the rules find what they are there for', () => {
  const code = [
    'x = Buffer.allocUnsafe(1);',
    'Math.random();',
    'export const enum E {',
    'test.only(1);',
  ];
  for (const line of code) {
    assert.equal(
      BANNED_IN_CODE.flatMap((ban) => occurrences('src/a/b.ts', line, ban)).length,
      1,
      line,
    );
  }
  const now: string = ['Date', 'now()'].join('.');
  const ban = BANNED_IN_CODE[2] as Ban;
  assert.equal(occurrences('src/block/io.ts', now, ban).length, 1);
  assert.equal(occurrences('src/durability/state-file.ts', now, ban).length, 0);
  const body = '\n  x();'.repeat(80);
  const forms = [
    `function a(): void {${body}\n}`,
    `export async function b(x: { y: number } = { y: 1 }): Promise<{ z: 1 }> {${body}\n}`,
    `class C extends D {\n  static #e<T>(x: T): x is T {${body}\n}\n}`,
    `const f = (x: number): void => {${body}\n};`,
    `program.action(async () => {${body}\n});`,
  ];
  for (const form of forms) {
    const longest = Math.max(...functionsIn(form).map(({ lines }) => lines));
    assert.ok(longest >= 81 && longest <= 83, `${longest} lines in ${form.slice(0, 40)}`);
  }
  const data = `export const TABLE = {${body}\n};\ninterface I {${body}\n}\nclass A {${body}\n}`;
  assert.deepEqual(functionsIn(data), []);
});

function isTest(path: string): boolean {
  return path.endsWith('.test.ts');
}

function occurrences(path: string, text: string, ban: Ban): string[] {
  if (ban.except?.test(path) === true) return [];
  return [...text.matchAll(ban.what)].map(
    (match) => `${path}:${lineOf(text, match.index)}: ${match[0].trim()} (${ban.why})`,
  );
}

/**
 * The functions at the top of a file and the methods of its classes, by matching braces in text without comments and
 * strings. A body is a block that follows a parameter list, a return type or an arrow.
 */
function functionsIn(code: Source['code']): { line: number; lines: number }[] {
  const found: { line: number; lines: number }[] = [];
  const open: { at: number; isClass: boolean; isBody: boolean }[] = [];
  for (let i = 0; i < code.length; i += 1) {
    if (code[i] === '{') {
      const head = headOf(code, i);
      const isClass = /^(?:export\s+)?(?:default\s+)?(?:abstract\s+)?class\b/.test(head);
      const nested = open.some((block) => block.isBody);
      open.push({ at: i - head.length, isClass, isBody: !nested && !isClass && isBody(head) });
    } else if (code[i] === '}') {
      const block = open.pop();
      if (block?.isBody !== true) continue;
      const lines = lineOf(code, i) - lineOf(code, block.at) + 1;
      found.push({ line: lineOf(code, block.at), lines });
    }
  }
  return found;
}

/** What stands before a brace, back to the end of the statement or block before it. */
function headOf(code: string, brace: number): string {
  let depth = 0;
  let i = brace - 1;
  for (; i >= 0; i -= 1) {
    const char = code[i] as string;
    if (char === ')' || char === '}' || char === ']') {
      // A block that ended before this statement began.
      if (char === '}' && depth === 0 && /^\}\s*\n/.test(code.slice(i, i + 80))) break;
      depth += 1;
    } else if (char === '(' || char === '{' || char === '[') {
      if (depth === 0) break;
      depth -= 1;
    } else if (char === ';' && depth === 0) break;
  }
  return code.slice(i + 1, brace).trimStart();
}

function isBody(head: string): boolean {
  if (/^(?:export\s+)?(?:declare\s+)?(?:interface|type|import|enum)\b/.test(head)) return false;
  const end = head.trimEnd();
  if (end.endsWith('=>') || end.endsWith(')')) return true;
  // A return type: what follows the last parameter list has no assignment in it.
  return /\)\s*:[^=;]*$/.test(end) && !/[:|&<,=(]$/.test(end);
}

function withoutFences(text: string): string {
  return text.replaceAll(/^(```|~~~)[^]*?^\1/gm, '');
}

/** The anchors that GitHub makes of a page's headings. */
function anchorsOf(path: string): Set<string> {
  const headings = withoutFences(readText(path)).match(/^#+ .+$/gm) ?? [];
  return new Set(
    headings.map((heading) =>
      heading
        .replace(/^#+ /, '')
        .trim()
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(/\s/g, '-'),
    ),
  );
}
