import type { CommandSpec } from '../command.ts';
import { ASC } from '../scsi.ts';
import type { ScsiTarget } from '../target.ts';

/**
 * The LUN list, cut to the allocation length, or null for a SELECT REPORT that means nothing [SPC-4 6.33]. There are no well
 * known and no administrative logical units.
 */
export function reportLuns(target: ScsiTarget, cdb: Uint8Array): Uint8Array | null {
  const select = cdb[2] as number;
  if (![0x00, 0x01, 0x02, 0x10, 0x11, 0x12].includes(select)) return null;
  const all = select === 0x00 || select === 0x02 || select === 0x11;
  const luns = all ? [...target.units.keys()].toSorted((a, b) => a - b) : [];
  const data = new Uint8Array(8 + luns.length * 8);
  const view = new DataView(data.buffer);
  view.setUint32(0, luns.length * 8);
  luns.forEach((lun, i) => {
    // [SAM-5 4.7.7.2, 4.7.7.3] peripheral device addressing below 256, flat space addressing above.
    view.setUint16(8 + i * 8, lun < 256 ? lun : 0x4000 | lun);
  });
  const allocated = new DataView(cdb.buffer, cdb.byteOffset).getUint32(6);
  return data.subarray(0, allocated);
}

export const REPORT_LUNS_COMMANDS: readonly CommandSpec[] = [
  {
    name: 'REPORT LUNS',
    section: 'SPC-4 6.33',
    opcode: 0xa0,
    cdbBytes: 12,
    usage: [0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
    reservation: 'allowed',
    despiteUnitAttention: true,
    plan: () => true,
    execute: (unit, task) => {
      task.dataIn = reportLuns(unit.target, task.cdb);
      if (task.dataIn === null) {
        unit.refuseField(task, 2);
        return;
      }
      unit.attentions.clear(task.nexus, ASC.REPORTED_LUNS_DATA_HAS_CHANGED);
      unit.finish(task);
    },
  },
];
