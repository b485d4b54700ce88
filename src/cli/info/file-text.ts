import { statSync } from 'node:fs';
import { readStateFile, type StateRecord } from '../../durability/state-file.ts';
import { readHost, type HostFacts } from '../../stores/file/host.ts';
import { stateFilePath } from '../../stores/file/open.ts';
import type { InfoAnswer } from '../commands/info.ts';
import { hostJson, hostLines } from '../explain/text.ts';
import { looksFormatted } from '../serve/image-format.ts';

/** What an image or a block device is, and what is remembered about it. Throws ConfigError. */
export function describeFile(path: string): InfoAnswer {
  const facts = readHost(path);
  const state = readStateFile(stateFilePath({}, facts.realPath, statSync(facts.realPath)));
  return fileAnswer(facts, state, looksFormatted(path));
}

/** Pure: the answer that follows from what was found. */
export function fileAnswer(
  facts: HostFacts,
  state: StateRecord | null,
  format: string | null,
): InfoAnswer {
  const kind = facts.kind === 'block' ? 'block device' : 'image file';
  const lines = [
    facts.path,
    `  kind         ${kind}${format === null ? '' : `, which looks like ${format} and is served as raw bytes`}`,
    ...hostLines(facts),
    `  state        ${stateText(state)}`,
  ];
  return {
    lines,
    json: { format: 1, ...hostJson(facts), looksLike: format, state },
  };
}

function stateText(state: StateRecord | null): string {
  if (state === null) return 'nothing remembered';
  if (state.poisoned !== null) {
    return `poisoned: a sync failed with ${state.poisoned.error} at ${state.poisoned.when}; see holdfast clear`;
  }
  return state.clean ? 'clean' : 'in use, or its server ended without a clean stop';
}
