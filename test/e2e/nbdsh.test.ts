import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { onBothReactors } from './support/both.ts';
import { succeed } from './support/command.ts';
import { makeImage, startHoldfast, workspace } from './support/holdfast.ts';

/** Debian's Python, which has libnbd's bindings; a developer's own, earlier in PATH, has not. */
const DEBIAN_PYTHON = { PATH: '/usr/bin:/bin' };

function script(name: string): string {
  return readFileSync(join(import.meta.dirname, 'nbdsh', `${name}.py`), 'utf8');
}

/** What each script checks is written in it: assertions in Python, an exit code out. */
const SCRIPTS = {
  'data written is data read, at any offset and length': 'data',
  'FUA is accepted on every command that may carry it': 'fua',
  'zeroes with every flag read as zeroes': 'zeroes',
  'block status is what was written': 'block-status',
  'requests in flight together are all answered, whatever the order': 'pipelining',
  'a write on one connection is seen on another, and a flush covers it': 'multi-conn',
  'illegal requests get an error and the connection lives on': 'illegal',
  'structured replies, read in pieces and whole': 'structured',
  'options before the transmission phase': 'options',
} as const;

for (const [what, name] of Object.entries(SCRIPTS)) {
  onBothReactors(`nbdsh: ${what}`, ['nbdsh'], async (t, reactor) => {
    const image = makeImage(workspace(t), 64);
    const server = await startHoldfast(t, [image], { reactor });
    await succeed(['nbdsh', '--opt-mode', '-u', server.uri(), '-c', '-'], {
      input: `uri = "${server.uri()}"\n${script(name)}`,
      env: DEBIAN_PYTHON,
    });
    await server.stop();
  });
}

onBothReactors('nbdsh: a read-only export refuses changes', ['nbdsh'], async (t, reactor) => {
  const image = makeImage(workspace(t), 8, 1);
  const server = await startHoldfast(t, [image, '--read-only'], { reactor });
  await succeed(['nbdsh', '-u', server.uri(), '-c', '-'], {
    input: script('read-only'),
    env: DEBIAN_PYTHON,
  });
  await server.stop();
});
