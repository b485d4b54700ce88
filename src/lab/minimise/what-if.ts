import type { Mark } from '../../trace/trace.ts';
import { canBeStable } from '../model/requests.ts';
import type { CrashModel } from '../model/types.ts';
import type { Smallest } from './smallest.ts';
import type { CauseKind, WhatIf } from './types.ts';

/**
 * Which FLUSH would make the failure impossible. The failure needs every request of `lost` to be lost: one that a FLUSH
 * covers cannot be. So it has to be sent after one of them was done, and to be done before it can fail: the last of
 * `kept` is sent, and the promise is made.
 */
export function whatIf(
  model: CrashModel,
  kind: CauseKind,
  { lost, kept }: Smallest,
  ack: Mark | null,
): readonly WhatIf[] {
  // No FLUSH of the disk helps against a tear, or brings what the guest has not sent; nothing does if the disk lies.
  const helps: readonly CauseKind[] = ['missing-flush', 'order', 'no-flush-seen'];
  if (model.options.model === 'L' || !helps.includes(kind)) return [];
  const { issued, done } = model.trace.requests;
  const [first] = lost
    .filter((request) => canBeStable(model.trace, request))
    .toSorted((a, b) => (done[a] as number) - (done[b] as number));
  const lastKept = kept.at(-1);
  const sent = lastKept === undefined ? -1 : (issued[lastKept] as number);
  const beforeEvent = Math.max(sent, ack?.event ?? -1);
  // What depends on it was stable already, and nobody knows what that is.
  if (first === undefined || beforeEvent < 0) return [];
  const afterEvent = done[first] as number;
  if (afterEvent >= beforeEvent) {
    const words =
      `no FLUSH helps as it is: #${first} was still in flight; ` +
      'the guest has to wait for it first, and then send a FLUSH';
    return [{ afterEvent, beforeEvent, words }];
  }
  const before =
    beforeEvent === sent ? `#${lastKept} is sent` : `'${ack?.text ?? ''}' is acknowledged`;
  const words = `a FLUSH${whose(model, first)} after #${first} is done and before ${before}`;
  return [{ afterEvent, beforeEvent, words }];
}

/** Which FLUSH covers a request, where not all do. */
function whose(model: CrashModel, request: number): string {
  const { disks, requests } = model.trace;
  const disk = disks[requests.disk[request] as number];
  const of = disks.length > 1 ? ` of ${disk?.name ?? 'its disk'}` : '';
  return disk?.flushCovers === 'source' ? `${of} from source ${requests.source[request]}` : of;
}
