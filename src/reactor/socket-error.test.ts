import assert from 'node:assert/strict';
import test from 'node:test';
import { formatLocal } from './socket-error.ts';

test('an IPv4 address on an IPv6 socket is shown as what it is', () => {
  assert.equal(formatLocal('192.0.2.1', 3260), '192.0.2.1:3260');
  assert.equal(formatLocal('::ffff:192.0.2.1', 3260), '192.0.2.1:3260');
  assert.equal(formatLocal('0:0:0:0:0:ffff:c000:201', 1), '192.0.2.1:1');
  assert.equal(formatLocal('0:0:0:0:0:ffff:7f00:1', 1), '127.0.0.1:1');
  assert.equal(formatLocal('::1', 3260), '[::1]:3260');
  assert.equal(formatLocal('2001:db8:0:0:0:ffff:c000:201', 1), '[2001:db8:0:0:0:ffff:c000:201]:1');
});
