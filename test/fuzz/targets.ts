import { fuzzIscsiLogins, fuzzIscsiSessions } from './iscsi-sessions.ts';
import { fuzzConnection } from './nbd-connection.ts';
import { fuzzHandshake } from './nbd-handshake.ts';
import { fuzzTransmission } from './nbd-transmission.ts';
import { fail, type FuzzTarget } from './target.ts';
import { fuzzMessages } from './vhost-user-messages.ts';
import { fuzzChains } from './virtio-chains.ts';
import { fuzzChaos } from './virtio-chaos.ts';
import { fuzzStateFile, fuzzUri } from './texts.ts';

const REAL: Readonly<Record<string, FuzzTarget>> = {
  'nbd-handshake': fuzzHandshake,
  'nbd-transmission': fuzzTransmission,
  'nbd-connection': fuzzConnection,
  'nbd-uri': fuzzUri,
  'iscsi-logins': fuzzIscsiLogins,
  'iscsi-sessions': fuzzIscsiSessions,
  'virtio-chains': fuzzChains,
  'virtio-chaos': fuzzChaos,
  'vhost-user-messages': fuzzMessages,
  'state-file': fuzzStateFile,
};

export const TARGETS: Readonly<Record<string, FuzzTarget>> = {
  ...REAL,
  /** Always fails: whoever runs the fuzzers and does not hear of it runs nothing. */
  canary: (seed) => fail(`the canary sings (seed ${seed})`),
  /** A little of everything. */
  smoke: (seed) => {
    for (const target of Object.values(REAL)) {
      for (let i = 0; i < 20; i += 1) target(seed * 20 + i);
    }
  },
};

export const REAL_TARGETS: readonly string[] = Object.keys(REAL);
