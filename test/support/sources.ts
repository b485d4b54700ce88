import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

// What the house and tidy tests know about the project's files: read once, with comments and strings told from code.

export const ROOT: string = fileURLToPath(new URL('../../', import.meta.url));

export interface Source {
  /** From the root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  /** The text with comments, and the insides of strings and regular expressions, replaced by spaces. */
  readonly code: string;
  /** Where the strings are in the text: starts and ends inside their quotes. */
  readonly strings: readonly { start: number; end: number }[];
}

/** All files under `directory` (from the root) whose name ends with `ending`, in order. */
export function filesUnder(directory: string, ending: string): string[] {
  const found: string[] = [];
  const start = join(ROOT, directory);
  if (!existsSync(start)) return found;
  for (const entry of readdirSync(start, { withFileTypes: true })) {
    const path = join(start, entry.name);
    if (entry.isDirectory()) {
      if (!entry.name.startsWith('.') && entry.name !== 'node_modules' && entry.name !== 'dist') {
        found.push(...filesUnder(relative(ROOT, path), ending));
      }
    } else if (entry.name.endsWith(ending)) {
      found.push(relative(ROOT, path).replaceAll('\\', '/'));
    }
  }
  return found.toSorted();
}

export function readText(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

export function readSource(path: string): Source {
  const text = readText(path);
  return { path, text, ...separate(text) };
}

export function lineOf(text: string, index: number): number {
  return text.slice(0, index).split('\n').length;
}

/** Tells code from comments, strings, templates and regular expressions. */
export function separate(text: string): Pick<Source, 'code' | 'strings'> {
  const scanner = new Scanner(text);
  scanner.code(0, false);
  return { code: scanner.out.join(''), strings: scanner.strings };
}

class Scanner {
  readonly out: string[];
  readonly strings: { start: number; end: number }[] = [];
  readonly #text: string;
  /** The last token that was not blank, for telling a division from a regular expression. */
  #last = '';

  constructor(text: string) {
    this.#text = text;
    this.out = text.split('');
  }

  /** Scans code from `at` to the end of the text, or of a template's `${}`; returns where it ended. */
  code(at: number, inTemplate: boolean): number {
    const text = this.#text;
    let depth = 0;
    let i = at;
    while (i < text.length) {
      const char = text[i] as string;
      const two = text.slice(i, i + 2);
      if (two === '//') i = this.#blank(i, this.#find('\n', i));
      else if (two === '/*') i = this.#blank(i, this.#find('*/', i + 2) + 2);
      else if (char === "'" || char === '"') i = this.#string(i, char);
      else if (char === '`') i = this.#template(i);
      else if (char === '/' && this.#regexCanStart()) i = this.#regex(i);
      else {
        if (char === '{') depth += 1;
        if (char === '}') {
          if (inTemplate && depth === 0) return i;
          depth -= 1;
        }
        i = this.#token(i);
      }
    }
    return i;
  }

  #token(at: number): number {
    const word = /^[\w$]+/.exec(this.#text.slice(at, at + 100))?.[0];
    const token = word ?? this.#text.charAt(at);
    if (token.trim() !== '') this.#last = token;
    return at + token.length;
  }

  #string(at: number, quote: string): number {
    let end = at + 1;
    while (end < this.#text.length && this.#text[end] !== quote) {
      end += this.#text[end] === '\\' ? 2 : 1;
    }
    this.strings.push({ start: at + 1, end });
    this.#blank(at + 1, end);
    this.#last = quote;
    return end + 1;
  }

  #template(at: number): number {
    let i = at + 1;
    while (i < this.#text.length && this.#text[i] !== '`') {
      if (this.#text.startsWith('${', i)) {
        this.#last = '{';
        i = this.code(i + 2, true) + 1;
      } else {
        const step = this.#text[i] === '\\' ? 2 : 1;
        this.#blank(i, i + step);
        i += step;
      }
    }
    this.#last = '`';
    return i + 1;
  }

  #regex(at: number): number {
    let i = at + 1;
    let inClass = false;
    while (i < this.#text.length && (inClass || this.#text[i] !== '/')) {
      const char = this.#text[i];
      if (char === '[') inClass = true;
      if (char === ']') inClass = false;
      i += char === '\\' ? 2 : 1;
    }
    this.#blank(at + 1, i);
    this.#last = '/regex/';
    return i + 1;
  }

  #regexCanStart(): boolean {
    const words = ['return', 'typeof', 'case', 'in', 'of', 'void', 'throw', 'await', 'yield'];
    return /^[({[,;=!&|?:+\-*%<>~^}]?$/.test(this.#last) || words.includes(this.#last);
  }

  #find(text: string, from: number): number {
    const at = this.#text.indexOf(text, from);
    return at < 0 ? this.#text.length : at;
  }

  #blank(start: number, end: number): number {
    for (let i = start; i < Math.min(end, this.out.length); i += 1) {
      if (this.out[i] !== '\n') this.out[i] = ' ';
    }
    return end;
  }
}
