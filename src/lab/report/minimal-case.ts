import type { CrashModel, StateSpec } from '../model/types.ts';
import { element, escape, table } from './html.ts';

// The minimal case from close by: which versions its units had to choose from, and how the bytes differ.

/** Enough to see a case; all of it can be mounted. */
const MOST_UNITS = 8;
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
  const indexes: number[] = [];
  for (let i = 0; i < view.units.length && indexes.length < MOST_UNITS; i += 1) {
    const from = view.first[i] as number;
    const versions = view.versions.subarray(from, view.first[i + 1]);
    if (versions.some((version) => wanted.has(model.requestOf(version)))) indexes.push(i);
  }
  if (indexes.length === 0) return '';
  const rows = indexes.map((i) => {
    const unit = view.units[i] as number;
    const { disk, offset } = model.place(unit);
    const where = model.trace.disks.length > 1 ? `disk ${disk}, byte ${offset}` : `byte ${offset}`;
    return [
      where,
      stack(model, state, unit, view.versions.subarray(view.first[i], view.first[i + 1])),
    ];
  });
  return (
    '<h3>Versions to choose from</h3>' +
    '<p class="soft">Newest first; the last is stable and cannot be lost. Marked: what this state holds.</p>' +
    table(['unit', 'versions'], rows) +
    differences(model, state, view.units[indexes[0] as number] as number)
  );
}

function stack(model: CrashModel, state: StateSpec, unit: number, versions: Int32Array): string {
  const chosen = model.contentOf(model.versionIn(state, unit));
  let older = true;
  const cells: string[] = [];
  for (const version of versions) {
    const isChosen = model.contentOf(version) === chosen;
    if (isChosen) older = false;
    const request = model.requestOf(version);
    const name = request < 0 ? 'base' : `#${request}`;
    const fate = isChosen ? 'version chosen' : older ? 'version missed' : 'version';
    cells.push(
      element('span', { class: fate }, isChosen ? `${name} (held)` : older ? `${name} lost` : name),
    );
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
    '<h3>Bytes: as the power cut left them, and as they were written</h3>' +
    `<div class="scroll"><table class="hex"><tbody>${rows.join('')}</tbody></table></div>`
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
