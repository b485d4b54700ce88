import assert from 'node:assert/strict';
import test from 'node:test';
import { Region } from '../../block/memory.ts';
import { ChainReader } from './chain-reader.ts';
import { GuestMemory } from './guest-memory.ts';
import { assertBreaks } from './split-test-rig.ts';
import { Chain } from './virtqueue.ts';

const BASE = 0x2_0000_0000;
const HIGH = 2;

function setUp(indirect = true): {
  region: Region;
  chain: Chain;
  reader: ChainReader;
} {
  const region = Region.plain(1 << 16);
  const sizeBytes = region.bytes.length;
  const memory = new GuestMemory([{ guestAddress: BASE, userAddress: 0, sizeBytes, region }]);
  const chain = new Chain();
  const reader = new ChainReader(memory, 8, indirect);
  reader.begin(chain);
  return { region, chain, reader };
}

/** Descriptors one after the other, of one byte each; `words` are their last four bytes. */
function fillTable(region: Region, start: number, words: readonly number[]): void {
  for (const [index, word] of words.entries()) {
    const at = start + index * 16;
    region.view.setBigUint64(at, BigInt(BASE + index * 2), true);
    region.view.setUint32(at + 8, 1, true);
    region.view.setUint32(at + 12, word, true);
  }
}

test('[virtio 2.8.7] a packed table is read in order; only WRITE counts, ids do not', () => {
  const { region, chain, reader } = setUp();
  const [READ, WRITE] = [0xfffd, 2];
  // Flags are the upper half here, ids the lower one.
  fillTable(region, 0x108, [READ * 2 ** 16 + 77, 3, WRITE * 2 ** 16 + 0xffff]);
  reader.packedTable(chain, 0x108, HIGH, 48);
  assert.deepEqual(chain.readable.starts.slice(0, chain.readable.count), [0, 2]);
  assert.deepEqual(chain.writable.starts.slice(0, chain.writable.count), [4]);
});

test('[virtio 2.8.7, 2.8.19] packed tables that are wrong', () => {
  const wrong: [number, number, number, RegExp][] = [
    [0x100, HIGH, 0, /half a descriptor or none/],
    [0x100, HIGH, 17, /half a descriptor or none/],
    [0xfff8, HIGH, 16, /outside guest memory/],
    [0x100, HIGH + 1, 16, /outside guest memory/],
    [0x100, 2 ** 32 - 1, 16, /outside guest memory/],
  ];
  for (const [low, high, length, message] of wrong) {
    const { chain, reader } = setUp();
    assertBreaks(() => reader.packedTable(chain, low, high, length), message, 'virtio 2.7.5.3');
  }
  const { region, chain, reader } = setUp();
  reader.packedTable(chain, 0, HIGH, 1024 * 16);
  reader.begin(chain);
  const long = () => reader.packedTable(chain, 0, HIGH, 1025 * 16);
  assertBreaks(long, /too long/, 'virtio 2.8.19');
  fillTable(region, 0, [2 * 2 ** 16, 0]);
  reader.begin(chain);
  const mixed = () => reader.packedTable(chain, 0, HIGH, 32);
  assertBreaks(mixed, /readable buffer after a writable one/, 'virtio 2.7.4.2');
  const without = setUp(false);
  assertBreaks(
    () => without.reader.packedTable(without.chain, 0, HIGH, 16),
    /without VIRTIO_F_INDIRECT_DESC/,
    'virtio 2.7.5.3.1',
  );
});

test('every field of a table is loaded once, whatever it says', () => {
  for (const packed of [false, true]) {
    const { region, chain, reader } = setUp();
    const next = 1;
    const words = packed ? [0, 0, 2 ** 17] : [next + 2 ** 16, next + 2 * 2 ** 16, 2];
    fillTable(region, 0x100, words);
    const loads = new Map<number, number>();
    const { view } = region;
    const plain = new DataView(view.buffer);
    const load = (at: number): number => {
      loads.set(at, (loads.get(at) ?? 0) + 1);
      return at;
    };
    view.getUint16 = (at) => plain.getUint16(load(at), true);
    view.getUint32 = (at) => plain.getUint32(load(at), true);
    if (packed) reader.packedTable(chain, 0x100, HIGH, 48);
    else reader.splitTable(chain, 0x100, HIGH, 48, 4);
    assert.equal(chain.readable.totalBytes + chain.writable.totalBytes, 3);
    assert.ok(loads.size >= 12);
    for (const [at, count] of loads) assert.equal(count, 1, `offset ${at}`);
  }
});

test('empty buffers add nothing and may be anywhere; a chain of them alone is empty', () => {
  const { chain, reader } = setUp();
  reader.buffer(chain, 0, 0, 0, 0);
  reader.buffer(chain, 2 ** 32 - 1, 2 ** 32 - 1, 0, 2);
  assert.equal(chain.readable.count + chain.writable.count, 0);
  const after = () => reader.buffer(chain, 0, HIGH, 1, 0);
  assertBreaks(after, /readable buffer after a writable one/, 'virtio 2.7.4.2');
});
