import assert from 'node:assert/strict';
import test from 'node:test';
import { commandsOf } from '../registry.ts';
import { addUnit, be16, be32, be64, bench, senseOf, type TestInitiator } from '../testing.ts';

// INQUIRY and its pages, LOG SENSE, READ CAPACITY, GET LBA STATUS, REPORT LUNS, REPORT SUPPORTED …

function vpd(from: TestInitiator, page: number, allocated = 4096): number[] {
  return [...from.good([0x12, 1, page, ...be16(allocated), 0])];
}

function text(value: string, length = value.length): number[] {
  return [...new TextEncoder().encode(value.padEnd(length))];
}

const readCapacity16 = (allocated: number): number[] => [
  0x9e,
  0x10,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  ...be32(allocated),
  0,
  0,
];

const lbaStatus = (lba: number | bigint, allocated: number): number[] => [
  0x9e,
  0x12,
  ...be64(lba),
  ...be32(allocated),
  0,
  0,
];

const lbaDescriptor = (lba: number, blocks: number, kind: number): number[] => [
  ...be64(lba),
  ...be32(blocks),
  kind,
  0,
  0,
  0,
];

const logSense = (page: number, subpage = 0, pointer = 0): number[] => [
  0x4d,
  0,
  page,
  subpage,
  0,
  ...be16(pointer),
  ...be16(255),
  0,
];

const reportLuns = (select: number, allocated = 256): number[] => [
  0xa0,
  0,
  select,
  0,
  0,
  0,
  ...be32(allocated),
  0,
  0,
];

const supported = (options: number, opcode = 0, action = 0, allocated = 65_535): number[] => [
  0xa3,
  0x0c,
  options,
  opcode,
  ...be16(action),
  ...be32(allocated),
  0,
  0,
];

const supportedFunctions = (flags: number): number[] => [
  0xa3,
  0x0d,
  flags,
  0,
  0,
  0,
  ...be32(64),
  0,
  0,
];

test('standard INQUIRY data, byte by byte', () => {
  const from = bench().initiator();
  const data = [...from.good([0x12, 0, 0, 0, 255, 0])];
  assert.equal(data.length, 96);
  assert.deepEqual(data.slice(0, 8), [0, 0, 6, 0x12, 91, 0x08, 0, 0x02]);
  assert.deepEqual(data.slice(8, 36), [
    ...text('HOLDFAST', 8),
    ...text('Test disk', 16),
    ...text('1.0', 4),
  ]);
  assert.deepEqual(data.slice(58, 68), [0, 0xa0, 0x09, 0x60, 0x04, 0x60, 0x06, 0x00, 0x04, 0xc0]);
  assert.deepEqual([...from.good([0x12, 0, 0, 0, 5, 0])], data.slice(0, 5));
  assert.deepEqual([...from.good([0x12, 0, 0, 2, 0, 0])], data);
  assert.equal(from.refused([0x12, 0, 1, 1, 0, 0]), '5 2400 C2');
  assert.equal(from.refused([0x12, 1, 0xb5, 1, 0, 0]), '5 2400 C2');
  assert.equal(from.refused([0x12, 2, 0, 1, 0, 0]), '5 2400 C1.1');
  const removable = bench({ unit: { removable: true } }).initiator();
  assert.equal(removable.good([0x12, 0, 0, 0, 255, 0])[1], 0x80);
});

test('vital product data: every page that is listed is there, in order', () => {
  const from = bench().initiator();
  const pages = [0, 0x80, 0x83, 0x86, 0x8f, 0xb0, 0xb1, 0xb2];
  assert.deepEqual(vpd(from, 0), [0, 0, 0, pages.length, ...pages]);
  for (const page of pages) {
    const data = vpd(from, page);
    assert.deepEqual(data.slice(0, 2), [0, page]);
    assert.equal((data[2] as number) * 256 + (data[3] as number), data.length - 4);
    assert.deepEqual(vpd(from, page, 3), data.slice(0, 3));
  }
  assert.deepEqual(vpd(from, 0x80).slice(4), text('serial-0'));
});

test('device identification: NAA first, then names of unit, port and device', () => {
  const from = bench().initiator();
  const padded = (name: string): number[] => {
    const bytes = [...text(name), 0];
    while (bytes.length % 4 !== 0) bytes.push(0);
    return bytes;
  };
  const port = padded('iqn.2026-11.example:target,t,0x0001');
  const device = padded('iqn.2026-11.example:target');
  assert.deepEqual(vpd(from, 0x83).slice(4), [
    0x01,
    0x03,
    0,
    8,
    0x30,
    1,
    2,
    3,
    4,
    5,
    6,
    0,
    0x02,
    0x01,
    0,
    16,
    ...text('HOLDFAST'),
    ...text('serial-0'),
    0x51,
    0x94,
    0,
    4,
    0,
    0,
    0,
    1,
    0x53,
    0x98,
    0,
    port.length,
    ...port,
    0x53,
    0xa8,
    0,
    device.length,
    ...device,
  ]);
});

test('extended INQUIRY data, Block Limits, characteristics, provisioning', () => {
  const from = bench().initiator();
  assert.equal(vpd(from, 0x86).length, 64);
  assert.deepEqual(vpd(from, 0x86).slice(4, 8), [0, 0x17, 0x01, 0x01]);
  const limits = (thin: boolean): number[] => vpd(bench({ unit: { thin } }).initiator(), 0xb0);
  const unmaps = [...be32(0xffff_ffff), ...be32(4095), ...be32(8), ...be32(0x8000_0000)];
  for (const thin of [false, true]) {
    assert.deepEqual(limits(thin).slice(4, 48), [
      0,
      255,
      ...be16(8),
      ...be32(65_536),
      ...be32(16),
      ...be32(0),
      ...(thin ? unmaps : Array<number>(16).fill(0)),
      ...be64(65_536),
      ...be32(0),
    ]);
  }
  assert.deepEqual(vpd(from, 0xb1).slice(4, 8), [0, 1, 0, 0]);
  assert.deepEqual(
    vpd(bench({ store: { rotational: true } }).initiator(), 0xb1).slice(4, 6),
    [0, 0],
  );
  assert.deepEqual(vpd(from, 0xb2).slice(4), [0, 0, 0, 0]);
  assert.deepEqual(
    vpd(bench({ unit: { thin: true } }).initiator(), 0xb2).slice(4),
    [0, 0xc4, 2, 0],
  );
});

test('READ CAPACITY (10) and (16)', () => {
  const from = bench().initiator();
  const ten = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  assert.deepEqual([...from.good(ten)], [...be32(511), ...be32(512)]);
  const data = [...from.good(readCapacity16(64))];
  assert.equal(data.length, 32);
  assert.deepEqual(data.slice(0, 16), [...be64(511), ...be32(512), 0, 3, 0, 0]);
  assert.deepEqual([...from.good(readCapacity16(7))], data.slice(0, 7));
  assert.equal(from.good(readCapacity16(0)).length, 0);
  assert.equal(from.refused([0x25, 1]), '5 2400 C1.0');
  assert.equal(from.refused([0x9e, 0x11]), '5 2400 C1.4');
  const thin = bench({ unit: { thin: true }, store: { blockBytes: 4096 } }).initiator();
  assert.deepEqual([...thin.good(ten)], [...be32(63), ...be32(4096)]);
  assert.deepEqual([...thin.good(readCapacity16(32)).subarray(13, 16)], [0, 0xc0, 0]);
  const physical = bench({ unit: { thin: true } }).initiator();
  assert.deepEqual([...physical.good(readCapacity16(32)).subarray(13, 16)], [3, 0xc0, 0]);
});

test('GET LBA STATUS: runs of mapped and of deallocated blocks', () => {
  const at = bench({ unit: { thin: true } });
  const from = at.initiator();
  from.good([0x2a, 0, ...be32(8), 0, ...be16(8), 0], { dataOut: new Uint8Array(4096) });
  assert.deepEqual(
    [...from.good(lbaStatus(4, 1024))],
    [
      ...be32(4 + 3 * 16),
      0,
      0,
      0,
      0,
      ...lbaDescriptor(4, 4, 1),
      ...lbaDescriptor(8, 8, 0),
      ...lbaDescriptor(16, 496, 1),
    ],
  );
  assert.deepEqual(
    [...from.good(lbaStatus(8, 24))],
    [...be32(20), 0, 0, 0, 0, ...lbaDescriptor(8, 8, 0)],
  );
  assert.equal(from.good(lbaStatus(511, 3)).length, 3);
  for (const lba of [512, 2n ** 63n, 2n ** 64n - 1n]) {
    assert.equal(from.refused(lbaStatus(lba, 24)), '5 2100');
  }
  const thick = bench().initiator();
  assert.deepEqual([...thick.good(lbaStatus(0, 24))].slice(8), lbaDescriptor(0, 512, 0));
});

test('LOG SENSE', () => {
  const from = bench().initiator();
  assert.deepEqual([...from.good(logSense(0))], [0, 0, 0, 2, 0, 0x2f]);
  assert.deepEqual([...from.good(logSense(0x40))], [0, 0, 0, 2, 0, 0x2f]);
  const groups = Array.from({ length: 31 }, (_, i) => [0x19, i + 1]).flat();
  assert.deepEqual(
    [...from.good(logSense(0, 0xff))],
    [0x40, 0xff, 0, 68, 0, 0, 0, 0xff, ...groups, 0x2f, 0],
  );
  assert.deepEqual([...from.good(logSense(0x2f))], [0x2f, 0, 0, 8, 0, 0, 3, 4, 0, 0, 0xff, 0]);
  assert.equal(from.refused(logSense(0x0d)), '5 2400 C2.5');
  assert.equal(from.refused(logSense(0x2f, 1)), '5 2400 C2.5');
  assert.equal(from.refused(logSense(0x2f, 0, 1)), '5 2400 C5');
});

test('REPORT LUNS, also where there is no logical unit', () => {
  const at = bench();
  addUnit(at.target, 300);
  const from = at.initiator();
  const both = [...be32(16), 0, 0, 0, 0, ...be64(0), 0x41, 0x2c, 0, 0, 0, 0, 0, 0];
  for (const lun of [0, 300, 7]) {
    assert.deepEqual([...from.good(reportLuns(0), { lun })], both);
    assert.deepEqual([...from.good(reportLuns(2, 9), { lun })], both.slice(0, 9));
    assert.deepEqual([...from.good(reportLuns(1), { lun })], Array<number>(8).fill(0));
  }
  assert.equal(from.refused(reportLuns(3)), '5 2400 C2');
  assert.deepEqual(
    [...from.good([0x12, 0, 0, 0, 255, 0], { lun: 7 })].slice(0, 5),
    [0x7f, 0, 6, 2, 31],
  );
  assert.equal(from.refused([0, 0, 0, 0, 0, 0], { lun: 7 }), '5 2500');
  assert.deepEqual([...from.good([3, 0, 0, 0, 18, 0], { lun: 7 })].slice(2, 3), [5]);
});

test('REPORT SUPPORTED OPERATION CODES agrees with what is done', () => {
  const at = bench({ unit: { thin: true, atomicBlocks: 1 } });
  const from = at.initiator();
  const all = from.good(supported(0));
  const commands = commandsOf(at.unit);
  assert.equal(new DataView(all.buffer, all.byteOffset).getUint32(0), all.length - 4);
  assert.equal(all.length, 4 + 8 * commands.length);
  const timed = from.good(supported(0x80));
  assert.equal(timed.length, 4 + 20 * commands.length);
  assert.deepEqual([...timed.subarray(9, 10)], [2]);
  assert.deepEqual([...timed.subarray(12, 16)], [0, 0x0a, 0, 0]);
  for (const { opcode, serviceAction, cdbBytes, usage, name } of commands) {
    const one = from.good(
      supported(serviceAction === undefined ? 1 : 2, opcode, serviceAction ?? 0),
    );
    assert.deepEqual([...one.subarray(0, 4)], [0, 3, 0, cdbBytes], name);
    assert.deepEqual([...one.subarray(4)], [...usage], name);
    assert.equal(usage.length, cdbBytes, `${name}: usage data of another length`);
    assert.equal(usage[0], opcode);
    if (serviceAction !== undefined) {
      assert.equal((usage[1] as number) & 0x1f, serviceAction, name);
    }
    assert.equal(
      from.refused(supported(serviceAction === undefined ? 2 : 1, opcode)),
      '5 2400 C2.2',
    );
    assert.deepEqual(
      [...from.good(supported(3, opcode, serviceAction ?? 0)).subarray(0, 2)],
      [0, 3],
    );
  }
  // Not there: an operation code, a service action, one that is too large for its field.
  assert.deepEqual([...from.good(supported(1, 0xc0))], [0, 1, 0, 0]);
  assert.deepEqual([...from.good(supported(2, 0x9e, 0x1f))], [0, 1, 0, 0]);
  assert.deepEqual([...from.good(supported(2, 0x9e, 0x110))], [0, 1, 0, 0]);
  assert.equal(from.refused(supported(4)), '5 2400 C2.2');
  // What is not offered is not listed.
  const plain = bench().initiator();
  assert.deepEqual([...plain.good(supported(1, 0x42))], [0, 1, 0, 0]);
});

test('every command refuses each bit that its usage data leaves out, NACA and a reservation', () => {
  const at = bench({ unit: { thin: true } });
  const from = at.initiator();
  for (const { usage, opcode, serviceAction, name } of commandsOf(at.unit)) {
    for (let byte = 1; byte < usage.length; byte += 1) {
      for (let bit = 0; bit < 8; bit += 1) {
        const last = byte === usage.length - 1;
        const looked = ((usage[byte] as number) & (1 << bit)) !== 0 && !(last && bit === 2);
        if (looked || (byte === 1 && serviceAction !== undefined && bit < 5)) continue;
        const cdb = Array<number>(usage.length).fill(0);
        cdb[0] = opcode;
        cdb[1] = serviceAction ?? 0;
        cdb[byte] = (cdb[byte] as number) | (1 << bit);
        assert.equal(from.refused(cdb), `5 2400 C${byte}.${bit}`, `${name} byte ${byte}`);
      }
    }
  }
  const other = at.initiator();
  other.good([0x16, 0, 0, 0, 0, 0]);
  for (const { reservation, opcode, serviceAction, cdbBytes, name } of commandsOf(at.unit)) {
    if (reservation === 'own' || reservation === 'allowed') continue;
    const cdb = Array<number>(cdbBytes).fill(0);
    cdb[0] = opcode;
    cdb[1] = serviceAction ?? 0;
    assert.equal(senseOf(from.send(cdb)), 'conflict', name);
  }
});

test('REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', () => {
  const from = bench().initiator();
  assert.deepEqual([...from.good(supportedFunctions(0))], [0xda, 0, 0, 0]);
  assert.deepEqual([...from.good(supportedFunctions(0x80))].slice(0, 4), [0xda, 0, 0, 0x0c]);
  assert.equal(from.good(supportedFunctions(0x80)).length, 16);
});
