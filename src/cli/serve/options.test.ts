import assert from 'node:assert/strict';
import test from 'node:test';
import { UsageError } from '../../base/errors.ts';
import type { OptionValues } from '../parse.ts';
import { takeActivatedSockets } from './activation.ts';
import { parseDisks } from './disks.ts';
import { chooseListen, reachesBeyondHost } from './listen.ts';
import { DEFAULT_MAX_CONNECTIONS, maxConnections, parseInteger } from './options.ts';

function refused(action: () => unknown): string {
  let message = '';
  assert.throws(action, (error) => {
    assert.ok(error instanceof UsageError, String(error));
    ({ message } = error);
    return true;
  });
  return message;
}

function names(operands: string[], exportName?: string[]): [string, string][] {
  const options = exportName === undefined ? {} : { exportName };
  return parseDisks(operands, options).map((disk) => [disk.exportName, disk.disk]);
}

function listen(options: OptionValues, tls: 'off' | 'require' = 'off'): unknown {
  return chooseListen(options, [], tls);
}

function no(options: OptionValues): string {
  return refused(() => chooseListen(options, [], 'off'));
}

test('one disk is the default export, with the defaults of every option', () => {
  assert.deepEqual(parseDisks(['/images/a.img'], {}), [
    {
      disk: '/images/a.img',
      exportName: '',
      description: '',
      cache: 'writeback',
      readOnly: false,
      onSyncError: 'poison',
    },
  ]);
});

test('names: NAME=PATH, the options in order, else the file names of several disks', () => {
  assert.deepEqual(names(['root=/a']), [['root', '/a']]);
  assert.deepEqual(names(['=/a']), [['', '/a']]);
  assert.deepEqual(names(['./a=b.img']), [['', './a=b.img']]);
  assert.deepEqual(names(['a=b=c']), [['a', 'b=c']]);
  assert.deepEqual(names(['x=memory:1M']), [['x', 'memory:1M']]);
  assert.deepEqual(names(['/a'], ['vm/disk0']), [['vm/disk0', '/a']]);
  assert.deepEqual(names(['/d/a.img', '/d/b.img']), [
    ['a.img', '/d/a.img'],
    ['b.img', '/d/b.img'],
  ]);
  assert.deepEqual(names(['/a', 'n=/b', '/c'], ['one', 'two']), [
    ['one', '/a'],
    ['n', '/b'],
    ['two', '/c'],
  ]);
});

test('names that do not fit are refused', () => {
  assert.match(
    refused(() => parseDisks(['/x/a', '/y/a'], {})),
    /two disks have the export name 'a'/,
  );
  assert.match(
    refused(() => parseDisks(['/a', '/b'], { exportName: ['one'] })),
    /given 1 times for 2/,
  );
  assert.match(
    refused(() => parseDisks(['n=/a'], { exportName: ['one'] })),
    /given 1 times for 0/,
  );
  assert.match(
    refused(() => parseDisks(['/a'], { description: ['1', '2'] })),
    /2 times for 1 DISK/,
  );
  assert.match(
    refused(() => parseDisks(['/a'], { exportName: ['é'.repeat(2049)] })),
    /4096 bytes/,
  );
  assert.match(
    refused(() => parseDisks(['memory:1Q'], {})),
    /not a size: '1Q'/,
  );
  assert.match(
    refused(() => parseDisks(['a='], {})),
    /is empty/,
  );
});

test('numbers are checked against their range, digit by digit', () => {
  assert.equal(parseInteger('--port', '0', 0, 65_535), 0);
  assert.equal(parseInteger('--port', '65535', 0, 65_535), 65_535);
  for (const wrong of ['', '-1', '65536', '1e3', '0x10', ' 1', '1.0', '9'.repeat(30)]) {
    assert.match(
      refused(() => parseInteger('--port', wrong, 0, 65_535)),
      /--port must be a number from 0 to 65535/,
    );
  }
  assert.equal(maxConnections({}), DEFAULT_MAX_CONNECTIONS);
  assert.equal(maxConnections({ shared: '7' }), 7);
  assert.match(
    refused(() => maxConnections({ shared: '0' })),
    /--shared/,
  );
});

test('where to listen: loopback by default, every option adds one place', () => {
  const loopback = { kind: 'tcp', host: '127.0.0.1', port: 10_809 };
  assert.deepEqual(listen({}), [loopback]);
  assert.deepEqual(listen({ run: 'true' }), ['private']);
  assert.deepEqual(listen({ socket: '-' }), ['private']);
  assert.deepEqual(listen({ socket: '/s' }), [{ kind: 'unix', path: '/s' }]);
  assert.deepEqual(listen({ port: '0' }), [{ ...loopback, port: 0 }]);
  assert.deepEqual(listen({ bind: '::' }), [{ ...loopback, host: '::' }]);
  assert.deepEqual(
    listen({ port: '1', bind: '10.0.0.1', socket: '/s', listen: ['nbd://[::1]:2'] }),
    [
      { kind: 'tcp', host: '::1', port: 2 },
      { kind: 'tcp', host: '10.0.0.1', port: 1 },
      { kind: 'unix', path: '/s' },
    ],
  );
  assert.deepEqual(listen({ listen: ['nbd+unix:///?socket=/run/a%20b'] }), [
    { kind: 'unix', path: '/run/a b' },
  ]);
  assert.deepEqual(listen({ listen: ['nbds://127.0.0.1'] }, 'require'), [loopback]);
});

test('places that cannot be are refused', () => {
  assert.match(no({ listen: ['localhost:10809'] }), /is not nbd:\/\/HOST:PORT/);
  assert.match(no({ listen: ['nbd://localhost/disk'] }), /names an export/);
  assert.match(no({ listen: ['nbds://localhost'] }), /--tls require/);
  assert.match(no({ listen: ['nbd+unix:///'] }), /socket/);
  assert.match(no({ port: 'nbd' }), /--port must be a number/);
  assert.match(no({ bind: '' }), /--bind needs an address/);
  assert.match(no({ socket: '' }), /--socket needs a path/);
  assert.match(no({ socket: `/${'x'.repeat(107)}` }), /longer than the 107 bytes/);
});

test('only loopback and Unix sockets stay within this machine', () => {
  for (const host of ['127.0.0.1', '127.1.2.3', '::1', 'localhost']) {
    assert.equal(reachesBeyondHost({ kind: 'tcp', host, port: 1 }), false, host);
  }
  for (const host of ['0.0.0.0', '::', '10.0.0.1', 'example.org', '127.0.0.1.example.org']) {
    assert.equal(reachesBeyondHost({ kind: 'tcp', host, port: 1 }), true, host);
  }
  assert.equal(reachesBeyondHost({ kind: 'unix', path: '/s' }), false);
});

test('socket activation: the descriptors from 3 on, for this process only, once', () => {
  const env: Record<string, string | undefined> = {
    LISTEN_PID: '42',
    LISTEN_FDS: '2',
    LISTEN_FDNAMES: 'nbd:spare',
  };
  assert.deepEqual(takeActivatedSockets(env, 42), [
    { fd: 3, name: 'nbd' },
    { fd: 4, name: 'spare' },
  ]);
  assert.deepEqual(env, {});
  const other = { LISTEN_PID: '41', LISTEN_FDS: '1' };
  assert.deepEqual(takeActivatedSockets(other, 42), []);
  assert.deepEqual(other, {}, 'removed though not for us: our children would be misled');
  assert.deepEqual(takeActivatedSockets({ LISTEN_PID: '42', LISTEN_FDS: '1' }, 42), [
    { fd: 3, name: '' },
  ]);
  assert.throws(() => takeActivatedSockets({ LISTEN_PID: '42', LISTEN_FDS: 'many' }, 42), /many/);
  assert.throws(() => takeActivatedSockets({ LISTEN_PID: '42', LISTEN_FDS: '9999' }, 42), /9999/);
});

test('activated sockets replace the default and exclude the options', () => {
  const sockets = [{ fd: 3, name: '' }];
  assert.deepEqual(chooseListen({}, sockets, 'off'), [{ kind: 'fd', fd: 3 }]);
  assert.deepEqual(chooseListen({ run: 'true' }, sockets, 'off'), [{ kind: 'fd', fd: 3 }]);
  for (const options of [{ port: '1' }, { socket: '/s' }, { listen: ['nbd://localhost'] }]) {
    assert.match(
      refused(() => chooseListen(options, sockets, 'off')),
      /handed over sockets/,
    );
  }
});
