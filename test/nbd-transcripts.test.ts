import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import test from 'node:test';
import { Io, OP } from '../src/block/io.ts';
import { Region } from '../src/block/memory.ts';
import { describeExport } from '../src/protocols/nbd/client.ts';
import { ClientHandshake } from '../src/protocols/nbd/client-handshake.ts';
import { ClientSession } from '../src/protocols/nbd/client-session.ts';
import { ServerHandshake } from '../src/protocols/nbd/handshake.ts';
import { parseNbdUri } from '../src/protocols/nbd/uri.ts';
import { STEPS, stepBytes } from './support/nbd-client-steps.ts';
import { feed, makeExport, RecordingHost } from './support/nbd-handshake.ts';
import { formatTranscript, parseTranscript, type Turn } from './support/nbd-transcript.ts';

// Transcripts in test/transcripts/nbd. client-*.txt: a real client, recorded with a server of its own, speaks to our
// handshake; what ours answers is written down there. server-*.txt: a real server, recorded with our client.
// UPDATE=1 writes what our server says now into the files; a person reads the difference.

const folder = new URL('transcripts/nbd/', import.meta.url);
const files = readdirSync(folder).toSorted();
const update = process.env['UPDATE'] === '1';

test('there are transcripts', () => {
  assert.ok(files.filter((file) => file.startsWith('client-')).length >= 4);
  assert.ok(files.filter((file) => file.startsWith('server-')).length >= 4);
});

for (const file of files) {
  const path = new URL(file, folder);
  const { about, turns } = parseTranscript(readFileSync(path, 'utf8'));
  test(`${file}: ${about.split('\n')[0]}`, () => {
    const isClient = file.startsWith('client-');
    const said = isClient ? answerClient(turns) : answerServer(turns);
    // What our client says to a recorded server is no matter of taste.
    if (!isClient) assert.deepEqual(said, turns);
    const now = formatTranscript({ about, turns: said });
    if (update) writeFileSync(path, now);
    assert.equal(now, readFileSync(path, 'utf8'));
  });
}

/** The recorded client's turns, and what our server says to them. */
function answerClient(turns: readonly Turn[]): Turn[] {
  const host = new RecordingHost([makeExport('disk', {}, { description: 'a small disk' })]);
  const server = new ServerHandshake(host, 'off');
  server.start();
  const now: Turn[] = [{ who: 'server', bytes: host.take() }];
  for (const { who, bytes } of turns) {
    if (who !== 'client') continue;
    const rest = feed(server, bytes);
    // What is left are requests, which the handshake has nothing to do with.
    if (rest.length < bytes.length) {
      now.push({ who, bytes: bytes.subarray(0, bytes.length - rest.length) });
      now.push({ who: 'server', bytes: host.take() });
    }
    if (server.state !== 'negotiating') break;
  }
  assert.ok(server.state === 'done' || server.state === 'closed', server.state);
  return now.filter((turn) => turn.bytes.length > 0);
}

/** The recorded server's turns, and what our client says to them. */
function answerServer(turns: readonly Turn[]): Turn[] {
  let said: Uint8Array[] = [];
  const heard = turns.filter((turn) => turn.who === 'server').map((turn) => turn.bytes);
  const now: Turn[] = [];
  const say = (): void => {
    const bytes = Buffer.concat(said);
    if (bytes.length > 0) now.push({ who: 'client', bytes });
    said = [];
  };
  const hear = (): Buffer => {
    const bytes = heard.shift();
    assert.ok(bytes !== undefined, 'our client says more than when it was recorded');
    now.push({ who: 'server', bytes });
    return bytes;
  };

  const handshake = ClientHandshake.enter(
    { send: (bytes) => said.push(bytes), startTls: () => assert.fail() },
    { exportName: 'disk' },
  );
  while (!handshake.finished) {
    const bytes = hear();
    assert.equal(handshake.receive(bytes), bytes.length);
    say();
  }
  const info = describeExport(parseNbdUri('nbd:///disk'), handshake.outcome);
  const session = new ClientSession(handshake.outcome, info, {
    wake: () => undefined,
    broken: (reason) => assert.fail(reason),
  });
  const speak = (): void => {
    const page = new Uint8Array(65536);
    said.push(page.subarray(0, session.fill(page)));
    say();
  };
  for (const [index, [op, offset, length, flags]] of STEPS.entries()) {
    const io = new Io();
    io.reset(op, offset, length, flags);
    const transfers = op === OP.READ || op === OP.WRITE;
    if (transfers) io.segments.push(Region.plain(stepBytes(index, length)), 0, length);
    io.push({ ioDone: () => undefined });
    session.submit(io);
    speak();
    while (io.inFlight) {
      session.receive(hear());
      speak();
    }
    assert.equal(io.error, null, `step ${index}`);
  }
  session.disconnect();
  speak();
  assert.equal(heard.length, 0, 'the server said more');
  return now;
}
