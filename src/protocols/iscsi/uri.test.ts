import assert from 'node:assert/strict';
import test from 'node:test';
import { UsageError } from '../../base/errors.ts';
import { formatIscsiUri, isIscsiUri, parseIscsiUri } from './uri.ts';

const NAME = 'iqn.2026-11.org.example:disk';

function plain(text: string): object {
  const { parameters, ...rest } = parseIscsiUri(text);
  return { ...rest, parameters: Object.fromEntries(parameters) };
}

test('what libiscsi and QEMU accept', () => {
  const base = { host: 'host', port: 3260, target: NAME, lun: 0, user: null, password: null };
  assert.deepEqual(plain(`iscsi://host/${NAME}/0`), { ...base, parameters: {} });
  assert.deepEqual(plain(`iscsi://[2001:db8::1]:860/${NAME}/16383`), {
    ...base,
    host: '2001:db8::1',
    port: 860,
    lun: 16_383,
    parameters: {},
  });
  assert.deepEqual(plain(`ISCSI://alice%pass:word@192.0.2.1/${NAME}/1?header_digest=crc32c`), {
    ...base,
    host: '192.0.2.1',
    lun: 1,
    user: 'alice',
    password: 'pass:word',
    parameters: { header_digest: 'crc32c' },
  });
  assert.equal(parseIscsiUri(`iscsi://alice:pw@host/${NAME}/1`).password, 'pw');
  assert.equal(parseIscsiUri(`iscsi://alice@host/${NAME}/1`).password, null);
  assert.equal(parseIscsiUri('iscsi://h/IQN.2026-11.org.example%3Adisk/1').target, NAME);
  assert.equal(parseIscsiUri('iscsi://h/eui.02004567a425678d/1').target, 'eui.02004567a425678d');
});

test('what is written is read, but for the secrets', () => {
  const text = `iscsi://alice@[2001:db8::1]:860/${NAME}/5?data_digest=crc32c&auth=sha-256`;
  assert.equal(formatIscsiUri(parseIscsiUri(text)), text);
  const secret = `iscsi://alice%geheim@host/${NAME}/5?target_user=bob&target_password=geheim`;
  const shown = formatIscsiUri(parseIscsiUri(secret));
  assert.equal(shown, `iscsi://alice@host:3260/${NAME}/5?target_user=bob`);
});

test('mistakes are named, and no password is shown', () => {
  const mistakes: readonly (readonly [string, RegExp])[] = [
    ['iscsi://host', /form iscsi:/],
    [`iscsi://host/${NAME}`, /form iscsi:/],
    [`iscsi:///${NAME}/0`, /form iscsi:/],
    [`iscsi://host:0/${NAME}/0`, /port/],
    [`iscsi://host:65536/${NAME}/0`, /port/],
    [`iscsi://host/${NAME}/16384`, /LUN/],
    [`iscsi://host/${NAME}/one`, /LUN/],
    ['iscsi://host/disk/0', /starts with 'iqn\.'/],
    ['iscsi://host/iqn.2026-13.org.example/0', /year and month/],
    ['iscsi://host/iqn%zz/0', /%25/],
    [`iscsi://host/${NAME}/0?iser`, /parameter/],
    [`iscsi://host/${NAME}/0?auth=md4`, /auth/],
    [`iscsi://alice%geheim@host/${NAME}/x?target_password=geheim`, /LUN/],
    [`iscsi://alice%geh/eim@host/${NAME}/0`, /form iscsi:/],
  ];
  for (const [text, message] of mistakes) {
    assert.throws(
      () => parseIscsiUri(text),
      (error) => {
        assert.ok(error instanceof UsageError);
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /geheim|geh\/eim/);
        return true;
      },
      text,
    );
  }
});

test('an iSCSI URI is told by its scheme', () => {
  assert.ok(isIscsiUri('iscsi://x') && isIscsiUri('ISCSI:x'));
  assert.ok(!isIscsiUri('nbd://x') && !isIscsiUri('/dev/iscsi:'));
});
