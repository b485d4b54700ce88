import assert from 'node:assert/strict';
import test from 'node:test';
import { Region, type Segments } from '../../block/memory.ts';
import { Outbox } from '../../reactor/outbox.ts';
import { PagePool } from '../../reactor/page-pool.ts';
import type { Stream } from '../../reactor/reactor.ts';
import { PduSender, STAT_SN } from './pdu-sender.ts';
import { BHS_BYTES, FIELD, initiatorTaskTag, writeNopIn } from './wire.ts';

function say(sender: PduSender, itt: number, data: Uint8Array): void {
  sender.open(data.length);
  writeNopIn(sender.view, sender.at, itt, 0, data.length);
  sender.bytes.set(data, sender.dataAt);
  sender.close(STAT_SN.OWN);
}

void test('what finds no memory is said later, in order, with the numbers of then', () => {
  const pool = new PagePool(4096, 2, (bytes) => Region.plain(bytes));
  const held = [pool.take(), pool.take()];
  const counters = { statSn: 0xfffffffe, expCmdSn: 1, maxCmdSn: 5 };
  const outbox = new Outbox(pool);
  const sender = new PduSender(outbox, counters, { headerDigest: false, dataDigest: false });
  for (let itt = 1; itt <= 4; itt += 1) say(sender, itt, new Uint8Array(itt).fill(itt));
  assert.ok(sender.late);
  assert.equal(sender.flush(), false);
  assert.equal(counters.statSn, 0xfffffffe);
  held[0]?.release();
  counters.expCmdSn = 3;
  assert.ok(sender.flush());
  assert.ok(!sender.late);
  say(sender, 5, new Uint8Array(0));
  assert.equal(counters.statSn, 3);
  const sent: number[][] = [];
  outbox.pump({
    send: (segments: Segments) => {
      const bytes = new Uint8Array(segments.totalBytes);
      segments.copyTo(bytes);
      const view = new DataView(bytes.buffer);
      for (let at = 0; at < bytes.length;) {
        const itt = initiatorTaskTag(view, at);
        const dataBytes = view.getUint32(at + 4);
        sent.push([itt, view.getUint32(at + FIELD.STAT_SN), view.getUint32(at + FIELD.EXP_CMD_SN)]);
        const data = bytes.subarray(at + BHS_BYTES, at + BHS_BYTES + dataBytes);
        assert.deepEqual(data, new Uint8Array(itt === 5 ? 0 : itt).fill(itt));
        at += BHS_BYTES + ((dataBytes + 3) & ~3);
      }
    },
  } as Stream);
  assert.deepEqual(sent, [
    [1, 0xfffffffe, 3],
    [2, 0xffffffff, 3],
    [3, 0, 3],
    [4, 1, 3],
    [5, 2, 3],
  ]);
});
