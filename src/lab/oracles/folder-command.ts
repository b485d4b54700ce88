import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Verdict } from '../check/types.ts';
import { verdictOf } from '../check/command.ts';
import { ProgramError, runProgram } from './programs.ts';
import type { Case, FolderOracle } from './types.ts';
import { doubt, pass } from './verdict.ts';

/** The shell gets the paths in its environment, so that nothing in them is a word of its own. */
const PLACES: Readonly<Record<string, string>> = {
  mount: 'HOLDFAST_MOUNT',
  acks: 'HOLDFAST_ACKS',
  scratch: 'HOLDFAST_SCRATCH',
};

async function judgeByCommand(line: string, folder: string, subject: Case): Promise<Verdict> {
  const acks = join(subject.scratch, 'acks.jsonl');
  writeFileSync(acks, subject.acks.map((text, n) => `${JSON.stringify({ n, text })}\n`).join(''));
  const command = line.replaceAll(/\{(mount|acks|scratch)\}/g, (_, name: string) => {
    return `"$${PLACES[name] ?? ''}"`;
  });
  try {
    const { code, text } = await runProgram('sh', ['-c', command], {
      env: {
        HOLDFAST_MOUNT: folder,
        HOLDFAST_ACKS: acks,
        HOLDFAST_SCRATCH: subject.scratch,
      },
    });
    return verdictOf({ how: 'exit', code }, text, true);
  } catch (error) {
    if (error instanceof ProgramError) return doubt(error.message, error.message);
    throw error;
  }
}

export const COMMAND: FolderOracle = {
  kind: 'mounted',
  on: 'folder',
  summary: 'the file system is recovered and mounted, and a command of yours looks at the files',
  details: [
    'Recovers the file system as a machine does that starts after a power cut, and lets a command look at the files. ' +
      'The command line has `{mount}` where the folder goes, `{acks}` for a file with what was acknowledged, a JSON object ' +
      '`{"n":0,"text":"…"}` on each line, and `{scratch}` for a folder that is thrown away. Its exit code is its verdict, as ' +
      'for every command: 0 pass, 1 fail, 10 to 19 a named good state, 77 not for it, all else means that it could not ' +
      'judge.',
    'Without a command only the recovery is looked at. Good state: `mounted`. Failures of integrity: `mount refused: …`, and ' +
      'what the checker of the file system finds afterwards.',
  ],
  options: [{ name: 'command', type: 'text', description: 'The command.' }],
  needs: () => ({ programs: [], modules: [] }),
  usesAcks: (settings) => String(settings['command'] ?? '').includes('{acks}'),
  judge: (settings) => ({
    judge: (folder, subject) => {
      const command = settings['command'];
      if (typeof command !== 'string') return Promise.resolve(pass('mounted'));
      return judgeByCommand(command, folder, subject);
    },
  }),
};
