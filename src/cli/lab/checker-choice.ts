import { resolve } from 'node:path';
import { UsageError } from '../../base/errors.ts';
import type { CheckerSpec } from '../../lab/check/types.ts';
import { ORACLE_KINDS } from '../../lab/oracles/registry.ts';

/** Where CHECK and the oracles speak of a file system, people name its version. */
const ALIASES: Readonly<Record<string, string>> = { ext2: 'ext', ext3: 'ext', ext4: 'ext' };

const MODULE = /^[^\s{}]+\.(?:ts|mts|js|mjs)$/;

/**
 * The checker that --check and --mount ask for: `NAME` or `NAME:option=value,option=value` of a ready-made oracle, the
 * path of a module, or a command. Whether an oracle takes its options is for the oracle to say.
 */
export function chooseChecker(
  check: string,
  mount: string | undefined,
  timeoutMs: number,
): CheckerSpec {
  const [, word = '', rest] = /^([\w-]+)(?::(.*))?$/s.exec(check) ?? [];
  const kind = ALIASES[word] ?? word;
  if (kind === 'old-or-new' || ORACLE_KINDS.includes(kind)) {
    const options = { ...oracleOptions(rest ?? ''), ...mountOptions(mount) };
    return { kind, options, timeoutMs };
  }
  if (mount !== undefined) {
    return { kind: 'mounted', options: { command: check, ...mountOptions(mount) }, timeoutMs };
  }
  if (MODULE.test(check)) return { kind: 'module', options: { path: resolve(check) }, timeoutMs };
  if (!/\{disk\d*\}/.test(check)) {
    throw new UsageError(
      `--check '${check}' is neither a command with {disk}, nor a module, nor one of ` +
        ['old-or-new', ...ORACLE_KINDS].join(', '),
    );
  }
  return { kind: 'command', options: { command: check }, timeoutMs };
}

/** `a=1,b=two, three`: a comma stands between options only where a name and = follow. */
function oracleOptions(text: string): Record<string, string> {
  const options: Record<string, string> = {};
  for (const pair of text.split(/,(?=[\w-]+=)/)) {
    if (pair === '') continue;
    const at = pair.indexOf('=');
    if (at < 1) throw new UsageError(`'${pair}' in --check: options of an oracle are NAME=VALUE`);
    options[pair.slice(0, at)] = pair.slice(at + 1);
  }
  return options;
}

function mountOptions(mount: string | undefined): Record<string, string> {
  if (mount === undefined) return {};
  const [fs, words] = splitType(mount);
  return { fs, ...(words === '' ? {} : { 'mount-options': words }) };
}

/** `TYPE` or `TYPE:WORDS`. */
export function splitType(text: string): [type: string, words: string] {
  const at = text.indexOf(':');
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}
