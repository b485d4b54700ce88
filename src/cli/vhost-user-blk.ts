#!/usr/bin/env node
import './node-version.ts';

// The command `holdfast vhost-user-blk` as a program of its own: management software knows a path, and no command.
const { main } = await import('./run.ts');
await main(['vhost-user-blk', ...process.argv.slice(2)]);
