import assert from 'node:assert/strict';
import test from 'node:test';
import { formatIscsiUrl, iscsiNameError, portalText } from './iscsi-name.ts';

test('iSCSI names: three forms, lower case, at most 223 bytes', () => {
  for (const name of [
    'iqn.2026-11.org.example',
    'iqn.2026-11.org.example:disk.1-a:b',
    'iqn.1991-05.com.microsoft:host',
    'iqn.2026-11.local.holdfast:a',
    'eui.02004567a425678d',
    'naa.52004567ba64678d',
    'naa.62004567ba64678d0123456789abcdef',
    `iqn.2026-11.org.example:${'x'.repeat(199)}`,
  ]) {
    assert.equal(iscsiNameError(name), null, name);
  }
  for (const [name, says] of [
    ['', /starts with/],
    ['disk', /starts with/],
    ['iqn.2026-13.org.example', /year and month/],
    ['iqn.2026-11', /year and month/],
    ['iqn.2026-11.org..example', /year and month/],
    ['iqn.2026-11.org.example:', /year and month/],
    ['iqn.2026-11.org.example:a_b', /year and month/],
    ['iqn.2026-11.org.example:a/0', /year and month/],
    ['iqn.2026-11.org.Example', /lower case/],
    ['eui.0200', /16 hex/],
    ['naa.0200', /16 or 32/],
    [`iqn.2026-11.org.example:${'x'.repeat(200)}`, /223 bytes/],
  ] as const) {
    assert.match(iscsiNameError(name) ?? '', says, name);
  }
});

test('URLs and portals: brackets for IPv6 only', () => {
  assert.equal(portalText('192.0.2.1', 3260), '192.0.2.1:3260');
  assert.equal(portalText('2001:db8::1', 860), '[2001:db8::1]:860');
  const target = 'iqn.2026-11.org.example:a';
  assert.equal(
    formatIscsiUrl({ host: '::1', port: 3260, target, lun: 3 }),
    'iscsi://[::1]:3260/iqn.2026-11.org.example:a/3',
  );
});
