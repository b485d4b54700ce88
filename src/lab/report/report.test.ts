import assert from 'node:assert/strict';
import test from 'node:test';
import { TraceBuilder } from '../../trace/builder.ts';
import type { Finding } from '../explore/types.ts';
import { renderReport, type ReportInput } from './report.ts';
import { exploreToy, fails, ledger, ledgerRule, type Toy } from './testing.ts';

function render(toy: Toy, more: Partial<ReportInput> = {}): string {
  return renderReport({
    ...toy,
    checker: 'toy',
    replayOptions: '--trace toy.trace',
    version: '0.0.0',
    ...more,
  });
}

/** Elements that HTML lets stand without an end. */
const VOID = new Set(['meta', 'br']);

/** Whether every element is closed in order and every attribute is quoted. Returns the text outside of the tags. */
function parse(page: string): string {
  const open: string[] = [];
  const text: string[] = [];
  const body = page.replace('<!doctype html>', '').replace(/<style>[^<]*<\/style>/, '');
  const attribute = /^(?:\s+[a-zA-Z][\w:-]*="[^"<>]*")*\s*$/;
  for (const part of body.split(/(<[^>]*>)/)) {
    if (!part.startsWith('<')) {
      assert.doesNotMatch(part, /[<>]/);
      assert.doesNotMatch(part, /&(?!amp;|lt;|gt;|quot;)/, 'a bare ampersand');
      text.push(part);
      continue;
    }
    const [, end, name = '', rest = ''] = /^<(\/?)([a-z][\w-]*)([^>]*)>$/i.exec(part) ?? [];
    assert.notEqual(name, '', `no tag: ${part}`);
    assert.ok(!['script', 'link', 'img', 'iframe', 'object'].includes(name), part);
    if (end === '/') assert.equal(open.pop(), name, part);
    else {
      assert.match(rest, attribute, part);
      assert.doesNotMatch(rest.replaceAll(/"[^"]*"/g, '""'), /\s(?:on\w+|src|href)=/, part);
      if (!VOID.has(name)) open.push(name);
    }
  }
  assert.deepEqual(open, []);
  return text.join(' ');
}

test('a report has all its parts: sentence, commands, map, versions, bytes, coverage, verdicts, facts', async () => {
  const toy = await exploreToy(
    ledger(new TraceBuilder({ disks: [{ sizeBytes: 4 << 20 }] }), 12),
    ledgerRule(12),
  );
  const page = render(toy);
  const text = parse(page);
  assert.equal(toy.causes.length, 2);
  assert.match(text, /2 kinds of failure after a power cut/);
  assert.match(text, /Missing flush before acknowledgement: #6 /);
  assert.match(text, /would help/);
  for (const { id } of toy.causes) {
    assert.ok(text.includes(`holdfast lab show ${id} --trace toy.trace`));
    assert.ok(text.includes(`holdfast lab mount ${id} --trace toy.trace`));
  }
  for (const heading of [
    'What the checker said',
    'Where and when',
    'Versions to choose from',
    'as the power cut left them',
    'as they were written last',
    'The recording',
    'What was looked at',
    'Verdicts',
    'Facts',
  ]) {
    assert.ok(text.includes(heading), heading);
  }
  assert.match(page, /class="[^"]*\blost\b/);
  assert.match(page, /class="[^"]*\bkept\b/);
  assert.match(page, /class="ack broken"/, 'the acknowledgement that is not kept');
  assert.match(page, /class="cut"/);
});

test('the map begins where the workload does, and says so', async () => {
  const builder = new TraceBuilder();
  for (let i = 0; i < 50; i += 1) builder.wrote({ offset: i * 4096, data: 1 });
  const page = render(await exploreToy(ledger(builder, 3), () => null));
  assert.match(page, /50 requests before that are left out/);
  assert.doesNotMatch(page, /<title>#49 WRITE/);
  assert.match(page, /<title>#50 WRITE/);
});

test('hostile names change nothing: of disks, acknowledgements, classes, details, checkers', async () => {
  const evil = `</title><script>alert("1")</script>&amp;'"<svg onload="x">`;
  const builder = new TraceBuilder({ disks: [{ name: `/a/${evil}` }] });
  builder.wrote({ offset: 0, data: 1 });
  builder.mark('ack', evil);
  builder.flushed();
  const toy = await exploreToy(builder.trace(), ({ letter, marks }) =>
    marks > 0 && letter(0) !== 1 ? fails('durability', evil, evil) : null,
  );
  assert.equal(toy.causes.length, 1);
  const page = render(toy, { checker: evil, replayOptions: `--trace ${evil}` });
  parse(page);
  assert.ok(page.includes('&lt;script&gt;'));
  assert.ok(!page.includes('<script'));
});

test('a sample is no proof: without a failure the headline says how much was looked at', async () => {
  const trace = ledger(new TraceBuilder(), 12);
  const all = await exploreToy(trace, () => null);
  assert.match(parse(render(all)), /No state that a power cut may leave fails/);
  const some = await exploreToy(trace, () => null, { maxStates: 5 });
  assert.match(parse(render(some)), /No failure found in the states that were looked at/);
});

test('what could not be judged is no pass, and stands apart', async () => {
  const builder = new TraceBuilder();
  builder.wrote({ offset: 0, data: 1 });
  const toy = await exploreToy(builder.trace(), ({ letter }) =>
    letter(0) === 0 ? { outcome: 'checker-error', axis: null, class: 'exit 127' } : null,
  );
  assert.deepEqual(toy.causes, []);
  const text = parse(render(toy));
  assert.match(text, /No failure, but some states could not be judged/);
  assert.match(text, /Other findings/);
  assert.match(text, /checker-error: exit 127/);
});

test('failures that nobody had time to explain are listed', async () => {
  const builder = new TraceBuilder();
  for (let i = 0; i < 40; i += 1) builder.wrote({ offset: i * 512, data: 1 });
  const toy = await exploreToy(builder.trace(), () => null);
  const findings: Finding[] = Array.from({ length: 60 }, (_, i) => ({
    verdict: { outcome: 'fail', axis: 'integrity', class: `kind ${i}`, detail: `detail ${i}` },
    checker: 'toy',
    state: { cut: 0, rule: { kind: 'floor' } },
    id: `id-${i}`,
    rung: 'ends',
    count: i + 1,
    others: [],
  }));
  const text = parse(render({ ...toy, exploration: { ...toy.exploration, findings } }));
  assert.match(text, /60 kinds of failure/);
  for (const { verdict, id } of findings) {
    assert.ok(text.includes(verdict.class) && text.includes(id));
  }
});

test('a cache mode that swallows flushes is named, and so is a lying model', async () => {
  const builder = new TraceBuilder({ disks: [{ name: 'a.img', ignoresFlush: true }] });
  builder.wrote({ offset: 0, data: 1 });
  const toy = await exploreToy(builder.trace(), () => null);
  assert.match(parse(render(toy)), /a\.img was served with cache mode unsafe/);
  assert.match(parse(render(toy)), /FLUSH ignored \(cache mode unsafe\)/);
  const honest = new TraceBuilder();
  honest.wrote({ offset: 0, data: 1 });
  const usual = parse(render(await exploreToy(honest.trace(), () => null)));
  assert.doesNotMatch(usual, /unsafe|lies about FLUSH/);
  const liar = await exploreToy(honest.trace(), () => null, { name: 'L' });
  assert.match(parse(render(liar)), /a disk that lies about FLUSH/);
});

test('a long recording makes a page of at most 2 MB, which says what is not drawn', async () => {
  const builder = new TraceBuilder({ disks: [{ sizeBytes: 2 ** 30 }] });
  for (let i = 0; i < 30_000; i += 1) {
    builder.wrote({ offset: ((i * 7919) % 200_000) * 4096, data: i & 255 });
    if (i % 5 === 4) builder.flushed();
    builder.mark('ack', `${i}`);
  }
  const page = render(await exploreToy(builder.trace(), () => null, { maxStates: 20 }));
  parse(page);
  assert.ok(page.length < 2e6, `${page.length} bytes`);
  assert.match(page, /one of 6 requests is drawn/);
  assert.match(page, /more cuts are not listed/);
});
