#!/usr/bin/env node
import './node-version.ts';

const { main } = await import('./run.ts');
await main(process.argv.slice(2));
