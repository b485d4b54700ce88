import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import test from 'node:test';
import { filesUnder, lineOf, readText, ROOT, separate } from './support/sources.ts';

// The house (ARCHITECTURE.md): imports point one way, so that each room can be read, tested and changed without those
// above it. Imports of types count too.

const CONTRACT = ['base', 'block'];
const MACHINERY = [...CONTRACT, 'durability', 'reactor', 'trace'];
const DEVICES = [...MACHINERY, 'stores', 'layers', 'arrays'];
const SERVER = [...DEVICES, 'protocols', 'server'];

/** For each room: the rooms that it may use, besides itself. */
const MAY_USE: Readonly<Record<string, readonly string[]>> = {
  base: [],
  block: ['base'],
  durability: CONTRACT,
  reactor: CONTRACT,
  trace: CONTRACT,
  stores: MACHINERY,
  layers: MACHINERY,
  arrays: MACHINERY,
  protocols: DEVICES,
  server: [...DEVICES, 'protocols'],
  /** What runs in the browser. */
  dashboard: ['base'],
  control: SERVER,
  cli: [...SERVER, 'lab'],
  lab: [...SERVER, 'control', 'dashboard'],
};

interface Import {
  readonly from: string;
  readonly line: number;
  readonly what: string;
}

const imports = filesUnder('src', '.ts').flatMap((path) => importsIn(path, readText(path)));

test('imports between rooms point one way', () => {
  const wrong: string[] = [];
  for (const found of productImports()) {
    const [from, to] = [roomOf(found.from), roomOf(target(found))];
    if (!isRelative(found) || from === '' || from === to) continue;
    if (!(MAY_USE[from] ?? []).includes(to)) wrong.push(`${show(found)} (${from} uses ${to})`);
  }
  assert.deepEqual(wrong, []);
});

test('every folder of src is a room of the house', () => {
  const rooms = new Set(filesUnder('src', '.ts').map((path) => roomOf(path)));
  rooms.delete('');
  for (const room of rooms) assert.ok(room in MAY_USE, `src/${room} has no place in the house`);
});

test('only index.ts stands beside the rooms', () => {
  const loose = filesUnder('src', '.ts').filter((path) => roomOf(path) === '');
  for (const path of loose) assert.match(path, /^src\/index(\.test)?\.ts$/);
});

test('there is no cycle between rooms', () => {
  const uses = new Map<string, Map<string, string>>();
  for (const found of productImports()) {
    const [from, to] = [roomOf(found.from), roomOf(target(found))];
    if (!isRelative(found) || from === '' || from === to) continue;
    const edges = uses.get(from) ?? new Map<string, string>();
    uses.set(from, edges.set(to, show(found)));
  }
  for (const room of uses.keys()) {
    const cycle = findCycle(uses, [room]);
    const shown = cycle?.map((from, i) => uses.get(from)?.get(cycle[i + 1] ?? room));
    assert.equal(cycle, null, `a cycle: ${shown?.join(', ')}`);
  }
});

test('relative imports name a file that exists, with its ending', () => {
  for (const found of imports.filter(isRelative)) {
    assert.match(found.what, /\.(ts|json)$/, show(found));
    assert.ok(existsSync(join(ROOT, target(found))), `${show(found)} does not exist`);
  }
});

test('nothing imports a test, and the product imports nothing outside src', () => {
  for (const found of productImports().filter(isRelative)) {
    assert.doesNotMatch(found.what, /\.test\.ts$/, show(found));
    assert.match(target(found), /^src\//, show(found));
  }
});

test('packages are declared, and kernel calls stay where they belong', () => {
  const manifest = JSON.parse(readText('package.json')) as { dependencies: object };
  const declared = Object.keys(manifest.dependencies);
  for (const found of productImports()) {
    if (isRelative(found) || found.what.startsWith('node:')) continue;
    assert.ok(declared.includes(found.what), `${show(found)} is no dependency`);
    const mayCall = /^src\/(reactor|stores)\/|\/native\.ts$/.test(found.from);
    assert.ok(found.what !== 'koffi' || mayCall, `${show(found)}: kernel calls live in native.ts`);
  }
});

test('the test itself sees every form of import', () => {
  const text = [
    "import a, { type B } from './a.ts';",
    "import type {\n  C,\n} from './b.ts';",
    "export * from './c.ts';",
    "export { d } from './d.ts';",
    "import './e.ts';",
    "const f = await import('./f.ts');",
    "let g: import('./g.ts').G;",
    "const url = new URL('./h.ts', import.meta.url);",
    "// import './not-this.ts'",
    "const text = `import './nor-this.ts' ${await import('./i.ts')}`;",
    "const regex = /['\"]/; import './j.ts'; export const from = './nor-that.ts';",
  ].join('\n');
  const names = importsIn('x.ts', text).map((found) => found.what);
  assert.deepEqual(
    names,
    'abcdefghij'.split('').map((name) => `./${name}.ts`),
  );
});

/** A path from the last of `path` back to its first room, or null. */
function findCycle(
  uses: ReadonlyMap<string, ReadonlyMap<string, string>>,
  path: string[],
): string[] | null {
  for (const next of uses.get(path.at(-1) ?? '')?.keys() ?? []) {
    if (next === path[0]) return path;
    if (path.includes(next)) continue;
    const found = findCycle(uses, [...path, next]);
    if (found !== null) return found;
  }
  return null;
}

/** Tests are no part of the product: they may use what they like. */
function productImports(): Import[] {
  return imports.filter((found) => !found.from.endsWith('.test.ts'));
}

/** Imports, re-exports, dynamic imports, types by import(), and files started by URL (workers). */
function importsIn(path: string, text: string): Import[] {
  const { code, strings } = separate(text);
  const found: Import[] = [];
  for (const { start, end } of strings) {
    const before = code.slice(Math.max(0, start - 2000), start - 1);
    const after = code.slice(end + 1, end + 40);
    const isImport =
      /(?:^|[\s;}])(?:import|export)\s(?:[\w\s{},*$]*\s|\s*[{*][\w\s{},*$]*[}\w]\s*)from\s*$/.test(
        before,
      ) || /(?:^|[^\w$.])import\s*\(?\s*$/.test(before);
    const isUrl = /new URL\(\s*$/.test(before) && /^\s*,\s*import\.meta\.url/.test(after);
    const what = text.slice(start, end);
    if (isImport || (isUrl && what.endsWith('.ts'))) {
      found.push({ from: path, line: lineOf(text, start), what });
    }
  }
  return found;
}

function isRelative(found: Import): boolean {
  return found.what.startsWith('.');
}

/** The imported file, from the root. */
function target(found: Import): string {
  return posix.join(dirname(found.from), found.what);
}

/** 'block' for src/block/io.ts; '' for src/index.ts. */
function roomOf(path: string): string {
  const parts = path.split('/');
  return parts.length > 2 ? (parts[1] as string) : '';
}

function show(found: Import): string {
  return `${found.from}:${found.line} imports ${found.what}`;
}
