import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { formatSize, MiB } from '../../base/units.ts';
import { read } from '../../block/await.ts';
import { opName } from '../../block/io.ts';
import { MODELS, type CrashModel, type StateSpec } from '../../lab/model/types.ts';
import { openStateDisks } from '../../lab/state-device/state-device.ts';
import { findState } from '../lab/find-trace.ts';
import type { Output } from '../output.ts';
import { EXIT } from '../exit-codes.ts';
import type { OptionValues } from '../parse.ts';
import { textOption } from '../serve/options.ts';

/** Requests listed one by one. */
const MOST_LISTED = 200;
const PIECE_BYTES = 1 * MiB;

/** `holdfast lab show ID`. */
export async function runLabShow(
  [id = '']: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const { model, state } = findState(id, textOption(options, 'trace'));
  try {
    for (const line of describeState(model, state)) output.data(line);
    const path = textOption(options, 'write');
    if (path !== undefined) {
      for (const written of await writeState(model, state, path)) output.info(`wrote ${written}`);
    }
    return EXIT.OK;
  } finally {
    model.close();
    model.trace.close();
  }
}

function describeState(model: CrashModel, state: StateSpec): string[] {
  const { trace } = model;
  const view = model.view(state.cut);
  const { why, request, marks } = view.cut;
  const when = why === 'end' ? 'at the end' : `just before #${request} (${why}) is done`;
  const fates = fatesOf(model, state);
  const { op, offset, length } = trace.requests;
  const lines = [
    `${trace.path}: power cut ${state.cut} of ${model.cuts.length}, ${when}`,
    `model ${model.options.model}: ${MODELS[model.options.model]}`,
    `${marks} marks made before it; ${view.requests.length} requests open, ${view.units.length} units undecided`,
  ];
  for (const r of view.requests.subarray(0, MOST_LISTED)) {
    const name = opName(op[r] as number);
    const where = `${formatSize(length[r] as number)} at byte ${offset[r] as number}`;
    lines.push(`  #${r} ${name} of ${where}: ${fates.get(r) ?? 'makes no difference'}`);
  }
  if (view.requests.length > MOST_LISTED) {
    lines.push(`  and ${view.requests.length - MOST_LISTED} more`);
  }
  return lines;
}

/** What became of each open request, by the units where it matters. */
function fatesOf(model: CrashModel, state: StateSpec): Map<number, string> {
  const view = model.view(state.cut);
  const chosen = new Int32Array(view.units.length);
  model.choose(view, state.rule, chosen);
  const there = new Map<number, number>();
  const lost = new Map<number, number>();
  for (let i = 0; i < view.units.length; i += 1) {
    let tally = lost;
    for (let at = view.first[i] as number; at < (view.first[i + 1] as number); at += 1) {
      const version = view.versions[at] as number;
      if (version === chosen[i]) tally = there;
      const request = model.requestOf(version);
      if (tally === lost || version === chosen[i])
        tally.set(request, (tally.get(request) ?? 0) + 1);
    }
  }
  return new Map(
    [...view.requests].flatMap((request): [number, string][] => {
      const [kept, gone] = [there.get(request) ?? 0, lost.get(request) ?? 0];
      if (kept + gone === 0) return [];
      if (gone === 0) return [[request, 'there']];
      return [[request, kept === 0 ? 'lost' : `torn: ${kept} units there, ${gone} lost`]];
    }),
  );
}

/** Writes each disk of a state as a sparse raw image. */
async function writeState(model: CrashModel, state: StateSpec, path: string): Promise<string[]> {
  const disks = openStateDisks(model, false);
  const names: string[] = [];
  try {
    disks.shown.show(state);
    for (const [i, device] of disks.devices.entries()) {
      const name = i === 0 ? path : `${path}.${i}`;
      const fd = openSync(name, 'w', 0o600);
      try {
        const { sizeBytes } = device.info;
        ftruncateSync(fd, sizeBytes);
        for (let at = 0; at < sizeBytes; at += PIECE_BYTES) {
          const piece = Math.min(PIECE_BYTES, sizeBytes - at);
          const bytes = await read(device, at, piece);
          if (bytes.some((byte) => byte !== 0)) writeSync(fd, bytes, 0, piece, at);
        }
      } finally {
        closeSync(fd);
      }
      names.push(name);
    }
  } finally {
    await disks.close();
  }
  return names;
}
