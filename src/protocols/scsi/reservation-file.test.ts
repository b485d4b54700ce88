import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { ConfigError } from '../../base/errors.ts';
import type { KeptReservations } from './persistent-reservations.ts';
import { reservationFile, reservationPathOf } from './reservation-file.ts';
import { idOf, PR_TYPE } from './reservation-state.ts';
import { transportIdOf } from './testing.ts';

function inFolder(run: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-pr-'));
  try {
    run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const name = 'iqn.2026-11.example:host,i,0x00023d000001';
const one = {
  name,
  transportId: transportIdOf(name),
  relativePort: 1,
  key: 0xffff_ffff_ffff_ffffn,
};
const all = { ...one, name: `${name.slice(0, -1)}2`, relativePort: null, key: 1n };
const kept: KeptReservations = {
  registrations: [one, all],
  reservation: { type: PR_TYPE.EXCLUSIVE_ACCESS, holder: idOf(one) },
};

function save(path: string, what: KeptReservations | null): Error | null {
  let outcome: Error | null | undefined;
  reservationFile(path).save(what, (error) => {
    outcome = error;
  });
  assert.ok(outcome !== undefined, 'not done');
  return outcome;
}

test('what is saved is loaded, and the file goes when there is nothing to keep', () => {
  inFolder((folder) => {
    const path = reservationPathOf(join(folder, 'disk.raw'));
    assert.equal(path, join(folder, 'disk.raw.holdfast-pr'));
    const file = reservationFile(path);
    assert.equal(file.load(), null);
    assert.equal(save(path, kept), null);
    assert.deepEqual(file.load(), kept);
    const shared: KeptReservations = {
      registrations: [one],
      reservation: { type: PR_TYPE.WRITE_EXCLUSIVE_ALL_REGISTRANTS, holder: null },
    };
    assert.equal(save(path, shared), null);
    assert.deepEqual(file.load(), shared);
    assert.deepEqual(readdirSync(folder), ['disk.raw.holdfast-pr']);
    assert.equal(save(path, null), null);
    assert.ok(!existsSync(path));
    assert.equal(save(path, null), null);
  });
});

test('a folder that is not there: the save fails, and says so', () => {
  inFolder((folder) => {
    assert.match(save(join(folder, 'gone', 'x'), kept)?.message ?? '', /ENOENT/);
    assert.match(save(join(folder, 'gone', 'x'), null)?.message ?? '', /ENOENT/);
  });
});

test('a damaged file is an error of the operator, never an empty one', () => {
  inFolder((folder) => {
    const path = join(folder, 'disk.holdfast-pr');
    assert.equal(save(path, kept), null);
    const sound = readFileSync(path, 'utf8');
    const wrong = [
      '',
      sound.slice(0, -10),
      'null',
      '[]',
      sound.replace('"version":1', '"version":2'),
      sound.replace('"initiator"', '"someone"'),
      sound.replace('0xffffffffffffffff', '0x1ffffffffffffffff'),
      sound.replace('"key":"0x1"', '"key":1'),
      sound.replace('"relativePort":1', '"relativePort":"1"'),
      sound.replace('"transportId":"4', '"transportId":"'),
      sound.replace('"type":3', '"type":2'),
      sound.replace('"type":3', '"type":7'),
      sound.replace(/"holder":"[^"]*"/, '"holder":"nobody 1"'),
      sound.replace(/"holder":"[^"]*"/, '"holder":null'),
      sound.replace(/"reservation":\{[^}]*\}/, '"reservation":5'),
    ];
    for (const text of wrong) {
      assert.notEqual(text, sound);
      writeFileSync(path, text);
      const loading = (): unknown => reservationFile(path).load();
      assert.throws(loading, (error) => error instanceof ConfigError && error.hint !== '', text);
    }
    rmSync(path);
    writeFileSync(join(folder, 'file'), '');
    assert.throws(() => reservationFile(join(folder, 'file', 'x')).load(), ConfigError);
  });
});
