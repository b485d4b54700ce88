import { formatSize } from '../../base/units.ts';
import type { NegotiatedExport } from '../../protocols/nbd/client-handshake.ts';
import { NBD_FLAG, type ListedExport } from '../../protocols/nbd/wire.ts';
import type { InfoAnswer } from '../commands/info.ts';

/** What a server said about one export. Keys are only ever added within format 1; sizes are in bytes. */
export function describeExport(uri: string, negotiated: NegotiatedExport): InfoAnswer {
  const { transmissionFlags, blockSizes, description } = negotiated;
  const has = (flag: number): boolean => (transmissionFlags & flag) !== 0;
  const json = {
    format: 1,
    kind: 'nbd',
    uri,
    description,
    sizeBytes: negotiated.sizeBytes,
    readOnly: has(NBD_FLAG.READ_ONLY),
    flush: has(NBD_FLAG.SEND_FLUSH),
    fua: has(NBD_FLAG.SEND_FUA),
    trim: has(NBD_FLAG.SEND_TRIM),
    writeZeroes: has(NBD_FLAG.SEND_WRITE_ZEROES),
    fastZero: has(NBD_FLAG.SEND_FAST_ZERO),
    cache: has(NBD_FLAG.SEND_CACHE),
    rotational: has(NBD_FLAG.ROTATIONAL),
    multiConnection: has(NBD_FLAG.CAN_MULTI_CONN),
    allocationMap: negotiated.baseAllocationId !== null,
    minimumBlockBytes: blockSizes?.minimum ?? null,
    preferredBlockBytes: blockSizes?.preferred ?? null,
    maximumPayloadBytes: blockSizes?.maximumPayload ?? null,
    structuredReplies: negotiated.structured || negotiated.extended,
    extendedHeaders: negotiated.extended,
    tls: negotiated.tls,
  };
  const lines = [
    uri,
    ...(description === null || description === '' ? [] : [`  description        ${description}`]),
    `  size               ${json.sizeBytes} bytes (${formatSize(json.sizeBytes)})`,
    `  read-only          ${yes(json.readOnly)}`,
    `  flush              ${yes(json.flush)}`,
    `  FUA                ${yes(json.fua)}`,
    `  trim               ${yes(json.trim)}`,
    `  write zeroes       ${json.writeZeroes ? (json.fastZero ? 'yes, fast on request' : 'yes') : 'no'}`,
    `  allocation map     ${yes(json.allocationMap)}`,
    `  many connections   ${yes(json.multiConnection)}`,
    `  rotational         ${yes(json.rotational)}`,
    `  block sizes        ${blockSizesText(negotiated)}`,
    `  headers            ${json.extendedHeaders ? 'extended' : json.structuredReplies ? 'structured' : 'simple'}`,
    `  TLS                ${yes(json.tls)}`,
  ];
  return { json, lines };
}

function blockSizesText({ blockSizes }: NegotiatedExport): string {
  if (blockSizes === null) return 'not said';
  const { minimum, preferred, maximumPayload } = blockSizes;
  return `at least ${minimum}, best ${preferred}, at most ${formatSize(maximumPayload)} in one request`;
}

/** The exports of a server. */
export function describeList(uri: string, exports: readonly ListedExport[]): InfoAnswer {
  return {
    json: { format: 1, kind: 'nbd-list', uri, exports },
    // The name first and alone up to the tab, so that a script without JSON can take it.
    lines: exports.map(({ name, description }) =>
      description === '' ? name : `${name}\t${description}`,
    ),
  };
}

function yes(value: boolean): string {
  return value ? 'yes' : 'no';
}
