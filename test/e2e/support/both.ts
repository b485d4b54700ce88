import test from 'node:test';
import type { TestContext } from 'node:test';
import { REACTORS } from './holdfast.ts';
import type { ReactorKind } from './holdfast.ts';
import { requires } from './requires.ts';

/** The limit of a test that boots no guest; the slowest needs a few seconds. */
const LIMIT_MS = 120_000;

/** Declares a test once for each reactor: what clients see must not depend on it. */
export function onBothReactors(
  name: string,
  tools: readonly string[],
  body: (t: TestContext, reactor: ReactorKind) => Promise<void>,
): void {
  for (const reactor of REACTORS) {
    const options = { ...requires(...tools), timeout: LIMIT_MS };
    test(`${name} [${reactor}]`, options, (t) => body(t, reactor));
  }
}
