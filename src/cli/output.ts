/**
 * Where the commands write: data on stdout, talk on stderr. `quiet` keeps warnings and errors, `verbose` adds notes.
 */
export interface Output {
  /** A line of data on stdout. */
  data(line: string): void;
  /** A line for people on stderr; not with -q. */
  info(line: string): void;
  /** A line for people on stderr; only with -v. */
  note(line: string): void;
  /** Something the operator must not miss; also with -q. */
  warn(line: string): void;
}

export interface OutputStreams {
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown; readonly isTTY?: boolean };
  readonly env: Readonly<Record<string, string | undefined>>;
}

export interface OutputOptions {
  readonly quiet: boolean;
  readonly verbose: boolean;
}

/** Lines go out as they come; nothing is buffered here. */
export function makeOutput(streams: OutputStreams, options: OutputOptions): Output {
  const loud = useColour(streams) ? (text: string) => `\u001B[1;33m${text}\u001B[0m` : plain;
  const talk = (line: string): void => void streams.stderr.write(`holdfast: ${line}\n`);
  return {
    data: (line) => void streams.stdout.write(`${line}\n`),
    info: (line) => {
      if (!options.quiet) talk(line);
    },
    note: (line) => {
      if (options.verbose) talk(line);
    },
    warn: (line) => talk(loud(`warning: ${line}`)),
  };
}

function plain(text: string): string {
  return text;
}

/** [no-color.org] a non-empty NO_COLOR turns colour off; FORCE_COLOR turns it on without a terminal. */
function useColour({ stderr, env }: OutputStreams): boolean {
  if ((env['NO_COLOR'] ?? '') !== '' || env['TERM'] === 'dumb') return false;
  if ((env['FORCE_COLOR'] ?? '') !== '' && env['FORCE_COLOR'] !== '0') return true;
  return stderr.isTTY === true;
}
