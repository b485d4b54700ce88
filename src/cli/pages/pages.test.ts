import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import test from 'node:test';
import { EXIT, EXIT_TEXTS } from '../exit-codes.ts';
import { PROGRAM } from '../spec/program.ts';
import { packageVersion } from '../../server/version.ts';
import { renderCompletion, type Shell } from './completion.ts';
import { generatedFiles } from './files.ts';
import { renderJson } from './json.ts';
import { wrap } from './wrap.ts';

const ROOT = new URL('../../../', import.meta.url);
const files = generatedFiles(packageVersion());

test('the committed pages are what the declaration makes (else: node scripts/generate-pages.ts)', () => {
  for (const [path, content] of files) {
    assert.equal(readFileSync(new URL(path, ROOT), 'utf8'), content, path);
  }
  const committed = readdirSync(new URL('packaging/man/', ROOT)).map((n) => `packaging/man/${n}`);
  for (const path of committed) assert.ok(files.has(path), `${path} is of no command`);
  // npm installs the pages that are named there.
  const text = readFileSync(new URL('package.json', ROOT), 'utf8');
  const { man } = JSON.parse(text) as { man: string[] };
  assert.deepEqual(man.toSorted(), committed.map((path) => `./${path}`).toSorted());
});

test('man finds nothing to complain about in the pages', { skip: !has('man') }, () => {
  for (const path of files.keys()) {
    if (!path.endsWith('.1')) continue;
    const run = spawnSync('man', ['-l', '--warnings', fileURLToPath(new URL(path, ROOT))], {
      encoding: 'utf8',
      env: { ...process.env, MANPAGER: 'cat', PAGER: 'cat', MANWIDTH: '80', LC_ALL: 'C.UTF-8' },
    });
    assert.equal(run.status, 0, path);
    assert.equal(run.stderr, '', path);
    assert.match(run.stdout, /EXIT STATUS/, path);
  }
});

test('every exit code is described once, in the pages and on the exit code page', () => {
  const described = EXIT_TEXTS.map(([code]) => code);
  assert.deepEqual(described, Object.values(EXIT));
  const page = readFileSync(new URL('docs/reference/exit-codes.md', ROOT), 'utf8');
  for (const code of described) assert.match(page, new RegExp(`^\\| ${code} +\\|`, 'm'));
});

test('the JSON help has every command and option and can be read back', () => {
  const tree = JSON.parse(renderJson(PROGRAM, '1.2.3')) as typeof PROGRAM & { version: string };
  assert.equal(tree.version, '1.2.3');
  assert.deepEqual(tree.commands, JSON.parse(JSON.stringify(PROGRAM.commands)));
});

test('completions name every command and every spelling of every option', () => {
  for (const shell of ['bash', 'zsh', 'fish'] as const) {
    const script = renderCompletion(PROGRAM, shell);
    for (const command of PROGRAM.commands) {
      for (const word of command.name.split(' ')) {
        assert.ok(script.includes(word), `${shell}: ${command.name}`);
      }
      for (const option of command.options) {
        const name = shell === 'fish' ? `-l ${option.long.slice(2)}` : option.long;
        assert.ok(script.includes(name), `${shell}: ${option.long}`);
      }
    }
  }
});

test('the scripts are accepted by their shells', (t) => {
  const shells: readonly [Shell, readonly string[]][] = [
    ['bash', ['-n']],
    ['zsh', ['-n']],
    ['fish', ['--no-execute']],
  ];
  for (const [shell, options] of shells) {
    if (!has(shell)) {
      t.diagnostic(`${shell} is not installed`);
      continue;
    }
    const input = renderCompletion(PROGRAM, shell);
    const run = spawnSync(shell, options, { input, encoding: 'utf8' });
    assert.equal(run.status, 0, `${shell}: ${run.stderr}`);
    assert.equal(run.stderr, '', shell);
  }
});

test('bash completes commands, options and their values', { skip: !has('bash') }, () => {
  assert.deepEqual(complete('holdfast', 'cr'), ['create']);
  assert.deepEqual(complete('holdfast', 'serve', '--cache', 'write'), [
    'writeback',
    'writethrough',
  ]);
  assert.deepEqual(complete('holdfast', 'serve', '--tls-p'), ['--tls-psk']);
  assert.deepEqual(complete('holdfast', 'completion', 'z'), ['zsh']);
  assert.deepEqual(complete('holdfast', 'man', 'exp'), ['explain']);
  assert.deepEqual(complete('holdfast', 'la'), ['lab']);
  assert.deepEqual(complete('holdfast', 'lab', 'cu'), ['cut']);
  assert.deepEqual(complete('holdfast', 'lab', 'cut', '--see'), ['--seed']);
  assert.deepEqual(complete('holdfast', 'man', 'lab-cu'), ['lab-cut']);
});

test('wrap keeps words whole and lines short', () => {
  assert.deepEqual(wrap('one two  three', 9, 2), ['  one two', '  three']);
  assert.deepEqual(wrap('incomprehensible it', 8, 0), ['incomprehensible', 'it']);
  assert.deepEqual(wrap('', 8, 2), []);
});

function has(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
}

function complete(...words: string[]): string[] {
  const script = [
    renderCompletion(PROGRAM, 'bash'),
    `COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}`,
    `_holdfast; printf '%s\\n' "\${COMPREPLY[@]}"`,
  ].join('\n');
  const run = spawnSync('bash', [], { input: script, encoding: 'utf8' });
  return run.stdout.split('\n').filter((line) => line !== '');
}
