import { UsageError } from '../../base/errors.ts';

/**
 * Reads what follows '?' in places to listen, KEY=VALUE&KEY=VALUE, and says what is wrong with them, each time with the
 * place as it was written: `what` is how the message begins, as in "not a file to be mounted".
 */
export class PlaceText {
  readonly #what: string;
  readonly #text: string;

  constructor(what: string, text: string) {
    this.#what = what;
    this.#text = text;
  }

  keys(query: string, known: readonly string[]): Map<string, string> {
    const keys = new Map<string, string>();
    for (const pair of query.split('&')) {
      if (pair === '') continue;
      const equals = pair.indexOf('=');
      const key = equals < 0 ? pair : pair.slice(0, equals);
      if (!known.includes(key)) {
        throw this.wrong(`'${key}' is not known (known: ${known.join(', ')})`);
      }
      if (equals < 0) throw this.wrong(`${key} needs a value`);
      if (keys.has(key)) throw this.wrong(`${key} is there twice`);
      keys.set(key, this.decode(pair.slice(equals + 1)));
    }
    return keys;
  }

  switch(key: string, value: string | undefined): boolean {
    if (value === undefined || value === 'off') return false;
    if (value === 'on') return true;
    throw this.wrong(`${key} is on or off, not '${value}'`);
  }

  /** [RFC 3986 2.1] */
  decode(part: string): string {
    try {
      return decodeURIComponent(part);
    } catch {
      throw this.wrong("a '%' is written %25");
    }
  }

  wrong(why: string): UsageError {
    return new UsageError(`${this.#what}: '${this.#text}': ${why}`);
  }
}
