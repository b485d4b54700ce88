import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { OracleOption } from './types.ts';

export const PROJECT_OPTION: OracleOption = {
  name: 'project',
  type: 'text',
  default: '.',
  description: 'The folder of the project that has the package of npm.',
};

/** The main file of a package of npm as code in `project` would find it; null: it is not installed. */
export function findModule(name: string, project: string): string | null {
  try {
    return createRequire(join(resolve(project), 'package.json')).resolve(name);
  } catch {
    return null;
  }
}

/** Loads it. Throws when it is not there. */
export async function loadModule(name: string, project: string): Promise<unknown> {
  const path = findModule(name, project);
  if (path === null) throw new Error(`${project} has no package ${name}`);
  return import(pathToFileURL(path).href);
}
