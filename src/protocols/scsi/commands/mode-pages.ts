import type { BlockErrorCode } from '../../../block/errors.ts';
import type { LogicalUnit } from '../logical-unit.ts';
import type { Nexus } from '../nexus.ts';
import { ASC } from '../scsi.ts';

/** PC field [SPC-4 table 159]. */
export const PAGE_CONTROL = { CURRENT: 0, CHANGEABLE: 1, DEFAULT: 2, SAVED: 3 } as const;

/** What MODE SELECT can change. */
export interface ModeValues {
  readonly writeCache: boolean;
  readonly descriptorSense: boolean;
  readonly softwareWriteProtect: boolean;
}

export interface WantedModes extends ModeValues {
  /** The Caching page was in the list. */
  readonly setsWriteCache: boolean;
}

interface ModePage {
  readonly page: number;
  readonly subpage: number;
  /** Bytes of the page, its header included, for these values. */
  readonly make: (values: ModeValues) => Uint8Array;
}

const CACHING = 0x08;
const CONTROL = 0x0a;
const ALL_PAGES = 0x3f;
const ALL_SUBPAGES = 0xff;

const WCE = 0x04;
const D_SENSE = 0x04;
const SWP = 0x08;

function page(code: number, length: number, bytes: Readonly<Record<number, number>>): Uint8Array {
  const data = new Uint8Array(2 + length);
  data[0] = code; // PS 0: not saved
  data[1] = length;
  for (const [at, byte] of Object.entries(bytes)) data[Number(at)] = byte;
  return data;
}

const PAGES: readonly ModePage[] = [
  {
    // Read-Write Error Recovery [SBC-4 6.5.8]: AWRE and ARRE, which whatever is beneath does by itself.
    page: 0x01,
    subpage: 0,
    make: () => page(0x01, 0x0a, { 2: 0xc0 }),
  },
  {
    // Disconnect-Reconnect [SPC-4 7.5.10]: no limits of ours.
    page: 0x02,
    subpage: 0,
    make: () => page(0x02, 0x0e, {}),
  },
  {
    page: CACHING,
    subpage: 0,
    make: ({ writeCache }) => page(CACHING, 0x12, { 2: writeCache ? WCE : 0 }),
  },
  {
    // Control [SPC-4 7.5.8]: TST 0, one task set; QUEUE ALGORITHM MODIFIER 1, commands pass each other; QERR 0, TAS 0.
    page: CONTROL,
    subpage: 0,
    make: ({ descriptorSense, softwareWriteProtect }) =>
      page(CONTROL, 0x0a, {
        // GLTSD: log parameters are not saved.
        2: 0x02 | (descriptorSense ? D_SENSE : 0),
        3: 0x10,
        4: softwareWriteProtect ? SWP : 0,
        // BUSY TIMEOUT PERIOD: unlimited
        8: 0xff,
        9: 0xff,
      }),
  },
  {
    // Informational Exceptions Control [SPC-4 7.5.13]: MRIE 0, none are reported.
    page: 0x1c,
    subpage: 0,
    make: () => page(0x1c, 0x0a, {}),
  },
];

function current(unit: LogicalUnit): ModeValues {
  const { descriptorSense, softwareWriteProtect } = unit.modes;
  return { writeCache: unit.disk.info.writeCache, descriptorSense, softwareWriteProtect };
}

function defaults(unit: LogicalUnit): ModeValues {
  const writeCache = unit.disk.mode.writeCache && !unit.disk.info.readOnly;
  return { writeCache, descriptorSense: false, softwareWriteProtect: false };
}

/** Whether WCE can be switched: not where it means nothing. */
function wceChangeable(unit: LogicalUnit): boolean {
  return !unit.disk.info.ignoresFlush && !unit.disk.info.readOnly;
}

/** The bits of a page that MODE SELECT may change. */
function changeableMask(unit: LogicalUnit, { make }: ModePage): Uint8Array {
  const none = { writeCache: false, descriptorSense: false, softwareWriteProtect: false };
  const all = {
    writeCache: wceChangeable(unit),
    descriptorSense: true,
    softwareWriteProtect: true,
  };
  const off = make(none);
  const mask = make(all);
  for (let i = 2; i < mask.length; i += 1) {
    mask[i] = (mask[i] as number) ^ (off[i] as number);
  }
  return mask;
}

/** Mode pages one after the other as PC and page codes ask; null for a page that is not there. */
export function modePages(
  unit: LogicalUnit,
  control: number,
  code: number,
  subpage: number,
): Uint8Array | null {
  const wanted = PAGES.filter((each) => {
    if (code !== ALL_PAGES && each.page !== code) return false;
    return subpage === ALL_SUBPAGES || each.subpage === subpage;
  });
  if (wanted.length === 0) return null;
  const values = control === PAGE_CONTROL.DEFAULT ? defaults(unit) : current(unit);
  const made = wanted.map((each) =>
    control === PAGE_CONTROL.CHANGEABLE ? changeableMask(unit, each) : each.make(values),
  );
  return Uint8Array.from(made.flatMap((bytes) => [...bytes]));
}

/** Where WCE is in mode pages that follow each other: the byte; -1: the Caching page is not among them. */
export function writeCacheByte(pages: Uint8Array): number {
  for (let at = 0; at < pages.length; at += 2 + (pages[at + 1] as number)) {
    if (pages[at] === CACHING) return at + 2;
  }
  return -1;
}

export function isWriteCacheOn(byte: number): boolean {
  return (byte & WCE) !== 0;
}

/**
 * What a MODE SELECT parameter list asks for, from byte `start` on. 'short': a page is cut off; a number: the byte that
 * cannot be as it is.
 */
export function readModes(
  unit: LogicalUnit,
  list: Uint8Array,
  start: number,
): WantedModes | 'short' | number {
  let wanted: WantedModes = { ...current(unit), setsWriteCache: false };
  let at = start;
  while (at < list.length) {
    if (at + 2 > list.length) return 'short';
    const code = (list[at] as number) & 0x3f;
    const known = PAGES.find((each) => each.page === code);
    // SPF: no page here has subpages. PS is reserved for MODE SELECT: what a sense said is let pass.
    if (known === undefined || ((list[at] as number) & 0x40) !== 0) return at;
    const now = known.make(wanted);
    if (list[at + 1] !== now[1]) return at + 1;
    if (at + now.length > list.length) return 'short';
    const mask = changeableMask(unit, known);
    for (let i = 2; i < now.length; i += 1) {
      const changed = (list[at + i] as number) ^ (now[i] as number);
      if ((changed & ~(mask[i] as number)) !== 0) return at + i;
    }
    const byte2 = list[at + 2] as number;
    if (code === CACHING) {
      wanted = { ...wanted, writeCache: isWriteCacheOn(byte2), setsWriteCache: true };
    }
    if (code === CONTROL) {
      wanted = {
        ...wanted,
        descriptorSense: (byte2 & D_SENSE) !== 0,
        softwareWriteProtect: ((list[at + 4] as number) & SWP) !== 0,
      };
    }
    at += now.length;
  }
  return wanted;
}

/**
 * Makes the values hold. The write cache is switched last, and `done` comes when the switch holds (P4); if it fails,
 * nothing else has been changed back: the initiator is told, and reads the pages again.
 */
export function applyModes(
  unit: LogicalUnit,
  nexus: Nexus,
  wanted: WantedModes,
  done: (error: BlockErrorCode | null) => void,
): void {
  const before = current(unit);
  unit.modes.descriptorSense = wanted.descriptorSense;
  unit.modes.softwareWriteProtect = wanted.softwareWriteProtect;
  const changed =
    before.descriptorSense !== wanted.descriptorSense ||
    before.softwareWriteProtect !== wanted.softwareWriteProtect;
  // [SPC-4 6.11] The others are told; of the write cache the unit tells them itself, whoever switches it.
  if (changed) unit.attentions.establish(ASC.MODE_PARAMETERS_CHANGED, nexus);
  const { writeCache } = wanted;
  if (!wanted.setsWriteCache || (before.writeCache === writeCache && !wceChangeable(unit))) {
    if (wanted.setsWriteCache) unit.toldWriteCache(nexus, writeCache);
    done(null);
    return;
  }
  unit.switching = nexus;
  unit.disk.setWriteCache(writeCache, (error) => {
    unit.switching = null;
    if (error === null) unit.toldWriteCache(nexus, writeCache);
    done(error);
  });
}
