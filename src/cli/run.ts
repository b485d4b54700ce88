import { runClear } from './commands/clear.ts';
import { runCounters, runResume } from './commands/control.ts';
import { runCreate } from './commands/create.ts';
import { runDemo } from './commands/demo.ts';
import { runExplain } from './commands/explain.ts';
import { runInfo } from './commands/info.ts';
import { runMount } from './commands/mount.ts';
import { runCompletion, runMan } from './commands/pages.ts';
import { runServe } from './commands/serve.ts';
import { asksForCapabilities, capabilities, runVhostUserBlk } from './commands/vhost-user-blk.ts';
import { errorLine, EXIT, exitCodeOf } from './exit-codes.ts';
import { makeOutput, type Output } from './output.ts';
import { renderJson } from './pages/json.ts';
import { parseCommandLine, type Parsed } from './parse.ts';
import { PROGRAM } from './spec/program.ts';
import { packageVersion } from '../server/version.ts';

/** Runs a command line (without node and the script) and ends the process with its exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  // A reader that closed our standard output, as `head` does, is no error of ours, and a server goes on.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') process.exit(EXIT.FAILED);
  });
  process.on('uncaughtException', (error) => {
    process.stderr.write(`${errorLine(error)}\n${error.stack ?? ''}\n`);
    process.exit(EXIT.INTERNAL);
  });
  let code: number;
  try {
    code = await run(argv);
  } catch (error) {
    code = exitCodeOf(error);
    process.stderr.write(`${errorLine(error)}\n`);
    // A bug is reported with its place; an operator's mistake is one line.
    if (code === EXIT.INTERNAL && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  }
  process.exitCode = code;
  // Pending output is written first; what still keeps the event loop alive has had its turn.
  process.stdout.write('', () => process.exit());
}

async function run(argv: readonly string[]): Promise<number> {
  if (asksForCapabilities(argv)) {
    process.stdout.write(`${capabilities()}\n`);
    return EXIT.OK;
  }
  const version = packageVersion();
  const parsed = parseCommandLine(PROGRAM, version, argv);
  if (parsed.kind === 'text') {
    const json = argv.includes('--json') && !argv.includes('-V') && !argv.includes('--version');
    process.stdout.write(json ? `${renderJson(PROGRAM, version)}\n` : parsed.text);
    return EXIT.OK;
  }
  const output = makeOutput(
    { stdout: process.stdout, stderr: process.stderr, env: process.env },
    { quiet: parsed.options['quiet'] === true, verbose: parsed.options['verbose'] === true },
  );
  return runCommand(parsed, version, output);
}

async function runCommand(
  { name, operands, options }: Extract<Parsed, { kind: 'command' }>,
  version: string,
  output: Output,
): Promise<number> {
  switch (name) {
    case 'serve':
      return runServe(operands, options, output);
    case 'mount':
      return runMount(operands, options, output);
    case 'demo':
      return runDemo(options, output);
    case 'create':
      return runCreate(operands, options, output);
    case 'info':
      return runInfo(operands, options, output);
    case 'explain':
      return runExplain(operands, options, output);
    case 'clear':
      return runClear(operands, options, output);
    case 'resume':
      return runResume(operands, options, output);
    case 'counters':
      return runCounters(operands, output);
    case 'vhost-user-blk':
      return runVhostUserBlk(options, output);
    case 'completion':
      return runCompletion(operands, output);
    case 'man':
      return runMan(operands, version, output);
    default:
      if (name.startsWith('lab ')) {
        // A server that is started, a hundred files lighter: only the lab needs the lab.
        const { runLab } = await import('./commands/lab.ts');
        return runLab(name, operands, options, output);
      }
      throw new Error(`the command ${name} is declared and not there`);
  }
}
