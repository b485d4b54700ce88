import type { BlockDevice } from '../../src/block/device.ts';
import { FLAG, Io, OP } from '../../src/block/io.ts';
import { Region } from '../../src/block/memory.ts';
import { ChangeGate } from '../../src/protocols/fuse/change-gate.ts';
import { FuseConnection } from '../../src/protocols/fuse/connection.ts';
import { FuseRequest, type OpenFile, Part } from '../../src/protocols/fuse/request.ts';
import type { FuseFile, FuseSource } from '../../src/protocols/fuse/source.ts';
import { FUSE_OP } from '../../src/protocols/fuse/wire.ts';
import type { FuseWorld, ProgramTraits } from './fuse-scenario.ts';
import type { FuseFaults } from './fuse-server.ts';
import { ForgetfulDisk, type Mistake } from './mistakes.ts';
import type { Scenario } from './scenario.ts';
import type { Faults } from './server.ts';

// Mistakes of a FUSE server, to be put into the simulated one from outside: the simulator must find each of them.

const writeback = (scenario: Scenario): Scenario => ({
  ...scenario,
  mode: 'writeback',
  policy: 'poison',
});

/** More of what the mistake is about. */
function doing(
  changes: Partial<ProgramTraits>,
  world: Partial<FuseWorld> = {},
): Pick<Faults, 'tune' | 'tuneFuse'> {
  const tuneFuse = (planned: FuseWorld): FuseWorld => ({
    ...planned,
    ...world,
    mounts: planned.mounts.map(({ programs }) => ({
      programs: programs.map((traits) => ({ ...traits, ...changes })),
    })),
  });
  return { tune: writeback, tuneFuse };
}

const submits = (
  submit: NonNullable<FuseFaults['submit']>,
  changes: Partial<ProgramTraits> = {},
): Faults => ({ fuse: { submit }, ...doing(changes) });

/** Mutations for which `which` is true go down without FUA. */
const withoutFua = (
  which: (request: FuseRequest, io: Io) => boolean,
  changes: Partial<ProgramTraits>,
): Faults =>
  submits((io, request, submit) => {
    if (io.mutates && which(request, io)) io.flags &= ~FLAG.FUA;
    submit(io);
  }, changes);

/** A source whose files are replaced. */
function withFiles(source: FuseSource, replace: (file: FuseFile) => FuseFile): FuseSource {
  return {
    sizeBytes: source.sizeBytes,
    preferredBytes: source.preferredBytes,
    readOnly: source.readOnly,
    open: (writable, opened) =>
      source.open(writable, (file, refused) => {
        opened(file === null ? null : replace(file), refused);
      }),
  };
}

/** A flush counts the writes of its own open alone. */
function flushingOwnWrites(device: BlockDevice): BlockDevice {
  let wrote = false;
  return {
    get info() {
      return device.info;
    },
    submit: (io) => {
      const needless = io.op === OP.FLUSH && !wrote;
      if (io.mutates) wrote = true;
      if (needless) io.complete(null);
      else device.submit(io);
    },
    close: () => device.close(),
  };
}

/** All opens of a mount get the session of the first, which never ends. */
function oneSession(source: FuseSource): FuseSource {
  let first: FuseFile | null = null;
  return withFiles(source, (file) => {
    first ??= { device: file.device, close: () => {} };
    return first;
  });
}

/** The same write, of which nobody hears any more. */
function orphan(io: Io, request: FuseRequest): Io {
  const bytes = new Uint8Array(io.length);
  io.segments.copyTo(bytes);
  const made = new Io();
  made.reset(io.op, io.offset, io.length, io.flags);
  made.segments.push(Region.plain(bytes), 0, bytes.length);
  const part = new Part();
  part.request = { uniqueLow: request.uniqueLow } as FuseRequest;
  made.context = part;
  made.push({ ioDone: () => {} });
  return made;
}

/** What a class has before it is changed. */
function methodOf<T extends object, K extends keyof T>(prototype: T, name: K): T[K] {
  return Object.getOwnPropertyDescriptor(prototype, name)?.value as T[K];
}

/** Nothing waits at the gate, or only what changes parts of blocks does. */
function openGate(forAll: boolean): () => () => void {
  const passes = (alone: boolean): boolean => forAll || !alone;
  return () => {
    const enter = methodOf(ChangeGate.prototype, 'enter');
    const leave = methodOf(ChangeGate.prototype, 'leave');
    ChangeGate.prototype.enter = function (change) {
      return passes(change.gateAlone) || enter.call(this, change);
    };
    ChangeGate.prototype.leave = function (change) {
      if (!passes(change.gateAlone)) leave.call(this, change);
    };
    return () => Object.assign(ChangeGate.prototype, { enter, leave });
  };
}

/** Payloads and data are in pages that anybody may take. */
function unheldPages(): () => void {
  const hold = methodOf(FuseRequest.prototype, 'hold');
  const releasePages = methodOf(FuseRequest.prototype, 'releasePages');
  FuseRequest.prototype.hold = function (page, start) {
    this.pages[this.pageCount] = page;
    this.starts[this.pageCount] = start;
    this.pageCount += 1;
  };
  FuseRequest.prototype.releasePages = function () {
    this.pageCount = 0;
  };
  return () => Object.assign(FuseRequest.prototype, { hold, releasePages });
}

/** A mount that was ended by force keeps its opens until its last request is done. */
function keepsOpens(): () => void {
  const gone = methodOf(FuseConnection.prototype, 'gone');
  FuseConnection.prototype.gone = function () {
    this.over(null);
  };
  return () => Object.assign(FuseConnection.prototype, { gone });
}

const ofParts = { maxSectors: 6, hotSectors: 12, zeroShare: 0.1, readShare: 0.3 } as const;
const forced = { aborts: 8, cuts: 0 } as const;

/** Each by name, with the word that the oracle's verdict has to contain. */
export const FUSE_MISTAKES: Readonly<Record<string, Mistake>> = {
  'fsync is answered without a flush': {
    faults: submits((io, _request, submit) => {
      if (io.op === OP.FLUSH) io.complete(null);
      else submit(io);
    }),
    verdict: /P1|P5/,
  },
  'an fsync that failed is answered with success': {
    faults: {
      ...submits((io, _request, submit) => {
        if (io.op === OP.FLUSH) io.push({ ioDone: (done) => done.complete(null) });
        submit(io);
      }),
      tune: (scenario) => ({
        ...writeback(scenario),
        disk: { ...scenario.disk, syncFails: 0.2 },
      }),
    },
    verdict: /P1|P5/,
  },
  'fsync covers the writes of its own open alone': {
    faults: {
      fuse: {
        source: (source) =>
          withFiles(source, (file) => ({
            device: flushingOwnWrites(file.device),
            close: () => file.close(),
          })),
      },
      ...doing({ flushShare: 0.3 }),
    },
    verdict: /P1|P5/,
  },
  'O_DSYNC: the write goes without FUA': {
    faults: withoutFua(({ open }) => (open as OpenFile).stable, { stableOpens: 1 }),
    verdict: /P2/,
  },
  'RWF_DSYNC is not looked at': {
    faults: withoutFua(({ open }) => !(open as OpenFile).stable, { stableWrites: 0.5 }),
    verdict: /P2/,
  },
  'O_DSYNC: fallocate(2), which has no such flag, goes without FUA': {
    faults: withoutFua(({ opcode }) => opcode === FUSE_OP.FALLOCATE, {
      stableOpens: 1,
      zeroShare: 0.5,
    }),
    verdict: /P2/,
  },
  'O_DSYNC: of a write in parts the last alone goes with FUA': {
    faults: withoutFua(({ offset, length }, io) => io.offset + io.length < offset + length, {
      stableOpens: 1,
      maxSectors: 20,
    }),
    verdict: /P2/,
  },
  'a write is answered before the device has it': {
    faults: submits((io, request, submit) => {
      if (io.op === OP.WRITE && !request.gateAlone) {
        submit(orphan(io, request));
        io.complete(null);
      } else submit(io);
    }),
    verdict: /P11|P2|P9|only \d+ of its sectors/,
  },
  'RELEASE ends the session while requests are in flight': {
    faults: submits(
      (io, { open }, submit) => {
        (open as OpenFile).users = 0;
        submit(io);
      },
      { closes: 0.2, hasty: 1 },
    ),
    verdict: /failed with errno 108/,
  },
  'parts of blocks: two changes of one block at a time': {
    faults: { patch: openGate(true), ...doing(ofParts) },
    verdict: /had replaced|was promised/,
  },
  'parts of blocks: writes of whole blocks do not wait for them': {
    faults: { patch: openGate(false), ...doing({ ...ofParts, maxSectors: 24 }) },
    verdict: /had replaced|was promised/,
  },
  'zeroes: a part of a block is left as it was': {
    faults: submits(
      (io, { opcode }, submit) => {
        if (opcode === FUSE_OP.FALLOCATE && io.op === OP.WRITE) io.complete(null);
        else submit(io);
      },
      { zeroShare: 0.5 },
    ),
    verdict: /had replaced|was promised|of its sectors were written/,
  },
  'the memory of a request is not held': {
    faults: { patch: unheldPages, ...doing({ depth: 16 }) },
    verdict: /foreign bytes|nobody wrote|changed while the kernel had it|an answer/,
  },
  'P9: all opens have one session': {
    faults: {
      fuse: { source: oneSession },
      ...doing({ flushShare: 0.1 }, { aborts: 0, cuts: 0 }),
      tune: (scenario) => ({ ...writeback(scenario), mode: 'until-flush' }),
    },
    verdict: /P9/,
  },
  'P11: a mount that was ended by force keeps its opens': {
    faults: { patch: keepsOpens, ...doing({}, forced) },
    verdict: /P11|had replaced/,
  },
  'P11: whether a mount was ended by force is not looked for': {
    faults: { fuse: { unfenced: true }, ...doing({}, forced) },
    verdict: /P11|had replaced/,
  },
  'P11: the next mount does not wait for what is in flight on the last': {
    faults: { makeDisk: (options) => new ForgetfulDisk(options), ...doing({}, forced) },
    verdict: /P11|had replaced/,
  },
};

const crashing = (scenario: Scenario): Scenario => ({
  ...writeback(scenario),
  chaos: { ...scenario.chaos, hostCrashes: 8 },
});

function unseen(name: string, verdict: RegExp, tune: (scenario: Scenario) => Scenario): Mistake {
  const { faults } = FUSE_MISTAKES[name] as Mistake;
  return { faults: { ...faults, blind: true, tune }, verdict };
}

/** The same seen from outside only: from what programs read and from what power cuts leave. */
export const FUSE_SEEN_FROM_OUTSIDE: typeof FUSE_MISTAKES = {
  'fsync is answered without a flush': unseen(
    'fsync is answered without a flush',
    /the power cut left/,
    (scenario) => ({
      ...crashing(scenario),
      disk: { ...scenario.disk, syncFails: 0, writeFails: 0 },
    }),
  ),
  'O_DSYNC: the write goes without FUA': unseen(
    'O_DSYNC: the write goes without FUA',
    /the power cut left/,
    crashing,
  ),
  'P11: a mount that was ended by force keeps its opens': unseen(
    'P11: a mount that was ended by force keeps its opens',
    /had replaced|was promised/,
    writeback,
  ),
};
