import assert from 'node:assert/strict';
import test from 'node:test';
import { Histogram } from './load/histogram.ts';
import { asMarkdown, asText, ratiosOf } from './report.ts';
import type { Row } from './report.ts';
import { median, short } from './statistics.ts';
import { asSvg } from './svg.ts';

function row(subject: string, rounds: number[], metric = 'IOPS'): Row {
  const unit = metric === 'IOPS' ? '1/s' : '% of a core';
  return { suite: 'nbd', workload: 'w', subject, metric, unit, median: median(rounds), rounds };
}

const ROWS = [
  row('ours', [90, 110, 300]),
  row('ours', [50], 'client CPU'),
  row('slow', [10]),
  row('fast', [50, 60]),
];
const PEERS = new Set(['slow', 'fast']);

test('the median of an odd and of an even count', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.ok(Number.isNaN(median([])));
});

test('a ratio is ours against the best peer, in rates only', () => {
  assert.deepEqual(ratiosOf(ROWS, 'ours', PEERS), [
    { workload: 'w', ours: 110, best: 55, bestSubject: 'fast', ratio: 2 },
  ]);
  assert.deepEqual(ratiosOf(ROWS, 'ours', new Set()), []);
});

test('the table shows every subject, the ratio and the cost of the client', () => {
  const report = { rows: ROWS, ratios: ratiosOf(ROWS, 'ours', PEERS) };
  const line = asText(report).split('\n')[1] ?? '';
  assert.match(line, /^w +1\/s +110 +10\.0 +55\.0 +2\.00x fast +50\.0 \/ -/);
  assert.match(asMarkdown(report, ['a note']), /^- a note\n\n\| workload \| unit \| ours \|/);
});

test('the picture is the same for the same report, and well-formed', () => {
  const report = { rows: ROWS, ratios: ratiosOf(ROWS, 'ours', PEERS) };
  const picture = asSvg(report, 'A & B', new Set(['ours']));
  assert.equal(picture, asSvg(report, 'A & B', new Set(['ours'])));
  assert.equal(picture.match(/<rect /g)?.length, 3);
  assert.match(picture, /A &amp; B/);
});

test('numbers in tables keep three digits', () => {
  assert.deepEqual(
    [short(1234567), short(12345), short(1234), short(1.2345)],
    ['1235k', '12.3k', '1234', '1.23'],
  );
});

test('a latency is found again within 4 %, from a tenth of a microsecond to minutes', () => {
  for (const latency of [0.1, 3, 17.3, 250, 4096, 1e6, 6e7]) {
    const histogram = new Histogram();
    histogram.add(latency);
    const found = histogram.quantile(0.5);
    assert.ok(Math.abs(found - latency) <= latency * 0.04 + 0.1, `${latency}: ${found}`);
  }
});

test('quantiles are those of the sorted values', () => {
  const histogram = new Histogram();
  for (let i = 1; i <= 1000; i += 1) histogram.add(i);
  assert.ok(Math.abs(histogram.quantile(0.5) - 500) < 20);
  assert.ok(Math.abs(histogram.quantile(0.99) - 990) < 40);
});
