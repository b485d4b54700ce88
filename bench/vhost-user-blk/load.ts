import { parseArgs } from 'node:util';
import { messageOf } from '../../src/base/errors.ts';
import { letEventLoopRun } from '../../src/base/event-loop.ts';
import { parseSize } from '../../src/base/units.ts';
import { Io, type IoOwner, OP } from '../../src/block/io.ts';
import type { Region } from '../../src/block/memory.ts';
import {
  connectVhostUserBlk,
  type VhostUserBlkDevice,
} from '../../src/protocols/vhost-user/blk-client.ts';
import { openReactor } from '../../src/reactor/open.ts';
import { Meter } from '../load/meter.ts';

/**
 * The load client over vhost-user as a process of its own, so that its processor time can be told from the server's: our
 * driver, with data where the device reaches it, as a guest's. Prints one line of JSON. Usage: load.ts --socket PATH
 * --mode randread|randwrite|read|write|flush [--bs 4k] [--depth 32] [--queues 1] [--packed] [--seconds 2] [--warmup 0.3]
 *
 * `depth` requests are kept on their way in each queue. flush: each of them is a program that writes a block, waits,
 * flushes, waits; that is one commit.
 */
interface Load {
  readonly mode: 'randread' | 'randwrite' | 'read' | 'write' | 'flush';
  readonly blockBytes: number;
  readonly blocks: number;
  readonly random: boolean;
}

/** One request after the other through one queue, until the meter says stop. */
class Worker implements IoOwner {
  readonly #load: Load;
  readonly #run: Run;
  readonly #queue: number;
  readonly #region: Region;
  readonly #io: Io = new Io();
  #startedUs = 0;

  constructor(load: Load, run: Run, queue: number, region: Region) {
    this.#load = load;
    this.#run = run;
    this.#queue = queue;
    this.#region = region;
  }

  start(nowUs: number): void {
    const { mode, blockBytes } = this.#load;
    this.#startedUs = nowUs;
    const op = mode === 'read' || mode === 'randread' ? OP.READ : OP.WRITE;
    this.#io.reset(op, this.#run.nextBlock() * blockBytes, blockBytes, 0);
    this.#io.segments.push(this.#region, 0, blockBytes);
    this.#submit();
  }

  #submit(): void {
    this.#io.push(this);
    this.#run.device.submitTo(this.#io, this.#queue);
  }

  ioDone(io: Io): void {
    if (io.error !== null) {
      this.#run.failed(io.error);
      return;
    }
    if (this.#load.mode === 'flush' && io.op === OP.WRITE && !this.#run.over) {
      io.reset(OP.FLUSH, 0, 0, 0);
      this.#submit();
      return;
    }
    const nowUs = this.#run.done(this.#startedUs);
    if (!this.#run.over) this.start(nowUs);
  }
}

/** All workers of one run. */
class Run {
  readonly device: VhostUserBlkDevice;
  over = false;
  readonly #load: Load;
  readonly #meter: Meter;
  readonly #finished: (error: Error | null) => void;
  #busy = 0;
  #state: number;
  #position = 0;

  constructor(
    device: VhostUserBlkDevice,
    load: Load,
    meter: Meter,
    finished: (error: Error | null) => void,
  ) {
    this.device = device;
    this.#load = load;
    this.#meter = meter;
    this.#finished = finished;
    this.#state = 0x9e3779b9;
  }

  start(queues: number, depth: number): void {
    const workers: Worker[] = [];
    for (let i = 0; i < queues * depth; i += 1) {
      const region = this.device.allocate(this.#load.blockBytes);
      for (let at = 0; at < region.bytes.length; at += 1) region.bytes[at] = (at * 31 + i) & 0xff;
      workers.push(new Worker(this.#load, this, i % queues, region));
    }
    this.#busy = workers.length;
    const nowUs = this.#meter.start();
    for (const worker of workers) worker.start(nowUs);
  }

  nextBlock(): number {
    const { blocks, random } = this.#load;
    if (!random) {
      this.#position = this.#position + 1 === blocks ? 0 : this.#position + 1;
      return this.#position;
    }
    // xorshift32 (Marsaglia 2003): the client must not be the bottleneck.
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % blocks;
  }

  /** Counts, and says what time it is. */
  done(startedUs: number): number {
    const nowUs = this.#meter.nowUs();
    // The books close once; what is still under way is only waited for.
    if (!this.over) this.over = this.#meter.over(nowUs);
    if (!this.over) {
      this.#meter.done(nowUs - startedUs, this.#load.blockBytes);
      return nowUs;
    }
    this.#busy -= 1;
    if (this.#busy === 0) this.#end(null);
    return nowUs;
  }

  failed(code: string): void {
    this.over = true;
    this.#end(new Error(`a request failed: ${code}`));
  }

  #end(error: Error | null): void {
    this.#finished(error);
    letEventLoopRun();
  }
}

function modeOf(text: string): Load['mode'] {
  const modes = ['randread', 'randwrite', 'read', 'write', 'flush'] as const;
  const mode = modes.find((one) => one === text);
  if (mode === undefined) throw new Error(`unknown --mode ${text}`);
  return mode;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      socket: { type: 'string' },
      mode: { type: 'string', default: 'randread' },
      bs: { type: 'string', default: '4k' },
      depth: { type: 'string', default: '32' },
      queues: { type: 'string', default: '1' },
      packed: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '2' },
      warmup: { type: 'string', default: '0.3' },
    },
  });
  if (values.socket === undefined) throw new Error('--socket PATH is needed');
  const mode = modeOf(values.mode);
  const blockBytes = parseSize(values.bs);
  const queues = Number(values.queues);
  const depth = Number(values.depth);
  const { reactor } = await openReactor('io_uring');
  const device = await connectVhostUserBlk(reactor, values.socket, {
    queues,
    packed: values.packed,
    inFlight: queues * depth,
    memoryBytes: queues * depth * (blockBytes + 4096),
    // Its own room for data is not used.
    maxTransferBytes: blockBytes,
  });
  // What qemu-storage-daemon says at first is not what it does (bench/vhost-user-blk/write-cache.ts).
  if (device.config.writeback === 0) await device.setWriteback(true);
  const random = mode === 'flush' || mode.startsWith('rand');
  const blocks = Math.floor(device.info.sizeBytes / blockBytes);
  const meter = new Meter(Number(values.warmup), Number(values.seconds));
  await new Promise<void>((resolve, reject) => {
    const load = { mode, blockBytes, blocks, random };
    const run = new Run(device, load, meter, (error) => {
      if (error === null) resolve();
      else reject(error);
    });
    run.start(queues, depth);
    letEventLoopRun();
  });
  await device.close();
  await reactor.close();
  process.stdout.write(`${JSON.stringify({ mode, ...meter.result() })}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`load: ${messageOf(error)}\n`);
  process.exit(1);
}
