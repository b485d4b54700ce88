import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findProgram } from '../../oracles/programs.ts';
import {
  choice,
  contentOf,
  countOption,
  numberOf,
  SEED,
  syncFileSystem,
  writeWhole,
  yesNo,
} from './support.ts';
import type { Workload, Workplace } from './types.ts';

const REPOSITORY = 'repository';
const FILES = 3;
const BYTES = 2000;

/** [git-config(1) "core.fsync"] */
const FSYNC: Readonly<Record<string, readonly string[]>> = {
  default: [],
  all: ['-c', 'core.fsync=all', '-c', 'core.fsyncMethod=fsync'],
  none: ['-c', 'core.fsync=none'],
};

/** The same commits each time: git takes names and dates from its environment. */
const IDENTITY = {
  GIT_AUTHOR_NAME: 'Holdfast',
  GIT_AUTHOR_EMAIL: 'holdfast@example.org',
  GIT_AUTHOR_DATE: '2000000000 +0000',
  GIT_COMMITTER_NAME: 'Holdfast',
  GIT_COMMITTER_EMAIL: 'holdfast@example.org',
  GIT_COMMITTER_DATE: '2000000000 +0000',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
};

function git({ folder, settings }: Workplace, ...args: readonly string[]): string {
  const fsync = FSYNC[String(settings['fsync'])] ?? [];
  const config = ['-c', 'safe.directory=*', '-c', 'gc.auto=0', ...fsync];
  const ended = spawnSync(
    findProgram('git') ?? 'git',
    [...config, '-C', join(folder, REPOSITORY), ...args],
    { encoding: 'utf8', env: { ...process.env, ...IDENTITY } },
  );
  if (ended.status !== 0) throw new Error(`git ${args.join(' ')}: ${ended.stderr}`);
  return ended.stdout.trim();
}

function prepare(place: Workplace): void {
  const path = join(place.folder, REPOSITORY);
  const { status, stderr } = spawnSync(
    findProgram('git') ?? 'git',
    ['init', '--quiet', '--initial-branch=main', path],
    { encoding: 'utf8', env: { ...process.env, ...IDENTITY } },
  );
  if (status !== 0) throw new Error(`git init: ${stderr}`);
  syncFileSystem(place.folder);
}

function run(place: Workplace): void {
  const { folder, settings, acknowledge } = place;
  for (let i = 0; i < numberOf(settings, 'count'); i += 1) {
    const content = Buffer.from(contentOf(settings, 'file', i, BYTES).toString('hex'));
    writeWhole(join(folder, REPOSITORY, `file-${i % FILES}`), content, false);
    git(place, 'add', '--all');
    git(place, 'commit', '--quiet', '--message', `Commit ${i}`);
    if (settings['sync'] === true) syncFileSystem(folder);
    if (settings['acks'] === true) acknowledge({ commit: git(place, 'rev-parse', 'HEAD') });
  }
}

export const GIT: Workload = {
  name: 'git',
  summary: 'git commit, one after the other',
  options: [
    SEED,
    countOption(8, 'commits'),
    choice('fsync', ['default', 'all', 'none'], "core.fsync; default: git's own."),
    yesNo('acks', true, 'Whether it acknowledges: without, only git fsck is asked.'),
    yesNo(
      'sync',
      false,
      'Whether the whole file system is synced before that. git itself syncs no folders, so without it the last commit may ' +
        'be lost whatever core.fsync says.',
    ),
  ],
  prepare,
  run,
  manifest: () => [],
  judged: () => ({ kind: 'git', options: { repository: REPOSITORY } }),
  needs: () => ({ programs: ['git'], modules: [] }),
};
