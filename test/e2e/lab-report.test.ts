import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { pathToFileURL } from 'node:url';
import { renderReport } from '../../src/lab/report/report.ts';
import { exploreToy, fails, ledger, ledgerRule, type Toy } from '../../src/lab/report/testing.ts';
import { TraceBuilder } from '../../src/trace/builder.ts';
import { run } from './support/command.ts';
import { workspace } from './support/holdfast.ts';
import { requires } from './support/requires.ts';

// A report in a browser: opened from the disk, it complains about nothing, asks the network for nothing, and nothing stands out
// of its page.

/** Loads a page as a file; what Chromium printed of it, and what it said. */
async function load(
  t: TestContext,
  page: string,
  ...flags: readonly string[]
): Promise<{ dom: string; complaints: readonly string[] }> {
  const folder = workspace(t);
  const path = join(folder, 'report.html');
  writeFileSync(path, page);
  const quiet = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'];
  const own = [`--user-data-dir=${folder}`, '--enable-logging=stderr', '--v=0', ...flags];
  const { status, stdout, stderr } = await run(
    // Without any network: a page that needs it fails here.
    ['unshare', '--net', 'chromium', ...quiet, ...own, '--dump-dom', pathToFileURL(path).href],
    { env: { HOME: folder } },
  );
  assert.equal(status, 0, stderr);
  return { dom: stdout, complaints: stderr.split('\n').filter((line) => line.includes('CONSOLE')) };
}

function render(toy: Toy): string {
  return renderReport({ ...toy, checker: 'toy', replayOptions: '', version: '0.0.0' });
}

const options =
  process.getuid?.() === 0 ? requires('chromium', 'unshare') : { skip: 'needs root, for unshare' };

test(
  'a report with failures: every part is there, and the browser has no complaint',
  options,
  async (t) => {
    const toy = await exploreToy(ledger(new TraceBuilder(), 9), ledgerRule(9));
    const { dom, complaints } = await load(t, render(toy));
    assert.deepEqual(complaints, []);
    assert.equal(dom.match(/<svg [^>]*class="map"/g)?.length, toy.causes.length + 1);
    assert.equal(dom.match(/<section class="cause"/g)?.length, toy.causes.length);
    assert.match(dom, /<table class="hex">/);
  },
);

test('a hostile name stays a name', options, async (t) => {
  const evil = `"><img src=http://localhost/x onerror="document.title='owned'"><script>document.title='owned'</script>`;
  const builder = new TraceBuilder({ disks: [{ name: evil }] });
  builder.wrote({ offset: 0, data: 1 });
  builder.mark('ack', evil);
  const toy = await exploreToy(builder.trace(), ({ letter, marks }) =>
    marks > 0 && letter(0) !== 1 ? fails('durability', evil, evil) : null,
  );
  const { dom, complaints } = await load(t, render(toy));
  assert.deepEqual(complaints, []);
  assert.doesNotMatch(dom, /<title>owned|<img|<script/);
});

test('if a script got into the page all the same, it would not run', options, async (t) => {
  const toy = await exploreToy(ledger(new TraceBuilder(), 2), () => null);
  const page = render(toy).replace('</main>', "<script>document.title = 'owned'</script></main>");
  const { dom, complaints } = await load(t, page);
  assert.doesNotMatch(dom, /<title>owned/);
  assert.ok(
    complaints.some((line) => line.includes('Content Security Policy')),
    'complaints are seen',
  );
});
