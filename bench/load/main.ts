import { parseArgs } from 'node:util';
import { parseSize } from '../../src/base/units.ts';
import { messageOf } from '../../src/base/errors.ts';
import { runCommitLoad } from './commit-load.ts';
import { Meter } from './meter.ts';
import { runStreamLoad } from './stream-load.ts';

/**
 * The load client as a process of its own, so that its processor time can be told from the server's. Prints one line
 * of JSON. Usage: main.ts --socket PATH --mode randread|randwrite|read|write|flush|fua [--bs 4k] [--depth 32]
 * [--connections 1] [--seconds 2] [--warmup 0.3] [--export NAME] [--seed 1]
 */
function main(): void {
  const { values } = parseArgs({
    options: {
      socket: { type: 'string' },
      export: { type: 'string', default: '' },
      mode: { type: 'string', default: 'randread' },
      bs: { type: 'string', default: '4k' },
      depth: { type: 'string', default: '32' },
      connections: { type: 'string', default: '1' },
      seconds: { type: 'string', default: '2' },
      warmup: { type: 'string', default: '0.3' },
      seed: { type: 'string', default: '1' },
    },
  });
  if (values.socket === undefined) throw new Error('--socket PATH is needed');
  const meter = new Meter(Number(values.warmup), Number(values.seconds));
  const common = {
    socket: values.socket,
    exportName: values.export,
    blockBytes: parseSize(values.bs),
    seed: Number(values.seed),
  };
  const mode = values.mode;
  let structured: boolean;
  if (mode === 'flush' || mode === 'fua') {
    const channels = runCommitLoad(
      { ...common, kind: mode, connections: Number(values.connections) },
      meter,
    );
    structured = channels[0]?.structured ?? false;
    for (const channel of channels) channel.close();
  } else if (mode === 'randread' || mode === 'randwrite' || mode === 'read' || mode === 'write') {
    const channel = runStreamLoad({ ...common, pattern: mode, depth: Number(values.depth) }, meter);
    structured = channel.structured;
    channel.close();
  } else {
    throw new Error(`unknown --mode ${mode}`);
  }
  process.stdout.write(`${JSON.stringify({ mode, structured, ...meter.result() })}\n`);
}

try {
  main();
} catch (error) {
  process.stderr.write(`load: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
