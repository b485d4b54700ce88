import { Prng } from '../../src/base/prng.ts';
import { Disk } from '../../src/durability/disk.ts';
import { IscsiConnection } from '../../src/protocols/iscsi/connection.ts';
import type { IscsiTarget } from '../../src/protocols/iscsi/node.ts';
import { SessionTable } from '../../src/protocols/iscsi/session-table.ts';
import { LogicalUnit } from '../../src/protocols/scsi/logical-unit.ts';
import { PersistentReservations } from '../../src/protocols/scsi/persistent-reservations.ts';
import { ScsiTarget } from '../../src/protocols/scsi/target.ts';
import { PoisoningPool, SimClock, SimReactor } from '../sim/clock.ts';
import { SimStream } from '../sim/stream.ts';
import { FuzzClient } from './iscsi-client.ts';
import { JudgedDisk } from './iscsi-disk.ts';
import { Ledger } from './iscsi-ledger.ts';
import { type LoginKind, type LoginPlan, SECRET, soundKeys, USER } from './iscsi-login.ts';
import { fail, type FuzzTarget } from './target.ts';

const KiB = 1024;
const PAGE_BYTES = 272 * KiB;
const MAX_TURNS = 400_000;
/** Longer than any patience of the target's. */
const PATIENCE_MS = 400_000;

/** Shared by all runs of this process: what one session leaves in a page must not be seen by the next. */
const POOL_PAGES = 24;
export let pool: PoisoningPool = new PoisoningPool(PAGE_BYTES, POOL_PAGES);

const OPEN = 'iqn.2026-11.fuzz:open';
const CHAP = 'iqn.2026-11.fuzz:chap';
const CLOSED = 'iqn.2026-11.fuzz:closed';
const INITIATORS = ['iqn.2026-11.fuzz:a', 'iqn.2026-11.fuzz:b'];

interface Guest {
  readonly client: FuzzClient;
  readonly stream: SimStream;
  readonly connection: IscsiConnection;
  ended: boolean;
}

/** One node with a disk, and everybody who connects to it in one run. */
class Siege {
  readonly prng: Prng;
  readonly clock: SimClock;
  readonly reactor: SimReactor;
  readonly ledger: Ledger;
  readonly device: JudgedDisk;
  readonly unit: LogicalUnit;
  readonly targets = new Map<string, IscsiTarget>();
  readonly sessions: SessionTable;
  readonly guests: Guest[] = [];
  lines = 0;
  refusals = 0;
  #turns = MAX_TURNS;

  constructor(prng: Prng) {
    this.prng = prng;
    this.clock = new SimClock(prng);
    // What a run that failed has left behind is not this one's.
    if (pool.inUse > 0) pool = new PoisoningPool(PAGE_BYTES, POOL_PAGES);
    this.reactor = new SimReactor(this.clock, pool);
    const blockBytes = prng.chance(0.2) ? 4096 : 512;
    this.ledger = new Ledger(prng.pick([128, 128, 256]) * KiB, blockBytes, 64 * KiB);
    this.device = new JudgedDisk(this.ledger, this.clock, prng);
    const log = (line: string): void => this.#say(line);
    this.unit = new LogicalUnit({
      lun: 0,
      disk: new Disk({
        store: this.device,
        mode: prng.pick(['writeback', 'writethrough']),
      }),
      vendor: 'HOLDFAST',
      product: 'fuzzed disk',
      revision: '0.1',
      serial: 'F1',
      naa: new Uint8Array([0x30, 1, 2, 3, 4, 5, 6, 7]),
      removable: prng.chance(0.3),
      thin: prng.chance(0.7),
      reservations: new PersistentReservations({ store: null, log }),
      log,
      atomicBlocks: prng.pick([0, 8]),
      timers: this.reactor,
    });
    const open = new ScsiTarget(OPEN);
    open.addUnit(this.unit);
    const account = { user: USER, secret: Buffer.from(SECRET) };
    this.#target(OPEN, open, {});
    this.#target(CHAP, new ScsiTarget(CHAP), { chap: account });
    this.#target(CLOSED, new ScsiTarget(CLOSED), { initiators: new Set(['iqn.1999-01.x:y']) });
    this.sessions = new SessionTable(64, prng.pick([64 * KiB, 1024 * KiB, 64 * 1024 * KiB]));
  }

  connect(wildness: number, kind: LoginKind, breaksFrames: boolean): Guest {
    const { prng, ledger, reactor } = this;
    const sane = wildness === 0;
    const login: LoginPlan = {
      kind,
      initiator: sane ? 'iqn.2026-11.fuzz:sane' : prng.pick(INITIATORS),
      isid: prng.below(2),
      ...this.#goal(kind),
      keys: soundKeys(prng),
    };
    const traits = { wildness, login, breaksFrames, requests: sane ? 12 : 10 + prng.below(160) };
    const wire = {
      write: (bytes: Buffer) => stream.write(bytes),
      after: (ms: number, callback: () => void) => void this.clock.after(ms, callback),
    };
    const client = new FuzzClient(prng, ledger, wire, traits);
    const network = {
      pieceBytes: prng.pick([16, 300, 65_536, 1 << 20, 1 << 20]),
      delayMs: prng.float() * 2,
      windowBytes: prng.pick([16_384, 65_536, 1 << 20]),
    };
    const peer = {
      told: (bytes: Uint8Array) => client.told(bytes),
      heard: () => {},
      taken: () => {},
      hungUp: () => client.hungUp(),
    };
    const stream: SimStream = new SimStream(reactor, prng, network, 'tcp 192.0.2.7:40000', peer);
    const connection = new IscsiConnection(
      {
        reactor,
        node: { targets: this.targets, portals: () => ['192.0.2.1:3260'] },
        sessions: this.sessions,
        log: (line) => this.#say(line),
        ended: () => {
          if (guest.ended) fail('a connection ends twice');
          guest.ended = true;
        },
      },
      stream,
    );
    const guest: Guest = { client, stream, connection, ended: false };
    this.guests.push(guest);
    client.begin();
    return guest;
  }

  /** Until the given time, or until nothing happens any more. */
  runUntil(ms: number, enough: () => boolean = () => false): void {
    while (this.clock.nowMs() < ms && !enough()) {
      if (!this.clock.step()) return;
      this.#turns -= 1;
      if (this.#turns === 0) fail('hang: it goes on and on');
    }
  }

  #goal(kind: LoginKind): Pick<LoginPlan, 'target' | 'allowed'> {
    const { prng } = this;
    if (kind === 'chap') return { target: CHAP, allowed: true };
    if (kind === 'wrong-chap') return { target: CHAP, allowed: false };
    if (kind !== 'good') return { target: prng.pick([OPEN, CHAP, CLOSED]), allowed: true };
    return { target: OPEN, allowed: true };
  }

  #target(name: string, scsi: ScsiTarget, rest: Partial<IscsiTarget>): void {
    const none = { chap: null, mutualChap: null, initiators: null };
    this.targets.set(name, { name, alias: 'fuzzed', scsi, ...none, ...rest });
  }

  /** Log lines are for an operator's terminal, and part of them is what an initiator sent. */
  #say(line: string): void {
    this.lines += 1;
    if (line.includes('login refused')) this.refusals += 1;
    if (line.includes(SECRET)) fail('the log tells a secret');
    if (line.length > 1000 || !/^[\x20-\x7e\u00a0-\uffff]*$/u.test(line)) {
      if (!/^[\P{Cc}]*$/u.test(line)) fail(`a line not fit for a log: ${JSON.stringify(line)}`);
    }
  }
}

/** Several hostile initiators and a sane one, from the first accept to the last close. */
export const fuzzIscsiSessions: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const siege = new Siege(prng);
  const breaksFrames = prng.chance(0.15);
  const sane = prng.chance(0.6) ? siege.connect(0, 'good', false) : null;
  const count = 1 + prng.below(4);
  for (let i = 0; i < count; i += 1) {
    const begin = (): void => invade(siege, breaksFrames);
    if (i === 0) begin();
    else siege.clock.after(prng.float() * 60, begin);
  }
  conclude(siege, sane);
};

/** Nothing but logins, most of them bad. */
export const fuzzIscsiLogins: FuzzTarget = (seed) => {
  const prng = new Prng(seed);
  const siege = new Siege(prng);
  const kinds: LoginKind[] = ['wild', 'wild', 'wild', 'mutated', 'chap', 'wrong-chap', 'discovery'];
  for (let i = 0; i < 6; i += 1) {
    const guest = siege.connect(0.5, prng.pick(kinds), false);
    if (prng.chance(0.2)) siege.clock.after(prng.float() * 10, () => guest.stream.cut(false));
  }
  conclude(siege, null);
};

function invade(siege: Siege, breaksFrames: boolean): void {
  const { prng, clock } = siege;
  const kind = prng.chance(0.9) ? 'good' : prng.pick<LoginKind>(['discovery', 'chap']);
  const wildness = prng.pick([0.1, 0.4, 0.8]);
  const { stream, connection } = siege.connect(wildness, kind, breaksFrames);
  if (prng.chance(0.4)) {
    clock.after(prng.float() * 100, () => stream.cut(prng.chance(0.3)));
  }
  if (prng.chance(0.2)) clock.after(prng.float() * 30, () => stream.stall(prng.float() * 2000));
  if (prng.chance(0.02)) clock.after(prng.float() * 60, () => connection.shutdown());
}

function conclude(siege: Siege, sane: Guest | null): void {
  const { guests, device, ledger, clock } = siege;
  siege.runUntil(2000);
  for (const { client } of guests) client.hush();
  const ended = (): boolean => guests.every((guest) => guest === sane || guest.ended);
  siege.runUntil(PATIENCE_MS, ended);
  if (!ended()) fail('hang: a silent connection does not end');
  device.recover();
  siege.runUntil(clock.nowMs() + 30_000);
  if (sane !== null && !sane.ended) farewell(siege, sane);
  siege.runUntil(Infinity);
  const { sessions, unit, targets } = siege;
  if (!guests.every((guest) => guest.ended)) fail('a connection never ends');
  if (pool.inUse !== 0) fail(`leak: ${pool.inUse} pages are held by nobody`);
  if (sessions.size !== 0) fail(`leak: ${sessions.size} sessions`);
  if (sessions.budget.usedBytes !== 0) fail(`leak: ${sessions.budget.usedBytes} bytes of budget`);
  if (unit.tasks.count !== 0) fail(`leak: ${unit.tasks.count} tasks`);
  for (const { scsi } of targets.values()) if (scsi.nexuses.size !== 0) fail('leak: a nexus');
  if (unit.medium.preventers.size !== 0) fail('leak: somebody who is gone prevents removal');
  if (!device.content().equals(ledger.shadow)) fail('the disk holds something else');
  const refused = guests.filter(({ client }) => client.refusedWith !== 0).length;
  if (siege.refusals < refused) fail(`${refused} logins refused, ${siege.refusals} logged`);
  if (siege.refusals > guests.length) fail('a refusal is logged more than once');
  if (siege.lines > guests.length * 3 + 20) fail(`${siege.lines} lines in the log`);
}

/** The sane initiator has had all its answers, reads all of the disk, and logs out. */
function farewell(siege: Siege, sane: Guest): void {
  const { client } = sane;
  const { ledger, clock } = siege;
  const ask = (cdb: Buffer, bytes: number): void => {
    const direction = bytes > 0 ? 'in' : 'none';
    const command = client.command({ cdb, bytes, direction, params: null });
    siege.runUntil(clock.nowMs() + 60_000, () => client.answered(command) || sane.ended);
    if (!client.answered(command) && !sane.ended) fail('a sane command gets no answer');
  };
  if (client.state !== 'full') fail('a sane login did not succeed');
  if (client.owed > 0 && !ledger.excused) fail(`sane commands got no answer: ${client.owedText}`);
  for (let i = 0; i < 6 && !sane.ended; i += 1) ask(Buffer.alloc(6), 0);
  const blocks = 64 * KiB;
  for (let at = 0; at < ledger.sizeBytes && !sane.ended; at += blocks) {
    const cdb = Buffer.alloc(16);
    cdb[0] = 0x88;
    cdb.writeUInt32BE(at / ledger.blockBytes, 6);
    cdb.writeUInt32BE(blocks / ledger.blockBytes, 10);
    ask(cdb, blocks);
  }
  client.logout();
  siege.runUntil(clock.nowMs() + 60_000, () => sane.ended);
  if (!sane.ended) fail('a logout does not end the connection');
}
