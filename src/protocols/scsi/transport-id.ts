// TransportIDs [SPC-4 7.6.4]: how PERSISTENT RESERVE OUT and IN name initiator ports. Those of iSCSI are understood
// [SPC-4 7.6.4.6].

/** Protocol identifier of iSCSI [SPC-4 table 473]. */
const ISCSI = 0x05;
/** FORMAT CODE: an iSCSI name alone, or with the ISID of one port. */
const FORMAT_PORT = 0x40;
const FORMAT_MASK = 0xc0;
const HEADER_BYTES = 4;
const LEAST_ADDITIONAL_BYTES = 20;

/** One TransportID of a list. */
export interface NamedPort {
  /**
   * As in InitiatorPort.name, lower case: "iqn.2026-11.example:host,i,0x00023d000001", or without ",i,…" for all ports of
   * it.
   */
  readonly name: string;
  /** The name is that of one port, not of a device with any number of them. */
  readonly isPort: boolean;
  readonly bytes: Uint8Array;
}

/** The TransportIDs that fill `list`; null where it is not a list of TransportIDs of iSCSI. */
export function parseTransportIds(list: Uint8Array): NamedPort[] | null {
  const found: NamedPort[] = [];
  let at = 0;
  while (at < list.length) {
    const length = HEADER_BYTES + (list[at + 2] ?? 0) * 256 + (list[at + 3] ?? 0);
    if (at + length > list.length) return null;
    const port = parseTransportId(list.subarray(at, at + length));
    if (port === null) return null;
    found.push(port);
    at += length;
  }
  return found;
}

function parseTransportId(bytes: Uint8Array): NamedPort | null {
  if (bytes.length < HEADER_BYTES + LEAST_ADDITIONAL_BYTES || bytes.length % 4 !== 0) return null;
  const first = bytes[0] as number;
  const format = first & FORMAT_MASK;
  if ((first & 0x3f) !== ISCSI || format > FORMAT_PORT) return null;
  const end = bytes.indexOf(0, HEADER_BYTES);
  // The name is closed by a zero, and filled up with zeroes.
  if (end <= HEADER_BYTES || bytes.subarray(end).some((byte) => byte !== 0)) return null;
  const name = portKey(Buffer.from(bytes.subarray(HEADER_BYTES, end)).toString('utf8'));
  const isPort = format === FORMAT_PORT;
  if (isPort !== /,i,0x[0-9a-f]{12}$/.test(name)) return null;
  return { name, isPort, bytes: Uint8Array.from(bytes) };
}

/** What two spellings of one initiator port's name have in common: iSCSI names and hexadecimal digits know no case. */
export function portKey(name: string): string {
  return name.toLowerCase();
}
