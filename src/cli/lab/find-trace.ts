import { readdirSync } from 'node:fs';
import { ConfigError, messageOf } from '../../base/errors.ts';
import { isOfTrace, parseStateId } from '../../lab/model/state-id.ts';
import { openCrashModel } from '../../lab/model/crash-model.ts';
import type { CrashModel, StateSpec } from '../../lab/model/types.ts';
import { openTrace } from '../../trace/reader.ts';
import type { Trace } from '../../trace/trace.ts';

/** A state as it was found by its id. The caller closes the model, and then its trace. */
export interface FoundState {
  readonly model: CrashModel;
  readonly state: StateSpec;
}

/** Opens the trace that a state id is about: the one that is named, else one in this folder. Throws ConfigError. */
export function findState(id: string, named: string | undefined): FoundState {
  const parts = parseStateId(id);
  const trace = named === undefined ? traceHere(id) : openTrace(named);
  try {
    if (!isOfTrace(parts, trace.fingerprint)) {
      throw new ConfigError(
        `${trace.path}: state ${id} is of another trace`,
        `this one has the fingerprint ${trace.fingerprint}`,
      );
    }
    const model = openCrashModel(trace, parts.options);
    const why =
      parts.state.cut >= model.cuts.length ? 'there is no such cut' : model.whyIllegal(parts.state);
    if (why !== null) {
      throw new ConfigError(
        `${trace.path}: no power cut leaves the state ${id}: ${why}`,
        'copy the id whole from the report of this trace',
      );
    }
    return { model, state: parts.state };
  } catch (error) {
    trace.close();
    throw error;
  }
}

function traceHere(id: string): Trace {
  const parts = parseStateId(id);
  let unreadable = '';
  for (const name of readdirSync('.').filter((entry) => entry.endsWith('.trace'))) {
    let trace: Trace;
    try {
      trace = openTrace(name);
    } catch (error) {
      // Perhaps it is this one: if no other is, that has to be said.
      unreadable ||= messageOf(error);
      continue;
    }
    if (isOfTrace(parts, trace.fingerprint)) return trace;
    trace.close();
  }
  throw new ConfigError(
    `no trace in this folder is the one of state ${id}${unreadable === '' ? '' : `; ${unreadable}`}`,
    'name it with --trace TRACE',
  );
}
