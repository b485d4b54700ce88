import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { letEventLoopRun } from '../../base/event-loop.ts';
import { eventually } from '../conformance/harness.ts';
import type { DescriptorSocket, DescriptorSocketOwner, Sharing } from '../sharing.ts';
import { UringReactor } from './uring-reactor.ts';

// For tests of what the ring shares with other processes.

const bridgeTls = (): Promise<number> => Promise.reject(new Error('no TLS here'));

/** A reactor for one test, and a directory. */
export function openSharing(t: TestContext): {
  reactor: UringReactor;
  sharing: Sharing;
  directory: string;
} {
  const reactor = new UringReactor({ pageBytes: 4096, pageLimit: 4, bridgeTls });
  const { sharing } = reactor;
  assert.ok(sharing !== null, 'this kernel is older than Linux 5.13');
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-sharing-'));
  t.after(async () => {
    await reactor.close();
    rmSync(directory, { recursive: true });
  });
  return { reactor, sharing, directory };
}

/** How many descriptors this process has. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Remembers what a socket says. Descriptors stay open until `closeAll`. */
export class Log implements DescriptorSocketOwner {
  /** In order: the text of what came and how many descriptors came beside it. */
  readonly chunks: { text: string; descriptors: readonly number[] }[] = [];
  readonly descriptors: number[] = [];
  /** Undefined: not yet. */
  end: string | null | undefined = undefined;
  bytes = 0;
  onReceived: (() => void) | null = null;
  readonly #reactor: UringReactor;

  constructor(reactor: UringReactor, socket: DescriptorSocket) {
    this.#reactor = reactor;
    socket.owner = this;
  }

  received(bytes: Uint8Array, descriptors: readonly number[]): void {
    assert.equal(this.end, undefined, 'received after the end');
    this.chunks.push({ text: Buffer.from(bytes).toString('latin1'), descriptors });
    this.descriptors.push(...descriptors);
    this.bytes += bytes.length;
    letEventLoopRun();
    this.onReceived?.();
  }

  ended(error: string | null): void {
    assert.equal(this.end, undefined, 'ended twice');
    this.end = error;
    letEventLoopRun();
  }

  get text(): string {
    return this.chunks.map((chunk) => chunk.text).join('');
  }

  /** The text from the first byte that came with descriptors to the next such byte or the end. */
  textFrom(descriptor: number): string {
    const start = this.chunks.findIndex((chunk) => chunk.descriptors.includes(descriptor));
    const rest = this.chunks.slice(start + 1);
    const next = rest.findIndex((chunk) => chunk.descriptors.length > 0);
    const own = [this.chunks[start], ...(next < 0 ? rest : rest.slice(0, next))];
    return own.map((chunk) => chunk?.text).join('');
  }

  eventually(condition: () => boolean, what: string): Promise<void> {
    return eventually(this.#reactor, condition, what);
  }

  closeAll(sharing: Sharing): void {
    for (const fd of this.descriptors.splice(0)) sharing.closeDescriptor(fd);
  }
}
