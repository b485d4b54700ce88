import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

// Records what a real NBD client and a real server say to each other, for test/transcripts/nbd:
//
//   node scripts/capture-nbd.ts --out FILE --about "nbdinfo 1.14 with nbdkit 1.32" \
//     --server 'nbdkit -f -U {socket} memory 1M' --client "nbdinfo nbd+unix:///?socket={socket}"
//
// Only the first connection is recorded. The words are split at spaces; {socket} is replaced.

const { values } = parseArgs({
  options: {
    out: { type: 'string' },
    about: { type: 'string' },
    server: { type: 'string' },
    client: { type: 'string' },
  },
});
const { out = '', about = '', server = '', client = '' } = values;
if (out === '' || server === '' || client === '') {
  process.stderr.write('usage: capture-nbd.ts --out FILE --about TEXT --server CMD --client CMD\n');
  process.exit(2);
}

function start(command: string, socket: string): ReturnType<typeof spawn> {
  const [program = '', ...words] = command
    .split(' ')
    .map((word) => word.replace('{socket}', socket));
  return spawn(program, words, { stdio: ['ignore', 'inherit', 'inherit'] });
}

const folder = mkdtempSync(join(tmpdir(), 'capture-nbd-'));
const upstream = join(folder, 'server');
const ours = join(folder, 'client');
const said: { who: 'client' | 'server'; bytes: Buffer }[] = [];

function note(who: 'client' | 'server', bytes: Buffer): void {
  const last = said.at(-1);
  if (last?.who === who) last.bytes = Buffer.concat([last.bytes, bytes]);
  else said.push({ who, bytes });
}

let connections = 0;
const proxy = net.createServer((near) => {
  const recorded = connections === 0;
  connections += 1;
  const far = net.connect(upstream);
  near.on('data', (bytes) => {
    if (recorded) note('client', bytes);
    far.write(bytes);
  });
  far.on('data', (bytes) => {
    if (recorded) note('server', bytes);
    near.write(bytes);
  });
  for (const [from, to] of [
    [near, far],
    [far, near],
  ] as const) {
    from.on('end', () => to.end());
    from.on('error', () => to.destroy());
  }
});

const running = start(server, upstream);
await sleep(1000);
await new Promise<void>((resolve) => {
  proxy.listen(ours, resolve);
});
const asking = start(client, ours);
await new Promise((resolve) => {
  asking.once('exit', resolve);
});
await sleep(200);
proxy.close();
running.kill();
rmSync(folder, { recursive: true, force: true });

const lines = [`# ${about}, captured by scripts/capture-nbd.ts`];
for (const { who, bytes } of said) {
  const hex = bytes.toString('hex').match(/.{1,80}/g) ?? [];
  lines.push('', `${who}:`, ...hex.map((row) => `  ${row}`));
}
writeFileSync(out, `${lines.join('\n')}\n`);
