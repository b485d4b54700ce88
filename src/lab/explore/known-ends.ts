import { ConfigError } from '../../base/errors.ts';
import type { CheckerPool } from '../check/types.ts';
import type { CrashModel, StateSpec } from '../model/types.ts';

/**
 * Before anything else: the disk as it was before the recording, and as it is with all that was issued, must pass.
 * Otherwise the checker is broken, or the recording, and no finding would mean anything. Missing acknowledged data is no
 * reason to stop: the guest may never have written it, and that is a finding. Answers with the number of runs; throws
 * ConfigError.
 */
export async function checkKnownEnds(
  model: CrashModel,
  pool: CheckerPool,
  checkBase: boolean,
): Promise<number> {
  const last = model.cuts.length - 1;
  const states: StateSpec[] = [{ cut: last, rule: { kind: 'all' } }];
  // Just before the first thing becomes stable, the floor is the base.
  if (checkBase) states.push({ cut: 0, rule: { kind: 'floor' } });
  const runs = await pool.run(states);
  for (const [i, { verdict }] of runs.entries()) {
    if (verdict.outcome === 'pass') continue;
    if (verdict.outcome === 'fail' && verdict.axis === 'durability' && pool.usesAcks) continue;
    const which = i === 0 ? 'the final image' : 'the image before the recording';
    const said = `${verdict.outcome} ${verdict.class}`.trim();
    throw new ConfigError(
      `checker or base broken: ${pool.checkerName} does not pass ${which} of ${model.trace.path} (${said})`,
      i === 0
        ? `run the checker by hand on the disk as it is now; it said: ${verdict.detail}`
        : `if the recording makes the file system itself, leave the check of the base out; it said: ${verdict.detail}`,
    );
  }
  return runs.length;
}
