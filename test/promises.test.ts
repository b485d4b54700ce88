import assert from 'node:assert/strict';
import test from 'node:test';
import { filesUnder, readText } from './support/sources.ts';

// docs/concepts/durability.md names the tests that keep each promise. They must exist, under these names.

const PAGE = readText('docs/concepts/durability.md');
const SECTION = /^## Which tests keep them\n([^]*?)\n## /m.exec(PAGE)?.[1] ?? '';

test('every promise has its tests on the page', () => {
  for (let i = 1; i <= 12; i += 1) {
    assert.match(PAGE, new RegExp(`^\\| P${i} +\\|`, 'm'), `P${i} is promised`);
    const part = new RegExp(`^- P${i}(: [^\n]+)?\\n((?:  .*\\n?)*)`, 'm').exec(SECTION);
    assert.ok(part !== null, `P${i} has tests`);
    assert.ok(part[2] !== '' || i === 7, `P${i} has tests`);
  }
});

test('the tests that the page names exist', () => {
  const texts = [...filesUnder('src', '.ts'), ...filesUnder('test', '.ts')]
    .filter((path) => !path.endsWith('promises.test.ts'))
    .map((path) => readText(path));
  const names = [...SECTION.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? '');
  assert.ok(names.length > 25);
  for (const name of names) {
    if (/^[\w-]+(\/[\w.-]+)*$/.test(name)) continue;
    assert.ok(
      texts.some((text) => text.includes(name)),
      name,
    );
  }
});
