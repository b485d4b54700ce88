import { readFileSync, statSync } from 'node:fs';
import { ConfigError, messageOf } from '../../base/errors.ts';
import type { IscsiAccount } from '../../server/config.ts';

/**
 * "CHAP secrets shorter than 96 bits MUST NOT be used" without IPsec [RFC 7143 9.2.1]; what initiators can store at most
 * is less than 255 bytes, the bound of what RFC 7143 asks both ends to take.
 */
export const LEAST_SECRET_BYTES = 12;
export const MOST_SECRET_BYTES = 255;

/**
 * Reads one line USER:SECRET. Throws ConfigError, which never holds any of the content. `warn`: others than its owner can
 * read it.
 */
export function readChapFile(path: string, warn: (line: string) => void): IscsiAccount {
  const refuse = (what: string, hint: string, cause?: unknown): never => {
    throw new ConfigError(`the CHAP file ${path} ${what}`, hint, { cause });
  };
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    return refuse(
      `cannot be read: ${messageOf(error)}`,
      'name a file with one line USER:SECRET',
      error,
    );
  }
  const lines = text.split(/\r?\n/).filter((line) => line !== '');
  const [line = ''] = lines;
  const colon = line.indexOf(':');
  if (lines.length !== 1 || colon < 1) {
    return refuse('does not hold one line USER:SECRET', 'write the name, a colon and the secret');
  }
  const secret = new TextEncoder().encode(line.slice(colon + 1));
  if (secret.length < LEAST_SECRET_BYTES || secret.length > MOST_SECRET_BYTES) {
    return refuse(
      `holds a secret of ${secret.length} bytes`,
      `it has ${LEAST_SECRET_BYTES} to ${MOST_SECRET_BYTES}; 12 to 16 letters and digits work with every initiator`,
    );
  }
  if ((statSync(path).mode & 0o077) !== 0) {
    warn(`the CHAP file ${path} can be read by others than its owner; chmod 600 ${path}`);
  }
  return { user: line.slice(0, colon), secret };
}
