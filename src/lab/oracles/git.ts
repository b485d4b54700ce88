import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Verdict } from '../check/types.ts';
import { parseAcks } from './acks.ts';
import { runProgram, type Ended } from './programs.ts';
import type { Case, FolderOracle } from './types.ts';
import { doubt, fail, pass } from './verdict.ts';

/** [git-fsck(1)]: 128 is what git dies with. */
const DIED = 128;
/** What git says of a sound repository. */
const CHATTER = /^(?:notice: |dangling |Checking |$)/;

/** Nothing of the operator's own configuration, and no question about whose repository it is. */
function git(repository: string, scratch: string, ...args: readonly string[]): Promise<Ended> {
  return runProgram('git', ['-c', 'safe.directory=*', '-C', repository, ...args], {
    env: { HOME: scratch, GIT_CONFIG_NOSYSTEM: '1', GIT_TERMINAL_PROMPT: '0' },
  });
}

async function judgeGit(path: string, { acks, scratch }: Case): Promise<Verdict> {
  const acked = parseAcks(acks, 'commit').map((ack) => String(ack['commit']));
  if (!existsSync(path)) {
    if (acked.length === 0) return pass('absent');
    return fail('durability', 'repository missing', `${acked.length} commits acknowledged`);
  }
  const found = await git(path, scratch, 'fsck', '--full', '--no-dangling');
  if (found.code !== 0) {
    const lines = found.text.split('\n').filter((line) => !CHATTER.test(line));
    // The exit code is made of bits of what was found; a usage error is 129.
    if (found.code > DIED) return doubt(`git: exit code ${found.code}`, found.text);
    return fail(
      'integrity',
      `git fsck: ${lines[0] ?? `exit code ${found.code}`}`,
      lines.join('\n'),
    );
  }
  for (const commit of acked) {
    const reached = await git(path, scratch, 'merge-base', '--is-ancestor', commit, 'HEAD');
    if (reached.code === 0) continue;
    return fail('durability', 'acknowledged commit missing', `${commit}\n${reached.text}`);
  }
  return pass();
}

export const GIT: FolderOracle = {
  kind: 'git',
  on: 'folder',
  summary: 'a git repository: git fsck finds nothing, acknowledged commits are in HEAD',
  details: [
    'Runs `git fsck --full`, which must find nothing (integrity). What the workload acknowledged with ' +
      '`ACK {"commit":"SHA"}` must be HEAD or one of its ancestors (durability). Good states besides the plain one: ' +
      '`absent`, where there is no repository yet and nothing was acknowledged.',
  ],
  options: [
    {
      name: 'repository',
      type: 'text',
      required: true,
      description: 'The repository, from the root of the file system.',
    },
  ],
  needs: () => ({ programs: ['git'], modules: [] }),
  usesAcks: () => true,
  judge: (settings) => ({
    judge: (folder, subject) => judgeGit(join(folder, String(settings['repository'])), subject),
  }),
};
