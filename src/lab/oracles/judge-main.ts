import { openSync, closeSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import type { Verdict } from '../check/types.ts';
import { AckError } from './acks.ts';
import type { AnswerMessage, BeginMessage, CaseMessage } from './judge-messages.ts';
import { ORACLES } from './list.ts';
import { dropForeignMounts } from './mount-namespace.ts';
import type { DiskJudge } from './types.ts';
import { doubt } from './verdict.ts';

// The process of a ready-made oracle. It may block, hang and be killed, with all that it started.

let judge: DiskJudge | null = null;
/** Until the mounts of others are let go. */
let outside: string | null = null;

process.on('message', (message: BeginMessage | CaseMessage) => {
  if (judge === null) begin(message as BeginMessage);
  else void answer(judge, message as CaseMessage);
});
// Who asked is gone.
process.on('disconnect', () => process.exit(0));

function begin({ kind, settings, outside: namespace }: BeginMessage): void {
  outside = namespace;
  const oracle = ORACLES.find((one) => one.kind === kind);
  if (oracle === undefined) throw new Error(`no oracle ${kind}`);
  judge = oracle.judge(settings);
}

async function answer(by: DiskJudge, subject: CaseMessage): Promise<void> {
  const unseen = subject.files.find((path) => !canOpen(path));
  if (unseen !== undefined) return say({ unseen });
  return say({ verdict: await judged(by, subject) });
}

async function judged(by: DiskJudge, subject: CaseMessage): Promise<Verdict> {
  try {
    if (outside !== null) await dropForeignMounts([...subject.files, subject.scratch], outside);
    outside = null;
    return await by.judge(subject);
  } catch (error) {
    if (error instanceof AckError) return doubt('acknowledgement not understood', error.message);
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return doubt(messageOf(error), text);
  }
}

function canOpen(path: string): boolean {
  try {
    closeSync(openSync(path, 'r'));
    return true;
  } catch {
    return false;
  }
}

function say(message: AnswerMessage): void {
  process.send?.(message);
}
