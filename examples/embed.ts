import { startServer } from '../src/index.ts';

// A server inside a program of your own: one disk in memory, on a port that the kernel chooses.
//
//   node examples/embed.ts
//   nbdinfo URI

const server = await startServer(
  {
    disks: [
      {
        disk: 'memory:64M',
        exportName: 'scratch',
        description: 'gone when the program ends',
        cache: 'writeback',
        readOnly: false,
        onSyncError: 'poison',
      },
    ],
    listen: [{ protocol: 'nbd', address: { kind: 'tcp', host: '127.0.0.1', port: 0 } }],
    tlsMode: 'off',
    maxConnections: 16,
    reactor: 'auto',
  },
  (level, line) => process.stderr.write(`${level}: ${line}\n`),
);
process.stdout.write(`${server.uris.join('\n')}\n`);
process.once('SIGINT', () => void server.stop());
await server.stopped;
for (const counters of await server.counters()) {
  process.stderr.write(`${counters.export}: ${counters.reads} reads, ${counters.writes} writes\n`);
}
