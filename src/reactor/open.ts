import { KiB } from '../base/units.ts';
import { ConfigError, messageOf } from '../base/errors.ts';
import type { Reactor, TlsSettings } from './reactor.ts';

export const REACTOR_KINDS = ['auto', 'io_uring', 'portable'] as const;
export type ReactorKind = (typeof REACTOR_KINDS)[number];

export interface ReactorOptions {
  /** Payload memory: pages of this size, at most `pageLimit` of them. */
  readonly pageBytes?: number;
  readonly pageLimit?: number;
  /** Carries TLS elsewhere (src/reactor/tls.ts); without it STARTTLS on the ring is refused. */
  readonly bridgeTls?: (fd: number, settings: TlsSettings) => Promise<number>;
}

/**
 * 272 KiB pages: two 128 KiB requests with their headers and room to lay them in step, so that one receive takes what a
 * Unix socket holds. 192 of them are 51 MiB, which with Node's own memory stays under the 200 MiB that a busy server may
 * take.
 */
const PAGE_BYTES = 272 * KiB;
const PAGE_LIMIT = 192;

/**
 * Opens the reactor. `auto` takes io_uring where the kernel allows it and says in `line` what was chosen and why. Both
 * implementations are loaded on demand, so that the portable one needs nothing of Linux.
 */
export async function openReactor(
  kind: ReactorKind,
  options: ReactorOptions = {},
): Promise<{ reactor: Reactor; line: string }> {
  const pageBytes = options.pageBytes ?? PAGE_BYTES;
  const pageLimit = options.pageLimit ?? PAGE_LIMIT;
  const bridgeTls = options.bridgeTls ?? (() => Promise.reject(new Error('TLS is not set up')));
  let why = 'asked for';
  if (kind !== 'portable') {
    try {
      const { UringReactor } = await import('./uring/uring-reactor.ts');
      const reactor = new UringReactor({ pageBytes, pageLimit, bridgeTls });
      return { reactor, line: 'reactor: io_uring' };
    } catch (error) {
      why = messageOf(error);
      if (kind === 'io_uring') {
        throw new ConfigError(`io_uring cannot be used: ${why}`, 'use --reactor portable', {
          cause: error,
        });
      }
    }
  }
  const { PortableReactor } = await import('./portable/portable-reactor.ts');
  return {
    reactor: new PortableReactor({ pageBytes, pageLimit }),
    line: `reactor: portable (${why})`,
  };
}
