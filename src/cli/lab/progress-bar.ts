/** One line on a terminal that is written again and again. Elsewhere it says nothing: a log is no place for it. */
export class ProgressBar {
  readonly #stream: NodeJS.WriteStream;
  readonly #silent: boolean;
  #shown = false;

  constructor(stream: NodeJS.WriteStream, quiet: boolean) {
    this.#stream = stream;
    this.#silent = quiet || !stream.isTTY;
  }

  show(line: string): void {
    if (this.#silent) return;
    this.#shown = true;
    this.#stream.write(`\r\u001B[K${line.slice(0, Math.max(20, this.#stream.columns - 1))}`);
  }

  /** Leaves the terminal as it was before. */
  end(): void {
    if (this.#shown) this.#stream.write('\r\u001B[K');
    this.#shown = false;
  }
}
