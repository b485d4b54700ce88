import type { CrashModel, StateSpec } from '../model/types.ts';
import { element, escape, table } from './html.ts';

// The minimal case from close by: which versions its units had to choose from, and how the bytes differ.

/** Enough to see a case; all of it can be mounted. */
const MOST_UNITS = 64;
const MOST_VERSIONS = 8;
const MOST_ROWS = 12;
const ROW_BYTES = 16;

/** Version stacks of the units that the named requests wrote, and a comparison of bytes for the first of them. */
export function drawMinimalCase(
  model: CrashModel,
  state: StateSpec,
  requests: readonly number[],
): string {
  const view = model.view(state.cut);
  const wanted = new Set(requests);
  const all: number[] = [];
  for (let i = 0; i < view.units.length; i += 1) {
    const versions = view.versions.subarray(view.first[i], view.first[i + 1]);
    if (versions.some((version) => wanted.has(model.requestOf(version)))) all.push(i);
  }
  if (all.length === 0) return '';
  const indexes = all.slice(0, MOST_UNITS);
  const isOld = (i: number): boolean =>
    model.contentOf(model.versionIn(state, view.units[i] as number)) !==
    model.contentOf(view.versions[view.first[i] as number] as number);
  const [first = 0] = all;
  const compared = view.units[all.find(isOld) ?? first] as number;
  const rows = joined(
    indexes.map((i) => {
      const { disk, offset, bytes } = model.place(view.units[i] as number);
      const versions = view.versions.subarray(view.first[i], view.first[i + 1]);
      const cells = stack(model, state, view.units[i] as number, versions);
      return { disk, start: offset, end: offset + bytes, cells };
    }),
  ).map(({ disk, start, end, cells }) => {
    const where = model.trace.disks.length > 1 ? `disk ${disk}, bytes` : 'bytes';
    return [`${where} ${start} to ${end - 1}`, cells];
  });
  return (
    '<h3>Versions to choose from</h3>' +
    '<p class="soft">Of each unit of the disk that matters here, newest first. The last one is stable: it cannot be lost.</p>' +
    table(['units', 'versions'], rows) +
    (all.length > MOST_UNITS
      ? `<p class="soft">and ${all.length - MOST_UNITS} more units</p>`
      : '') +
    differences(model, state, compared)
  );
}

interface Stacks {
  readonly disk: number;
  /** Bytes: [start, end). */
  readonly start: number;
  end: number;
  readonly cells: string;
}

/** Neighbours that fared alike are one row. */
function joined(stacks: readonly Stacks[]): Stacks[] {
  const rows: Stacks[] = [];
  for (const one of stacks) {
    const last = rows.at(-1);
    const isNext = last?.disk === one.disk && last.end === one.start && last.cells === one.cells;
    if (isNext) last.end = one.end;
    else rows.push({ ...one });
  }
  return rows;
}

function stack(model: CrashModel, state: StateSpec, unit: number, versions: Int32Array): string {
  const chosen = model.contentOf(model.versionIn(state, unit));
  const held = versions.findIndex((version) => model.contentOf(version) === chosen);
  const cells: string[] = [];
  let skipped = 0;
  for (const [i, version] of versions.entries()) {
    const isFloor = i === versions.length - 1;
    if (i >= MOST_VERSIONS && i !== held && !isFloor) {
      skipped += 1;
      continue;
    }
    if (skipped > 0) cells.push(`${skipped} more`);
    skipped = 0;
    const request = model.requestOf(version);
    const name = request < 0 ? 'what was there before' : `#${request}`;
    const fate = i < held ? 'lost' : i === held ? 'held' : '';
    const words = [name, fate, isFloor ? 'stable' : ''].filter((word) => word !== '').join(', ');
    const kind = i < held ? 'version missed' : i === held ? 'version chosen' : 'version';
    cells.push(element('span', { class: kind }, escape(words)));
  }
  return cells.join(' ');
}

/** The unit as this state holds it, beside its newest version. */
function differences(model: CrashModel, state: StateSpec, unit: number): string {
  const { bytes, offset } = model.place(unit);
  const view = model.view(state.cut);
  const at = view.units.indexOf(unit);
  const [held, newest] = [new Uint8Array(bytes), new Uint8Array(bytes)];
  model.readVersion(model.versionIn(state, unit), 0, held);
  model.readVersion(view.versions[view.first[at] as number] as number, 0, newest);
  const rows: string[] = [];
  for (let row = 0; row < bytes && rows.length < MOST_ROWS; row += ROW_BYTES) {
    const a = held.subarray(row, row + ROW_BYTES);
    const b = newest.subarray(row, row + ROW_BYTES);
    if (Buffer.compare(a, b) === 0) continue;
    rows.push(
      `<tr><td class="soft">${(offset + row).toString(16).padStart(10, '0')}</td>` +
        `<td>${hexRow(a, b)}</td><td>${hexRow(b, a)}</td></tr>`,
    );
  }
  if (rows.length === 0) return '';
  return (
    `<h3>The bytes at ${offset}</h3>` +
    '<div class="scroll"><table class="hex"><thead><tr><th scope="col">byte (hex)</th>' +
    '<th scope="col">as the power cut left them</th><th scope="col">as they were written last</th></tr></thead>' +
    `<tbody>${rows.join('')}</tbody></table></div>`
  );
}

function hexRow(bytes: Uint8Array, other: Uint8Array): string {
  const cells = [...bytes].map((byte, i) => {
    const text = byte.toString(16).padStart(2, '0');
    return byte === other[i] ? text : `<b class="differs">${text}</b>`;
  });
  const letters = [...bytes].map((byte) =>
    byte > 31 && byte < 127 ? String.fromCharCode(byte) : '·',
  );
  return `${cells.join(' ')}  ${escape(letters.join(''))}`;
}
