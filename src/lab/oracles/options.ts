import { UsageError } from '../../base/errors.ts';
import type { OracleOption, Settings } from './types.ts';

/**
 * The settings that options come to, with defaults; `what` has them, as in 'oracle ext'. Throws UsageError for one that
 * is unknown, wrong or missing.
 */
export function settingsOf(
  what: string,
  options: readonly OracleOption[],
  given: Readonly<Record<string, string | number | boolean>>,
): Settings {
  const known = new Map(options.map((option) => [option.name, option]));
  for (const name of Object.keys(given)) {
    if (known.has(name)) continue;
    throw new UsageError(`${what}: no option '${name}'; it has ${list([...known.keys()])}`);
  }
  const settings: Record<string, string | number | boolean | undefined> = {};
  for (const option of options) {
    const value = given[option.name] ?? option.default;
    if (value === undefined && option.required === true) {
      throw new UsageError(`${what}: option '${option.name}' is missing`);
    }
    settings[option.name] = value === undefined ? undefined : convert(what, option, value);
  }
  return settings;
}

/** Command lines and files bring texts. */
function convert(
  what: string,
  option: OracleOption,
  value: string | number | boolean,
): string | number | boolean {
  const text = String(value);
  if (option.type === 'boolean' && (text === 'true' || text === 'false')) return text === 'true';
  if (option.type === 'number' && text.trim() !== '' && Number.isFinite(Number(text))) {
    return Number(text);
  }
  if (option.type === 'text' && (option.choices?.includes(text) ?? true)) return text;
  const wanted = option.choices !== undefined ? list(option.choices) : WANTED[option.type];
  throw new UsageError(`${what}: ${option.name}=${text}: wants ${wanted}`);
}

const WANTED = { text: 'a text', number: 'a number', boolean: 'true or false' } as const;

function list(names: readonly string[]): string {
  return names.length === 0 ? 'none' : names.join(', ');
}
