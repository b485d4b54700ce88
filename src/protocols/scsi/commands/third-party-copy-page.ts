import { COPY_DESCRIPTORS, COPY_GRANULARITY_EXPONENT, COPY_LIMITS } from '../copy-limits.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import { commandsOf } from '../registry.ts';

export const THIRD_PARTY_COPY = 0x8f;

/** One third-party copy descriptor, filled up to a multiple of four [SPC-4 7.8.17.2]. */
function descriptor(type: number, body: Uint8Array): number[] {
  const length = Math.ceil(body.length / 4) * 4;
  const padding = Array<number>(length - body.length).fill(0);
  return [type >> 8, type & 0xff, length >> 8, length & 0xff, ...body, ...padding];
}

/** The Third-party Copy page without its header [SPC-4 7.8.17]. */
export function thirdPartyCopyPage(unit: LogicalUnit): Uint8Array {
  const commands: number[] = [];
  for (const opcode of [0x83, 0x84]) {
    const actions = commandsOf(unit)
      .filter((command) => command.opcode === opcode)
      .map(({ serviceAction }) => serviceAction ?? 0);
    commands.push(opcode, actions.length, ...actions);
  }
  const parameters = new Uint8Array(28);
  const view = new DataView(parameters.buffer);
  view.setUint16(4, COPY_LIMITS.cscdDescriptors);
  view.setUint16(6, COPY_LIMITS.segmentDescriptors);
  view.setUint32(8, COPY_LIMITS.listBytes);
  const general = new Uint8Array(32);
  const operations = new DataView(general.buffer);
  operations.setUint32(0, COPY_LIMITS.copies);
  operations.setUint32(4, COPY_LIMITS.copies);
  operations.setUint32(8, COPY_LIMITS.segmentBytes);
  general[12] = COPY_GRANULARITY_EXPONENT;
  return Uint8Array.from([
    // Supported Commands [SPC-4 7.8.17.4]
    ...descriptor(0x0001, Uint8Array.from([commands.length, ...commands])),
    // Parameter Data [SPC-4 7.8.17.5]
    ...descriptor(0x0004, parameters),
    // Supported Descriptors [SPC-4 7.8.17.6]
    ...descriptor(0x0008, Uint8Array.from([COPY_DESCRIPTORS.length, ...COPY_DESCRIPTORS])),
    // General Copy Operations [SPC-4 7.8.17.11]
    ...descriptor(0x8001, general),
  ]);
}
