import assert from 'node:assert/strict';
import test from 'node:test';
import { OP } from '../../../block/io.ts';
import {
  be16,
  be32,
  be64,
  bench,
  filled,
  read10,
  senseOf,
  type Sent,
  write10,
} from '../testing.ts';

// VERIFY, WRITE AND VERIFY, WRITE SAME, UNMAP, COMPARE AND WRITE, ORWRITE, PRE-FETCH.

function verify10(lba: number, blocks: number, flags = 0): number[] {
  return [0x2f, flags, ...be32(lba), 0, ...be16(blocks), 0];
}

function compareAndWrite(lba: number | bigint, blocks: number, flags = 0): number[] {
  return [0x89, flags, ...be64(lba), 0, 0, 0, blocks, 0, 0];
}

function orWrite(lba: number | bigint, blocks: number, flags = 0): number[] {
  return [0x8b, flags, ...be64(lba), ...be32(blocks), 0, 0];
}

function writeSame16(lba: number | bigint, blocks: number, flags = 0): number[] {
  return [0x93, flags, ...be64(lba), ...be32(blocks), 0, 0];
}

function unmapList(ranges: readonly (readonly [number | bigint, number])[]): Uint8Array {
  const body = ranges.flatMap(([lba, blocks]) => [...be64(lba), ...be32(blocks), 0, 0, 0, 0]);
  return Uint8Array.from([...be16(body.length + 6), ...be16(body.length), 0, 0, 0, 0, ...body]);
}

function unmap(list: Uint8Array): [number[], { readonly dataOut: Uint8Array }] {
  return [[0x42, 0, 0, 0, 0, 0, 0, ...be16(list.length), 0], { dataOut: list }];
}

function information({ task }: Sent): number {
  const view = new DataView((task.sense as Uint8Array).buffer);
  assert.ok((view.getUint8(0) & 0x80) !== 0);
  return view.getUint32(3);
}

test('VERIFY: readable, equal, and each block equal to one', () => {
  const at = bench();
  const from = at.initiator();
  const data = filled(5, 40);
  from.good(write10(8, 40), { dataOut: data });
  from.good(verify10(8, 40));
  // What is verified is on the medium: it went there first.
  assert.deepEqual(at.store.stable.slice(8 * 512, 48 * 512), data);
  from.good(verify10(8, 40, 0x02), { dataOut: data });
  from.good(verify10(8, 40, 0x16), { dataOut: filled(5) });
  from.good([0xaf, 2, ...be32(8), ...be32(40), 0, 0], { dataOut: data });
  from.good([0x8f, 2, ...be64(8), ...be32(40), 0, 0], { dataOut: data });
  data[33 * 512 + 7] = 6;
  const differs = from.send(verify10(8, 40, 0x02), { dataOut: data });
  assert.equal(senseOf(differs), 'e 1d00');
  assert.equal(information(differs), 33 * 512 + 7);
  const block = filled(5);
  block[3] = 0;
  const every = from.send(verify10(8, 2, 0x06), { dataOut: block });
  assert.equal(senseOf(every), 'e 1d00');
  assert.equal(information(every), 3);
  assert.equal(from.refused(verify10(8, 1, 0x04)), '5 2400 C1.2');
  assert.equal(from.refused(verify10(511, 2)), '5 2100');
  assert.equal(from.refused(verify10(513, 0, 2)), '5 2100');
  assert.equal(from.refused(verify10(0, 2, 2), { dataOut: filled(0) }), '5 2400 C1.2');
  assert.equal(from.refused([0x2f, 0x20]), '5 2400 C1.5');
  at.store.failures.set(OP.READ, 'EIO');
  assert.equal(from.refused(verify10(8, 1)), '3 1100');
});

test('P2: WRITE AND VERIFY is stable when it ends, and is read back', () => {
  const forms: number[][] = [
    [0x2e, 2, ...be32(9), 0, ...be16(2), 0],
    [0xae, 0, ...be32(9), ...be32(2), 0, 0],
    [0x8e, 2, ...be64(9), ...be32(2), 0, 0],
  ];
  for (const cdb of forms) {
    const at = bench();
    const from = at.initiator();
    from.good(cdb, { dataOut: filled(7, 2) });
    assert.deepEqual(at.store.stable.slice(9 * 512, 11 * 512), filled(7, 2));
    at.store.failures.set(OP.READ, 'EIO');
    assert.equal(from.refused(cdb, { dataOut: filled(7, 2) }), '3 1100');
  }
  const from = bench().initiator();
  assert.equal(from.refused([0x2e, 4, ...be32(0), 0, ...be16(1), 0]), '5 2400 C1.2');
});

test('WRITE SAME: a pattern, zeroes, to the last block, and no more than it says', () => {
  const at = bench();
  const from = at.initiator();
  const block = Uint8Array.from({ length: 512 }, (_, i) => i & 0xff);
  from.good([0x41, 0, ...be32(10), 0, ...be16(40), 0], { dataOut: block });
  for (const lba of [10, 49]) {
    assert.deepEqual(at.store.bytes.slice(lba * 512, (lba + 1) * 512), block);
  }
  assert.equal(at.store.bytes[50 * 512 + 1], 0);
  from.good(writeSame16(500, 0), { dataOut: block });
  assert.deepEqual(at.store.bytes.slice(511 * 512), block);
  from.good(writeSame16(500, 0), { dataOut: filled(0) });
  assert.ok(at.store.bytes.subarray(500 * 512).every((byte) => byte === 0));
  // NDOB: zeroes without a block.
  from.good(writeSame16(10, 2, 0x01));
  assert.ok(at.store.bytes.subarray(10 * 512, 12 * 512).every((byte) => byte === 0));
  // Half a block, two blocks: libiscsi's suite wants both refused.
  for (const bytes of [0, 256, 1024]) {
    const dataOut = new Uint8Array(bytes);
    assert.equal(from.refused(writeSame16(0, 1), { dataOut }), '5 2400 C10');
  }
  assert.equal(from.refused(writeSame16(0, 1, 0x08), { dataOut: block }), '5 2400 C1.3');
  assert.equal(from.refused(writeSame16(0, 1, 0x10), { dataOut: block }), '5 2400 C1.4');
  assert.equal(from.refused([0x41, 1, 0, 0, 0, 0, 0, 0, 1, 0]), '5 2400 C1.0');
  assert.equal(from.refused([0x41, 8, 0, 0, 0, 0, 0, 0, 1, 0]), '5 2400 C1.3');
  assert.equal(from.refused(writeSame16(511, 2), { dataOut: block }), '5 2100');
  assert.equal(from.refused(writeSame16(2n ** 64n - 1n, 0), { dataOut: block }), '5 2100');
  assert.equal(from.refused(writeSame16(512, 0), { dataOut: block }), '5 2100');
});

test('WRITE SAME: MAXIMUM WRITE SAME LENGTH holds also for "to the last block"', () => {
  const most = 65_536;
  const sizeBytes = (most + 1) * 512;
  const at = bench({ store: { sizeBytes } });
  const from = at.initiator();
  const page = new DataView(from.good([0x12, 1, 0xb0, 0, 64, 0]).slice().buffer);
  assert.equal(page.getUint32(40), most);
  const dataOut = filled(0);
  assert.equal(from.refused(writeSame16(0, 0), { dataOut }), '5 2400 C10');
  assert.equal(from.refused(writeSame16(0, most + 1), { dataOut }), '5 2400 C10');
  from.good(writeSame16(1, 0), { dataOut });
  from.good(writeSame16(0, most), { dataOut });
});

test('thin disks: WRITE SAME with UNMAP and UNMAP deallocate, and what was is zeroes', () => {
  const at = bench({ unit: { thin: true } });
  const from = at.initiator();
  const hole = (lba: number): boolean => {
    const status = from.good([0x9e, 0x12, ...be64(lba), ...be32(24), 0, 0]);
    return status[20] === 1;
  };
  from.good(write10(0, 64), { dataOut: filled(1, 64) });
  assert.ok(!hole(0));
  from.good(writeSame16(0, 8, 0x08), { dataOut: filled(0) });
  assert.ok(hole(0) && !hole(8));
  // UNMAP of blocks that are not zeroes: they are written.
  from.good(writeSame16(0, 8, 0x08), { dataOut: filled(6) });
  assert.deepEqual(from.good(read10(7, 1)), filled(6));
  from.good(writeSame16(0, 8), { dataOut: filled(0) });
  assert.ok(!hole(0), 'without UNMAP the blocks are mapped');
  from.good(
    ...unmap(
      unmapList([
        [8, 8],
        [24, 0],
        [32, 8],
        [512, 0],
      ]),
    ),
  );
  assert.ok(hole(8) && !hole(16) && !hole(24) && hole(32));
  assert.deepEqual(from.good(read10(8, 1)), filled(0));
  from.good(...unmap(unmapList([])));
  from.good([0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  assert.equal(from.refused(...unmap(new Uint8Array(7))), '5 1a00');
  assert.equal(from.refused(...unmap(unmapList([[511, 2]]))), '5 2100');
  assert.equal(from.refused(...unmap(unmapList([[2n ** 64n - 1n, 1]]))), '5 2100');
  // One range beyond the end: none is unmapped.
  from.good(write10(0, 8), { dataOut: filled(1, 8) });
  assert.equal(
    from.refused(
      ...unmap(
        unmapList([
          [0, 8],
          [512, 1],
        ]),
      ),
    ),
    '5 2100',
  );
  assert.ok(!hole(0));
  // A descriptor that is cut off is not looked at.
  const cut = unmapList([
    [0, 8],
    [16, 8],
  ]).subarray(0, 8 + 16 + 15);
  from.good(...unmap(cut));
  assert.ok(hole(0) && !hole(16));
  assert.equal(from.refused([0x42, 1, 0, 0, 0, 0, 0, 0, 0, 0]), '5 2400 C1.0');
  // Not of disks that are not thin.
  assert.equal(
    bench()
      .initiator()
      .refused(...unmap(unmapList([]))),
    '5 2000',
  );
});

test('COMPARE AND WRITE: writes what it compared equal, and says where it differs', () => {
  const at = bench();
  const from = at.initiator();
  const dataOut = Uint8Array.from([...filled(0, 2), ...filled(8, 2)]);
  from.good(compareAndWrite(510, 2), { dataOut });
  assert.deepEqual(at.store.bytes.slice(510 * 512), filled(8, 2));
  dataOut.fill(8, 0, 1024);
  dataOut[700] = 9;
  const differs = from.send(compareAndWrite(510, 2), { dataOut });
  assert.equal(senseOf(differs), 'e 1d00');
  assert.equal(information(differs), 700);
  assert.deepEqual(at.store.bytes.slice(510 * 512), filled(8, 2));
  // P2: FUA.
  const block = Uint8Array.from([...filled(8), ...filled(9)]);
  from.good(compareAndWrite(511, 1, 0x08), { dataOut: block });
  assert.deepEqual(at.store.stable.slice(511 * 512), filled(9));
  from.good(compareAndWrite(0, 0));
  for (const bytes of [512, 1536, 2048]) {
    const odd = new Uint8Array(bytes);
    assert.equal(from.refused(compareAndWrite(0, 1), { dataOut: odd }), '5 2400 C13');
  }
  assert.equal(from.refused(compareAndWrite(511, 2), { dataOut }), '5 2100');
  assert.equal(from.refused(compareAndWrite(2n ** 64n - 1n, 1), { dataOut }), '5 2100');
  at.store.failures.set(OP.READ, 'EIO');
  assert.equal(from.refused(compareAndWrite(0, 2), { dataOut }), '3 1100');
});

test('ORWRITE sets bits and clears none', () => {
  const at = bench();
  const from = at.initiator();
  from.good(write10(4, 2), { dataOut: filled(0xa5, 2) });
  from.good(orWrite(4, 2, 0x08), { dataOut: filled(0x0f, 2) });
  assert.deepEqual(from.good(read10(4, 2)), filled(0xaf, 2));
  assert.deepEqual(at.store.stable.slice(4 * 512, 6 * 512), filled(0xaf, 2));
  from.good(orWrite(0, 0));
  assert.equal(from.refused(orWrite(512, 0)), '5 2100');
  assert.equal(from.refused(orWrite(511, 2), { dataOut: filled(1, 2) }), '5 2100');
  assert.equal(from.refused(orWrite(0, 2), { dataOut: filled(1) }), '5 2400 C10');
  assert.equal(from.refused([0x8b, 0x20]), '5 2400 C1.5');
});

test('PRE-FETCH is a hint: in range it is done', () => {
  const at = bench();
  const from = at.initiator();
  from.good([0x34, 2, ...be32(0), 3, ...be16(0), 0]);
  from.good([0x90, 0, ...be64(511), ...be32(1), 0, 0]);
  assert.equal(from.refused([0x34, 0, ...be32(512), 0, ...be16(0), 0]), '5 2100');
  assert.equal(from.refused([0x90, 0, ...be64(2n ** 63n), ...be32(1), 0, 0]), '5 2100');
  at.store.failures.set(OP.CACHE, 'EOPNOTSUPP');
  from.good([0x34, 0, ...be32(0), 0, ...be16(1), 0]);
});
