import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Prng } from '../../src/base/prng.ts';
import { flush, read, write } from '../../src/block/await.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { FLAG } from '../../src/block/io.ts';
import { askControl } from '../../src/cli/serve/control-socket.ts';
import {
  CUT_MODELS,
  type CutModel,
  type CutReport,
} from '../../src/layers/volatile-cache/requests.ts';
import { connectNbd } from '../../src/protocols/nbd/client.ts';
import { connectVhostUserBlk } from '../../src/protocols/vhost-user/blk-client.ts';
import { openReactor } from '../../src/reactor/open.ts';
import { onBothReactors } from './support/both.ts';
import { makeImage, startHoldfast, workspace, type ReactorKind } from './support/holdfast.ts';

// The power of a disk is cut while clients write and flush: what was promised is there, and whatever else is there was
// written since. Per unit of 512 bytes, for that is what tears.

const UNIT = 512;
/** Units of one write. */
const WIDTH = 8;
const BLOCKS = 128;
const UNITS = BLOCKS * WIDTH;
const CLIENTS = 4;
const SEEDS = 20;
const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');

type Connect = () => Promise<BlockDevice>;

/** Which version each unit was sent, which was answered, and which is promised. */
class Ledger {
  readonly sent = new Uint32Array(UNITS);
  readonly answered = new Uint32Array(UNITS);
  readonly promised = new Uint32Array(UNITS);
  flushes = 0;

  promise(from: Uint32Array): void {
    for (let i = 0; i < UNITS; i += 1) {
      this.promised[i] = Math.max(this.promised[i] as number, from[i] as number);
    }
  }
}

/** What a unit holds: where it belongs and which version it is, in every word. */
function stamp(target: DataView, at: number, unit: number, version: number): void {
  for (let i = 0; i < UNIT; i += 8) {
    target.setUint32(at + i, unit);
    target.setUint32(at + i + 4, version);
  }
}

/** Writes its own blocks, several at once, and flushes now and then, until the connection is gone. */
async function work(device: BlockDevice, ledger: Ledger, own: number, seed: number): Promise<void> {
  const prng = new Prng(seed);
  try {
    for (;;) {
      const blocks = new Set<number>();
      const count = 1 + prng.below(6);
      while (blocks.size < count) blocks.add(prng.below(BLOCKS / CLIENTS) * CLIENTS + own);
      await Promise.all([...blocks].map((block) => writeBlock(device, ledger, block, prng)));
      if (!prng.chance(0.3)) continue;
      const covered = ledger.answered.slice();
      await flush(device);
      ledger.promise(covered);
      ledger.flushes += 1;
    }
  } catch {
    // The power is gone: what the test is about.
  }
}

async function writeBlock(
  device: BlockDevice,
  ledger: Ledger,
  block: number,
  prng: Prng,
): Promise<void> {
  const bytes = new Uint8Array(WIDTH * UNIT);
  const view = new DataView(bytes.buffer);
  const versions: number[] = [];
  for (let i = 0; i < WIDTH; i += 1) {
    const unit = block * WIDTH + i;
    const version = (ledger.sent[unit] as number) + 1;
    ledger.sent[unit] = version;
    versions.push(version);
    stamp(view, i * UNIT, unit, version);
  }
  const fua = prng.chance(0.1);
  await write(device, block * WIDTH * UNIT, bytes, fua ? FLAG.FUA : 0);
  for (const [i, version] of versions.entries()) {
    const unit = block * WIDTH + i;
    ledger.answered[unit] = version;
    if (fua) ledger.promised[unit] = version;
  }
}

/** Looks at every unit, and takes what is there for what counts from now on. Returns the units that lost something. */
async function check(device: BlockDevice, ledger: Ledger, garbage: number): Promise<number> {
  const bytes = await read(device, 0, UNITS * UNIT);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const expected = new Uint8Array(UNIT);
  let lost = 0;
  let strange = 0;
  for (let unit = 0; unit < UNITS; unit += 1) {
    const version = view.getUint32(unit * UNIT + 4);
    if (version === 0) expected.fill(0);
    else stamp(new DataView(expected.buffer), 0, unit, version);
    const found = bytes.subarray(unit * UNIT, (unit + 1) * UNIT);
    const legal = Buffer.compare(found, expected) === 0 && version <= (ledger.sent[unit] as number);
    if (!legal) {
      strange += 1;
    } else {
      const promised = ledger.promised[unit] as number;
      assert.ok(
        version >= promised,
        `unit ${unit}: version ${promised} was stable, ${version} is there`,
      );
      if (version < (ledger.answered[unit] as number)) lost += 1;
    }
    const now = legal ? version : 0;
    for (const list of [ledger.answered, ledger.promised]) list[unit] = now;
    if (!legal) await write(device, unit * UNIT, new Uint8Array(UNIT), FLAG.FUA);
  }
  assert.equal(strange, garbage, 'units that hold what nobody wrote');
  return lost;
}

async function cut(control: string, seed: number, model: CutModel): Promise<CutReport> {
  const answer = await askControl(control, { op: 'cut', export: '', seed, model, offForMs: 0 });
  assert.ok(answer.ok && 'cut' in answer, JSON.stringify(answer));
  return answer.cut;
}

async function rounds(connect: Connect, control: string): Promise<void> {
  const ledger = new Ledger();
  let [lost, kept, torn] = [0, 0, 0];
  let before: Uint8Array | null = null;
  for (let seed = 0; seed < SEEDS; seed += 1) {
    const model = CUT_MODELS[seed % CUT_MODELS.length] as CutModel;
    const devices = await Promise.all(Array.from({ length: CLIENTS }, connect));
    // What was in flight when the power went has not come since.
    const now = await read(devices[0] as BlockDevice, 0, UNITS * UNIT);
    assert.ok(before === null || Buffer.compare(now, before) === 0, 'something came after the cut');
    const workers = devices.map((device, own) => work(device, ledger, own, seed * CLIENTS + own));
    await sleep(40 + seed * 3);
    const report = await cut(control, seed, model);
    await Promise.all(workers);
    await Promise.all(devices.map((device) => device.close()));
    const device = await connect();
    lost += await check(device, ledger, report.garbage);
    before = await read(device, 0, UNITS * UNIT);
    await device.close();
    kept += report.kept;
    torn += report.torn;
  }
  assert.ok(ledger.flushes > SEEDS, `${ledger.flushes} flushes mean nothing`);
  assert.ok(lost > 0 && kept > 0 && torn > 0, `lost ${lost}, kept ${kept}, torn ${torn}`);
}

async function reactorFor(t: TestContext, kind: ReactorKind) {
  const { reactor } = await openReactor(kind, {});
  t.after(() => reactor.close());
  return reactor;
}

onBothReactors('20 cuts under load over NBD: what was flushed is there', [], async (t, kind) => {
  const folder = workspace(t);
  const control = join(folder, 'control');
  const args = [makeImage(folder, 8), '--volatile-cache', '--control', control];
  const server = await startHoldfast(t, args, { reactor: kind });
  const reactor = await reactorFor(t, 'portable');
  await rounds(() => connectNbd(reactor, server.uri()), control);
  await server.stop();
});

test('20 cuts under load over vhost-user', { timeout: 120_000 }, async (t) => {
  const folder = workspace(t);
  const control = join(folder, 'control');
  const path = join(folder, 'vm');
  const image = makeImage(folder, 8);
  const listen = ['--listen', `vhost-user-blk:${path}`];
  const server = await startHoldfast(t, [
    image,
    '--volatile-cache',
    '--control',
    control,
    ...listen,
  ]);
  const reactor = await reactorFor(t, 'io_uring');
  // A ring has one reader: the clients share a device, and whoever comes first connects.
  let device: Promise<BlockDevice> | null = null;
  let users = 0;
  await rounds(async () => {
    device ??= connectVhostUserBlk(reactor, path);
    const shared = await device;
    users += 1;
    return {
      get info() {
        return shared.info;
      },
      submit: (io) => shared.submit(io),
      close: async () => {
        users -= 1;
        if (users > 0) return;
        device = null;
        await shared.close();
      },
    };
  }, control);
  await server.stop();
});

onBothReactors('the commands, as people type them', [], async (t, kind) => {
  const folder = workspace(t);
  const control = join(folder, 'control');
  const image = makeImage(folder, 8);
  const args = [image, '--volatile-cache=16M', '--control', control];
  const server = await startHoldfast(t, args, { reactor: kind });
  assert.match(server.stderr, /warning: .*disk\.img: --volatile-cache: this disk loses unflushed/);
  assert.match(server.stdout, /; volatile cache of 16 MiB/);
  const reactor = await reactorFor(t, 'portable');
  const client = await connectNbd(reactor, server.uri());
  await write(client, 0, new Uint8Array(4096).fill(1), FLAG.FUA);
  await write(client, 0, new Uint8Array(4096).fill(2));
  const words = ['lab', 'cut', control, '--seed', '7', '--after', '100ms', '--off-for', '500ms'];
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [MAIN, ...words]);
  const report = JSON.parse(stdout) as CutReport;
  assert.deepEqual([report.seed, report.model, report.units], [7, 'M2', 8]);
  assert.equal(report.kept + report.dropped, 8);
  assert.match(stderr, /power cut with seed 7, model M2: of 8 unflushed units in 1 writes/);
  await assert.rejects(read(client, 0, 512));
  await client.close();
  // The disk is away for half a second: who comes waits.
  const again = await connectNbd(reactor, server.uri());
  const bytes = await read(again, 0, 4096);
  const kept = Array.from({ length: 8 }, (_, i) => bytes[i * UNIT]).filter((tag) => tag === 2);
  assert.equal(kept.length, report.kept);

  const fail = ['lab', 'fail-flush', control, '--once', '--data', 'drop'];
  await promisify(execFile)(process.execPath, [MAIN, ...fail]);
  await write(again, 0, new Uint8Array(4096).fill(3));
  await assert.rejects(flush(again), { code: 'EIO' });
  await assert.rejects(write(again, 4096, new Uint8Array(512)), { code: 'EIO' });
  assert.deepEqual(await read(again, 0, 4096), bytes);
  await again.close();
  await promisify(execFile)(process.execPath, [MAIN, 'resume', control, '--yes']);
  await server.stop();
  const plain = await startHoldfast(t, [image, '--control', control], { reactor: kind });
  const client2 = await connectNbd(reactor, plain.uri());
  assert.deepEqual(await read(client2, 0, 4096), bytes);
  const refused = promisify(execFile)(process.execPath, [MAIN, 'lab', 'cut', control]);
  await assert.rejects(refused, /no volatile cache to lose.*|--volatile-cache/);
  await client2.close();
  await plain.stop();
});
