import type { CacheMode } from '../../durability/modes.ts';
import { formatSize } from '../../base/units.ts';
import type { HostFacts } from '../../stores/file/host.ts';
import type { BlockDeviceNode } from '../../stores/file/sysfs.ts';
import { wrap } from '../pages/wrap.ts';
import { modeLine } from '../serve/modes.ts';
import type { Explanation } from './explain.ts';

const COLUMNS = 92;

/** The explanation for people. `facts` is null for memory:SIZE. */
export function explanationLines(
  disk: string,
  mode: CacheMode,
  facts: HostFacts | null,
  told: Explanation,
): string[] {
  const lines = [`${disk}, cache=${mode}: ${modeLine(disk, mode)}`, ''];
  if (facts !== null) lines.push('The host', ...hostLines(facts), '');
  lines.push('A write', ...paragraph(told.write), '');
  lines.push('A flush', ...paragraph(told.flush), '');
  lines.push('A write with FUA', ...paragraph(told.fua), '');
  lines.push('What is still there', ...paragraph(survivalTexts(told)));
  if (told.warnings.length > 0) {
    lines.push('', 'WARNING', ...told.warnings.flatMap(({ message }) => bullet(message)));
  }
  return lines;
}

function survivalTexts({ survives }: Explanation): string[] {
  return [
    `After a crash of the server: ${survives.serverCrash}.`,
    `After a crash of this machine or a power cut: ${survives.hostCrash}.`,
  ];
}

/** What was found out about the host, one line each. Also for `info`. */
export function hostLines(facts: HostFacts): string[] {
  const rows: [string, string][] = [];
  const { mount, sizeBytes } = facts;
  if (sizeBytes !== null) rows.push(['size', `${sizeBytes} bytes (${formatSize(sizeBytes)})`]);
  if (facts.allocatedBytes !== null) rows.push(['on disk', formatSize(facts.allocatedBytes)]);
  if (mount !== null) {
    const options = mount.options.join(',');
    rows.push(['file system', `${mount.fileSystem} at ${mount.mountPoint} (${options})`]);
  }
  if (facts.device !== null && facts.device.beneath.length > 0) {
    rows.push(['device', deviceText(facts.device)]);
  }
  for (const drive of facts.drives) rows.push(['drive', driveText(drive)]);
  if (facts.drives.length === 0) rows.push(['drive', 'none that the kernel shows here']);
  rows.push(['O_DIRECT', directText(facts)]);
  return rows.map(([label, text]) => `  ${label.padEnd(12)} ${text}`);
}

function deviceText(node: BlockDeviceNode): string {
  const name = node.detail === null ? node.name : `${node.name} (${node.detail})`;
  if (node.beneath.length === 0) return name;
  return `${name} on ${node.beneath.map(deviceText).join(' and ')}`;
}

function driveText(drive: BlockDeviceNode): string {
  const cache =
    drive.writeCache === null
      ? 'the kernel does not say whether its cache is volatile'
      : drive.writeCache === 'write back'
        ? 'volatile write cache'
        : 'no volatile write cache';
  const parts = [cache];
  if (drive.fua !== null) parts.push(drive.fua ? 'FUA' : 'no FUA');
  if (drive.rotational !== null) parts.push(drive.rotational ? 'rotational' : 'not rotational');
  const model = drive.model === null ? '' : ` (${drive.model})`;
  return `${drive.name}${model}: ${parts.join(', ')}`;
}

function directText({ direct, directAlignment }: HostFacts): string {
  if (direct === null) return 'not known: this user may not open it';
  if (!direct) return 'not here';
  if (directAlignment === null) return 'yes';
  return `yes, in multiples of ${directAlignment.offsetBytes} bytes`;
}

function paragraph(sentences: readonly string[]): string[] {
  return sentences.flatMap((text) => wrap(text, COLUMNS, 2));
}

function bullet(message: string): string[] {
  return wrap(message, COLUMNS, 4).map((line, i) => (i === 0 ? `  - ${line.trimStart()}` : line));
}

/** The same facts for programs. Keys are only ever added within format 1; what is not known is null. */
export function hostJson(facts: HostFacts): object {
  return {
    path: facts.path,
    realPath: facts.realPath,
    kind: facts.kind,
    sizeBytes: facts.sizeBytes,
    allocatedBytes: facts.allocatedBytes,
    fileSystem: facts.mount?.fileSystem ?? null,
    mountPoint: facts.mount?.mountPoint ?? null,
    mountOptions: facts.mount?.options ?? null,
    barriersOff: facts.barriersOff,
    volatileCache: facts.volatileCache,
    direct: facts.direct,
    directAlignmentBytes: facts.directAlignment?.offsetBytes ?? null,
    writeDsync: facts.writeDsync,
    punchHole: facts.punchHole,
    rotational: facts.rotational,
    drives: facts.drives.map(({ name, model, writeCache, fua, rotational }) => ({
      name,
      model,
      writeCache,
      fua,
      rotational,
    })),
  };
}
