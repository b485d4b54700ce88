import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generatedFiles } from '../src/cli/pages/files.ts';
import { packageVersion } from '../src/server/version.ts';

// Writes the manual pages and the command line reference; src/cli/pages/pages.test.ts fails when they are stale.
for (const [path, content] of generatedFiles(packageVersion())) {
  const file = fileURLToPath(new URL(`../${path}`, import.meta.url));
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
}
