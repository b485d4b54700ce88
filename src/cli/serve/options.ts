import { UsageError } from '../../base/errors.ts';
import type { ReactorKind } from '../../reactor/open.ts';
import type { OptionValues } from '../parse.ts';

/**
 * Connections served at one time without --shared: many times what one virtual machine or one nbdcopy opens (4 to 16),
 * and few enough that their receive buffers stay within tens of megabytes.
 */
export const DEFAULT_MAX_CONNECTIONS = 64;

/** More than a process has descriptors for on common settings [getrlimit(2)]; catches slips of the hand. */
const MOST_CONNECTIONS = 65_535;

/** The value of an option that takes one, or undefined when it was not given. */
export function textOption(options: OptionValues, key: string): string | undefined {
  const value = options[key];
  return typeof value === 'string' ? value : undefined;
}

/** All values of an option that may be repeated, in order. */
export function listOption(options: OptionValues, key: string): readonly string[] {
  const value = options[key];
  return Array.isArray(value) ? (value as readonly string[]) : [];
}

export function switchOption(options: OptionValues, key: string): boolean {
  return options[key] === true;
}

/** A whole number between the two, or a UsageError that names the option. */
export function parseInteger(option: string, text: string, least: number, most: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most)) {
    throw new UsageError(`${option} must be a number from ${least} to ${most}, not '${text}'`);
  }
  return value;
}

export function parsePort(option: string, text: string): number {
  return parseInteger(option, text, 0, 65_535);
}

/** Its choices were checked while parsing. */
export function reactorKind(options: OptionValues): ReactorKind {
  return (textOption(options, 'reactor') ?? 'auto') as ReactorKind;
}

export function maxConnections(options: OptionValues): number {
  const text = textOption(options, 'shared');
  if (text === undefined) return DEFAULT_MAX_CONNECTIONS;
  return parseInteger('--shared', text, 1, MOST_CONNECTIONS);
}
