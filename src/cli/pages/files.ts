import { PROGRAM } from '../spec/program.ts';
import { pageName } from '../spec/spec.ts';
import { allCommands } from '../../protocols/scsi/registry.ts';
import { ORACLES } from '../../lab/oracles/list.ts';
import { renderReference } from './markdown.ts';
import { renderOracles } from './oracles.ts';
import { renderCommandPage, renderProgramPage } from './roff.ts';
import { renderScsiCommands } from './scsi.ts';

/** The committed files that are made from declarations: path below the repository's root, and content. */
export function generatedFiles(version: string): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  files.set('docs/reference/cli.md', renderReference(PROGRAM));
  files.set('docs/reference/oracles.md', renderOracles(ORACLES));
  files.set('docs/reference/scsi.md', renderScsiCommands(allCommands()));
  files.set('packaging/man/holdfast.1', renderProgramPage(PROGRAM, version));
  for (const command of PROGRAM.commands) {
    const path = `packaging/man/${pageName(PROGRAM, command)}.1`;
    files.set(path, renderCommandPage(PROGRAM, command, version));
  }
  return files;
}
