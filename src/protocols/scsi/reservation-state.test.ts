import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  apply,
  idOf,
  isAllRegistrants,
  isHolder,
  MOST_REGISTRATIONS,
  type NexusName,
  NO_RESERVATIONS,
  PR_OUT,
  PR_TYPE,
  type PrRequest,
  type PrState,
  registrationOf,
} from './reservation-state.ts';
import { parseTransportIds } from './transport-id.ts';
import { transportIdOf } from './testing.ts';

function nexus(number: number): NexusName {
  const name = `iqn.2026-11.example:n${number},i,0x${number.toString(16).padStart(12, '0')}`;
  return { name, transportId: transportIdOf(name), relativePort: 1 };
}

const request: PrRequest = {
  action: PR_OUT.REGISTER,
  type: PR_TYPE.WRITE_EXCLUSIVE,
  key: 0n,
  actionKey: 0n,
  aptpl: false,
  allTargetPorts: false,
  ports: null,
  moveTo: null,
  unregister: false,
};

/** What must be true of every state there is. */
function check(state: PrState): void {
  const ids = state.registrations.map((each) => idOf(each));
  assert.equal(new Set(ids).size, ids.length, 'a nexus is registered twice');
  assert.ok(state.registrations.every(({ key }) => key !== 0n));
  assert.ok(state.registrations.length <= MOST_REGISTRATIONS);
  const { reservation } = state;
  if (reservation === null) return;
  assert.ok(state.registrations.length > 0, 'a reservation that nobody holds');
  assert.equal(reservation.holder === null, isAllRegistrants(reservation.type));
  const holders = state.registrations.filter((each) => isHolder(state, each));
  assert.equal(holders.length, reservation.holder === null ? ids.length : 1);
}

test('whatever is asked: reservations have holders, keys are nexuses’, and others are told', () => {
  const step = fc.record({
    who: fc.nat(3),
    action: fc.constantFrom(...Object.values(PR_OUT)),
    type: fc.constantFrom(...Object.values(PR_TYPE)),
    key: fc.integer({ min: -1, max: 3 }),
    actionKey: fc.nat(3),
    to: fc.nat(3),
    unregister: fc.boolean(),
    all: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      let state = NO_RESERVATIONS;
      for (const { who, key, actionKey, to, all, ...rest } of steps) {
        const sender = nexus(who);
        const own = registrationOf(state, sender.name, 1);
        const outcome = apply(state, sender, {
          ...request,
          ...rest,
          // -1: the key that it has.
          key: key < 0 ? (own?.key ?? 0n) : BigInt(key),
          actionKey: BigInt(actionKey),
          allTargetPorts: all,
          moveTo: nexus(to),
        });
        if (typeof outcome === 'string') continue;
        check(outcome.state);
        // The sender hears nothing of its own doing; nobody is told who was not registered.
        for (const { to: told } of outcome.told) {
          assert.notEqual(told, own);
          assert.ok(state.registrations.includes(told));
        }
        // Who lost its registration to another hears of it.
        for (const gone of state.registrations) {
          const stays = registrationOf(outcome.state, gone.name, gone.relativePort) !== null;
          if (stays || gone === own) continue;
          assert.ok(outcome.told.some((told) => told.to === gone));
        }
        const registers = outcome.state.registrations !== state.registrations;
        const counts = outcome.state.generation !== state.generation;
        assert.ok(counts || !registers, 'registrations changed, and the generation did not');
        state = outcome.state;
      }
    }),
    { numRuns: 300 },
  );
});

test('the number of registrations is bounded', () => {
  let state = NO_RESERVATIONS;
  for (let i = 0; i < MOST_REGISTRATIONS; i += 1) {
    const outcome = apply(state, nexus(i), { ...request, actionKey: 1n });
    assert.ok(typeof outcome !== 'string');
    state = outcome.state;
  }
  const one = { ...request, actionKey: 1n };
  assert.equal(apply(state, nexus(MOST_REGISTRATIONS), one), 'resources');
});

test('TransportIDs of iSCSI, and what is none', () => {
  const port = transportIdOf('iqn.2026-11.Example:Host,i,0x00023D00000A');
  const device = transportIdOf('iqn.2026-11.example:host');
  const both = Uint8Array.from([...port, ...device]);
  const found = parseTransportIds(both);
  assert.deepEqual(
    found?.map(({ name, isPort }) => [name, isPort]),
    [
      ['iqn.2026-11.example:host,i,0x00023d00000a', true],
      ['iqn.2026-11.example:host', false],
    ],
  );
  assert.deepEqual(found[0]?.bytes, port);
  assert.deepEqual(parseTransportIds(new Uint8Array(0)), []);
  const wrong = (change: (bytes: Uint8Array) => void): void => {
    const bytes = port.slice();
    change(bytes);
    assert.equal(parseTransportIds(bytes), null);
  };
  wrong((bytes) => (bytes[0] = 0x46)); // another protocol
  wrong((bytes) => (bytes[0] = 0x85)); // another format
  wrong((bytes) => (bytes[0] = 0x05)); // a device's format with a port's name
  wrong((bytes) => (bytes[3] = (bytes[3] as number) + 4)); // longer than what is there
  wrong((bytes) => (bytes[3] = 16)); // too short to be one
  wrong((bytes) => bytes.fill(0x61, 4)); // not closed by a zero
  wrong((bytes) => (bytes[bytes.length - 1] = 1)); // filled with something else
  wrong((bytes) => bytes.fill(0, 4)); // no name
  assert.equal(parseTransportIds(port.subarray(0, 3)), null);
});
