import assert from 'node:assert/strict';
import test from 'node:test';
import { assert as holds, AssertionError, unreachable } from './assert.ts';
import { ConfigError, messageOf, ProtocolError, UsageError } from './errors.ts';
import { letEventLoopRun, setEventLoopHook } from './event-loop.ts';

test('assert passes what is true and throws an AssertionError for what is not', () => {
  holds('text', 'a text that is not empty is true');
  assert.throws(
    () => holds(false, 'broken'),
    (error) => error instanceof AssertionError,
  );
  assert.throws(() => holds(0, 'broken'), { name: 'AssertionError', message: 'broken' });
  assert.throws(() => unreachable('x' as never), { message: 'unreachable: x' });
});

test('the errors carry what their readers need', () => {
  const cause = new Error('why');
  const config = new ConfigError('what', 'do this', { cause });
  assert.deepEqual([config.name, config.hint, config.cause], ['ConfigError', 'do this', cause]);
  assert.equal(new UsageError('x').name, 'UsageError');
  const protocol = new ProtocolError('bad', 'NBD proto "Option types"');
  assert.deepEqual([protocol.name, protocol.spec], ['ProtocolError', 'NBD proto "Option types"']);
});

test('a message is one line, whatever was thrown', () => {
  assert.equal(messageOf(new Error('a\n  b\n\nc')), 'a b c');
  assert.equal(messageOf('text\nmore'), 'text more');
  assert.equal(messageOf(undefined), 'undefined');
});

test('the event loop hook is called while it is set', () => {
  let calls = 0;
  setEventLoopHook(() => {
    calls += 1;
  });
  letEventLoopRun();
  setEventLoopHook(null);
  letEventLoopRun();
  assert.equal(calls, 1);
});
