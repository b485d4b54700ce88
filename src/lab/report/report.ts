import { basename } from 'node:path';
import { formatSize } from '../../base/units.ts';
import type { Exploration } from '../explore/types.ts';
import type { Cause } from '../minimise/types.ts';
import { type CrashModel, MODELS } from '../model/types.ts';
import {
  coverageBar,
  coverageSentence,
  coverageTable,
  findingName,
  histogram,
  isAllDecided,
} from './coverage.ts';
import { command, element, escape } from './html.ts';
import { drawMap } from './map.ts';
import { beginOf, type MapOptions } from './map-scale.ts';
import { drawMinimalCase } from './minimal-case.ts';
import { STYLE } from './style.ts';

export interface ReportInput {
  readonly model: CrashModel;
  readonly exploration: Exploration;
  /** For each finding that was explained, the worst first. */
  readonly causes: readonly Cause[];
  /** The checker, as the user gave it. */
  readonly checker: string;
  /** Options of `holdfast lab show` that find the trace again. */
  readonly replayOptions: string;
  readonly version: string;
}

/** Events shown to each side of the minimal case. */
const CONTEXT_EVENTS = 40;

/** The whole report as one HTML page that needs nothing else. */
export function renderReport(input: ReportInput): string {
  const title = `Crash states of ${basename(input.model.trace.path)}`;
  return [
    '<!doctype html>',
    '<html lang="en"><head><meta charset="utf-8">',
    // Nothing is fetched and nothing runs, whatever names stand in it.
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${escape(title)}</title><style>${STYLE}</style></head><body><main>`,
    headline(title, input),
    warnings(input),
    ...input.causes.map((cause, i) => causeSection(input, cause, i)),
    unexplained(input),
    wholeMap(input),
    coverageSection(input),
    facts(input),
    '</main></body></html>',
    '',
  ].join('\n');
}

function headline(title: string, { exploration, model }: ReportInput): string {
  const { findings, statesDecided, coverage } = exploration;
  const failures = findings.filter(({ verdict }) => verdict.outcome === 'fail');
  const doubts = findings.length - failures.length;
  const verdict =
    failures.length > 0
      ? `${failures.length === 1 ? 'One kind' : `${failures.length} kinds`} of failure after a power cut`
      : doubts > 0
        ? 'No failure, but some states could not be judged'
        : isAllDecided(coverage)
          ? 'No state that a power cut may leave fails'
          : 'No failure found in the states that were looked at';
  const sound = isAllDecided(coverage) ? '' : ' partial';
  const kind = failures.length > 0 ? ' bad' : doubts > 0 ? ' doubt' : sound;
  return (
    `<p class="soft">${escape(title)}</p><div class="verdict${kind}"><h1>${verdict}</h1>` +
    `<p>${statesDecided.toLocaleString('en')} states decided under ${model.options.model}: ` +
    `${MODELS[model.options.model]}. ${escape(coverageSentence(coverage))}</p></div>`
  );
}

/** What makes all of this mean something else than a reader would think. */
function warnings({ model }: ReportInput): string {
  const { trace, options } = model;
  const lines: string[] = [];
  const liars = trace.disks.filter(({ ignoresFlush }) => ignoresFlush === true);
  for (const { name } of liars) {
    lines.push(
      `${basename(name)} was served with cache mode unsafe: every FLUSH was answered and none was done, ` +
        'so nothing was ever stable. What fails here may be the fault of that mode and not of the workload.',
    );
  }
  if (options.model === 'L') {
    lines.push(
      'Model L is a disk that lies about FLUSH. No sound disk behaves so: what fails here need not be a fault of the workload.',
    );
  }
  if (!trace.complete) {
    lines.push(
      'The recording was cut short: it ends with the last record that is whole, and what came later is not looked at.',
    );
  }
  return lines.map((line) => `<p class="warning">${escape(line)}</p>`).join('');
}

function causeSection(input: ReportInput, cause: Cause, index: number): string {
  const { model, replayOptions } = input;
  const { finding } = cause;
  const named = [...cause.lost, ...cause.kept].map(({ request }) => request);
  return [
    `<section class="cause" id="cause-${index + 1}">`,
    `<p><span class="tag bad">${input.causes.length > 1 ? `${index + 1}: ` : ''}${escape(findingName(finding))}</span>`,
    `<span class="tag">${model.options.model}</span><span class="tag">${finding.count} states</span></p>`,
    `<p class="sentence">${escape(cause.sentence)}</p>`,
    '<dl>',
    items(
      'lost',
      cause.lost.map(({ words }) => words),
    ),
    items(
      'there',
      cause.kept.map(({ words }) => words),
    ),
    items(
      'would help',
      cause.whatIf.map(({ words }) => words),
    ),
    items('found by', [`rung ${finding.rung}, checker ${finding.checker}`]),
    cause.minimal
      ? ''
      : items('beware', ['the search for a smaller case was stopped: less may do']),
    '</dl>',
    command(`holdfast lab show ${cause.id} ${replayOptions}`.trimEnd()),
    command(`holdfast lab mount ${cause.id} ${replayOptions}`.trimEnd()),
    finding.verdict.detail === ''
      ? ''
      : `<h3>What the checker said</h3><pre>${escape(finding.verdict.detail)}</pre>`,
    '<h3>Where and when</h3>',
    drawMap(model.trace, windowOf(input, cause, named)),
    legend(true),
    drawMinimalCase(model, cause.state, named),
    others(finding.others),
    '</section>',
  ].join('\n');
}

function items(label: string, words: readonly string[]): string {
  if (words.length === 0) return '';
  return `<dt>${label}</dt><dd>${words.map((word) => escape(word)).join('<br>')}</dd>`;
}

function others(ids: readonly string[]): string {
  if (ids.length === 0) return '';
  return `<details><summary>More states like it</summary><pre>${escape(ids.join('\n'))}</pre></details>`;
}

/** The part of the recording around what matters. */
function windowOf({ model }: ReportInput, cause: Cause, named: readonly number[]): MapOptions {
  const { requests, marks, events } = model.trace;
  const { event } = model.view(cause.state.cut).cut;
  const owed = cause.finding.verdict.axis === 'durability';
  const ack = owed
    ? marks.findLast((mark) => mark.kind === 'ack' && mark.event < event)
    : undefined;
  const first = named.reduce(
    (least, r) => Math.min(least, requests.issued[r] as number),
    Math.min(event, ack?.event ?? event),
  );
  // Making the file system is of no interest, if it has no part in this.
  const begin = Math.min(first, beginOf(model.trace));
  return {
    title: cause.sentence,
    from: Math.max(begin, first - CONTEXT_EVENTS),
    to: Math.min(events, event + CONTEXT_EVENTS),
    lost: new Set(cause.lost.map(({ request }) => request)),
    kept: new Set(cause.kept.map(({ request }) => request)),
    cuts: [{ event, label: 'power cut' }],
    future: event,
    broken: ack?.event ?? -1,
  };
}

function legend(isCase: boolean): string {
  const entries: (readonly [colour: string, name: string])[] = [
    ['--write', 'write'],
    ['--zeroes', 'zeroes, discard'],
    ['--fua', 'FUA (edge)'],
    ['--flush', 'flush, from issue to completion'],
    ['--lost', 'lost'],
    ['--kept', 'there'],
    ['--ink', 'acknowledgement'],
  ];
  const spans = entries.map(
    ([colour, name]) => `<span><i style="background:var(${colour})"></i>${name}</span>`,
  );
  const faint = isCase
    ? '<span class="long">faint: had not happened yet when the power failed</span>'
    : '';
  return `<p class="legend soft">${spans.join('')}${faint}</p>`;
}

/** Findings without a cause: checkers that crashed, hung or wavered, and failures that nobody had time to explain. */
function unexplained({ exploration, causes }: ReportInput): string {
  const explained = new Set(causes.map(({ finding }) => finding.id));
  const rest = exploration.findings.filter(({ id }) => !explained.has(id));
  if (rest.length === 0) return '';
  const items = rest.map(
    (finding) =>
      `<li><b>${escape(findingName(finding))}</b>, ${finding.count} states, first ` +
      `<code>${escape(finding.id)}</code><pre>${escape(finding.verdict.detail)}</pre></li>`,
  );
  return `<h2>Other findings</h2><p>None of these is a pass.</p><ul>${items.join('')}</ul>`;
}

function wholeMap({ model, causes }: ReportInput): string {
  const { trace } = model;
  const named = (part: 'lost' | 'kept'): Set<number> =>
    new Set(causes.flatMap((cause) => cause[part].map(({ request }) => request)));
  const from = beginOf(trace);
  const before = trace.requests.issued.filter((event) => event < from).length;
  const map = drawMap(trace, {
    title: 'All of the recording: place on the disk (up), order of events (right)',
    from,
    to: trace.events,
    lost: named('lost'),
    kept: named('kept'),
    cuts: causes.map((cause, i) => ({
      event: model.view(cause.state.cut).cut.event,
      label: causes.length === 1 ? 'power cut' : String(i + 1),
    })),
    future: Infinity,
    broken: -1,
  });
  const left =
    before === 0
      ? ''
      : ` It begins where the workload does: ${before} requests before that are left out.`;
  return (
    '<h2>The recording</h2><p class="soft">Up: place on the disk, of what is written at all. Right: the order of events, ' +
    `with the time of some. A shade changes with every flush.${left}</p>${map}${legend(false)}`
  );
}

function coverageSection({ model, exploration }: ReportInput): string {
  const { coverage } = exploration;
  const legends = (['exact', 'pairs', 'sampled', 'nothing'] as const).map(
    (name, i) =>
      `<span><i style="background:var(${['--flush', '--write', '--some', '--zeroes'][i] ?? ''})"></i>${name}</span>`,
  );
  return (
    `<h2>What was looked at</h2><p>${escape(coverageSentence(coverage))}</p>${coverageBar(coverage)}` +
    `<p class="legend soft">${legends.join('')}</p>` +
    `<details><summary>Every cut</summary>${coverageTable(model, coverage)}</details>` +
    `<h2>Verdicts</h2>${histogram(exploration)}`
  );
}

function facts({ model, exploration, checker, version }: ReportInput): string {
  const { options, trace } = model;
  const seconds = exploration.elapsedMs / 1000;
  const rows: [string, string][] = [
    ['checker', checker],
    [
      'model',
      `${options.model}, units of ${formatSize(options.unitBytes)}, overlap ${options.overlap}`,
    ],
    ['trace', `${trace.path} (${trace.fingerprint})${trace.complete ? '' : ', cut short'}`],
    [
      'disks',
      trace.disks
        .map(
          ({ name, sizeBytes, ignoresFlush }) =>
            `${name}, ${formatSize(sizeBytes)}${ignoresFlush === true ? ', FLUSH ignored (cache mode unsafe)' : ''}`,
        )
        .join('; '),
    ],
    ['requests', `${trace.requests.count}, ${trace.marks.length} marks, ${model.cuts.length} cuts`],
    [
      'states decided',
      `${exploration.statesDecided}: ${exploration.checkerRuns} runs of the checker, ` +
        `${exploration.sameImage} by equal images, ${exploration.sameReads} by equal reads`,
    ],
    [
      'time',
      `${seconds.toFixed(1)} s, ${Math.round(exploration.statesDecided / Math.max(seconds, 0.001))} states a second`,
    ],
    ['memory', `${formatSize(exploration.peakMemoryBytes)} at most`],
    ['ended', exploration.ended],
    ['made by', `holdfast ${version}`],
  ];
  const list = rows.map(([name, value]) => `<dt>${name}</dt><dd>${escape(value)}</dd>`).join('');
  return `<h2>Facts</h2>${element('dl', {}, list)}`;
}
