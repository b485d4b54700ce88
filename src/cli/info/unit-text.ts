import { ConfigError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import type { IscsiQuestions } from '../../protocols/iscsi/initiator/connect.ts';
import type { InfoAnswer } from '../commands/info.ts';

/** What a logical unit answers [SPC-4, SBC-4]; null where it refuses. */
export interface UnitAnswers {
  readonly inquiry: Uint8Array;
  readonly serial: Uint8Array | null;
  readonly identification: Uint8Array | null;
  readonly limits: Uint8Array | null;
  readonly provisioning: Uint8Array | null;
  readonly capacity: Uint8Array | null;
  readonly modes: Uint8Array | null;
}

const INQUIRY_BYTES = 96;
const PAGE_BYTES = 252;
const CAPACITY_BYTES = 32;

/** Asks all of it. Throws a ConfigError when there is no such logical unit. */
export async function askUnit(uri: string, questions: IscsiQuestions): Promise<UnitAnswers> {
  const page = (code: number): Promise<Uint8Array | null> =>
    questions.ask([0x12, 1, code, 0, PAGE_BYTES, 0], PAGE_BYTES);
  const inquiry = await questions.ask([0x12, 0, 0, 0, INQUIRY_BYTES, 0], INQUIRY_BYTES);
  // [SPC-4 6.6.2] PERIPHERAL QUALIFIER 000b and device type 00h: a disk is there.
  if (inquiry === null || inquiry.length < 36 || inquiry[0] !== 0) {
    throw new ConfigError(`${uri}: no disk has this LUN`, 'iscsi-ls -s lists those there are');
  }
  const readCapacity16 = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, CAPACITY_BYTES, 0, 0];
  return {
    inquiry,
    serial: await page(0x80),
    identification: await page(0x83),
    limits: await page(0xb0),
    provisioning: await page(0xb2),
    capacity: await questions.ask(readCapacity16, CAPACITY_BYTES),
    // The Caching page, without block descriptors.
    modes: await questions.ask([0x1a, 0x08, 0x08, 0, PAGE_BYTES, 0], PAGE_BYTES),
  };
}

/** What they say. Keys are only ever added within format 1; sizes are in bytes. */
export function describeUnit(uri: string, answers: UnitAnswers): InfoAnswer {
  const { inquiry, capacity, modes, limits, provisioning } = answers;
  const size = sizeOf(capacity);
  const compare = limits?.[5] ?? 0;
  const largest = limits === null || limits.length < 12 ? 0 : viewOf(limits).getUint32(8);
  const json = {
    format: 1,
    kind: 'iscsi',
    uri,
    vendor: text(inquiry, 8, 16),
    product: text(inquiry, 16, 32),
    revision: text(inquiry, 32, 36),
    serial: answers.serial === null ? null : text(answers.serial, 4, answers.serial.length),
    naa: naaOf(answers.identification),
    sizeBytes: size?.bytes ?? null,
    logicalBlockBytes: size?.logical ?? null,
    physicalBlockBytes: size?.physical ?? null,
    removable: bit(inquiry, 1, 0x80),
    readOnly: bit(modes, 2, 0x80),
    writeCache: modes === null || modes.length < 7 ? null : bit(modes, 6, 0x04),
    fua: bit(modes, 2, 0x10),
    thin: bit(capacity, 14, 0x80),
    unmap: bit(provisioning, 5, 0x80),
    compareAndWriteBlocks: compare,
    maximumTransferBytes: size === null || largest === 0 ? null : largest * size.logical,
  };
  const most = json.maximumTransferBytes;
  const cache = json.writeCache === null ? 'not said' : json.writeCache ? 'on' : 'off';
  const lines = [
    uri,
    `  disk               ${json.vendor} ${json.product} ${json.revision}`,
    `  serial number      ${json.serial ?? 'none'}`,
    `  identification     ${json.naa === null ? 'none' : `naa.${json.naa}`}`,
    `  size               ${size === null ? 'not ready' : `${size.bytes} bytes (${formatSize(size.bytes)})`}`,
    `  block sizes        ${size === null ? 'not ready' : `logical ${size.logical}, physical ${size.physical}`}`,
    `  read-only          ${yes(json.readOnly)}`,
    `  removable          ${yes(json.removable)}`,
    `  write cache        ${cache}`,
    `  FUA                ${yes(json.fua)}`,
    `  thin               ${yes(json.thin)}${json.unmap ? ', with UNMAP' : ''}`,
    `  compare and write  ${compare === 0 ? 'no' : `up to ${compare} blocks`}`,
    `  one command moves  ${most === null ? 'not said' : `at most ${formatSize(most)}`}`,
  ];
  return { json, lines };
}

/** [SBC-4 5.21.2] */
function sizeOf(
  capacity: Uint8Array | null,
): { bytes: number; logical: number; physical: number } | null {
  if (capacity === null || capacity.length < 16) return null;
  const view = viewOf(capacity);
  const logical = view.getUint32(8);
  const bytes = (Number(view.getBigUint64(0)) + 1) * logical;
  return { bytes, logical, physical: logical * 2 ** ((capacity[13] as number) & 0x0f) };
}

/** [SPC-4 7.8.6] The NAA designator of the logical unit, in hexadecimal. */
function naaOf(page: Uint8Array | null): string | null {
  if (page === null) return null;
  for (let at = 4; at + 4 <= page.length; at += 4 + (page[at + 3] as number)) {
    if (((page[at + 1] as number) & 0x3f) !== 3) continue;
    const value = page.subarray(at + 4, at + 4 + (page[at + 3] as number));
    return Buffer.from(value).toString('hex');
  }
  return null;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function bit(bytes: Uint8Array | null, at: number, mask: number): boolean {
  return ((bytes?.[at] ?? 0) & mask) !== 0;
}

/** Printable ASCII [SPC-4 4.4.1]; what else a server sends is not printed. */
function text(bytes: Uint8Array, from: number, to: number): string {
  return Buffer.from(bytes.subarray(from, to))
    .toString('latin1')
    .replaceAll(/[^ -~]/g, '')
    .trim();
}

function yes(value: boolean): string {
  return value ? 'yes' : 'no';
}
