import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError, messageOf, UsageError } from '../../base/errors.ts';
import type { TlsSettings } from '../../reactor/reactor.ts';
import type { OptionValues } from '../parse.ts';
import { switchOption, textOption } from './options.ts';

export type TlsMode = 'off' | 'on' | 'require';

export interface TlsChoice {
  readonly mode: TlsMode;
  readonly settings?: TlsSettings;
}

/** Reads the keys that --tls and its companions name. Throws UsageError, or ConfigError for the files. */
export async function readTls(options: OptionValues): Promise<TlsChoice> {
  const mode = (textOption(options, 'tls') ?? 'off') as TlsMode;
  const directory = textOption(options, 'tlsCertificates');
  const pskFile = textOption(options, 'tlsPsk');
  const verifyPeer = switchOption(options, 'tlsVerifyPeer');
  if (mode === 'off') {
    if (directory !== undefined || pskFile !== undefined || verifyPeer) {
      throw new UsageError('keys for TLS are given but TLS is off; add --tls require or --tls on');
    }
    return { mode };
  }
  if (verifyPeer && directory === undefined) {
    throw new UsageError('--tls-verify-peer needs --tls-certificates');
  }
  if (directory !== undefined && pskFile !== undefined) {
    throw new UsageError('--tls-certificates and --tls-psk exclude each other');
  }
  if (directory !== undefined) {
    return { mode, settings: { x509: await readCertificates(directory, verifyPeer) } };
  }
  if (pskFile !== undefined) return { mode, settings: { psk: await readPsk(pskFile) } };
  throw new UsageError(`--tls ${mode} needs --tls-certificates or --tls-psk`);
}

async function readCertificates(
  directory: string,
  verifyPeer: boolean,
): Promise<NonNullable<TlsSettings['x509']>> {
  // The file names of QEMU and nbdkit, so that one directory serves all of them.
  const certPem = await readPem(join(directory, 'server-cert.pem'));
  const keyPem = await readPem(join(directory, 'server-key.pem'));
  if (!verifyPeer) return { certPem, keyPem, verifyPeer };
  return { certPem, keyPem, verifyPeer, caPem: await readPem(join(directory, 'ca-cert.pem')) };
}

async function readPem(path: string): Promise<string> {
  const text = await readText(path);
  if (!text.includes('-----BEGIN ')) {
    throw new ConfigError(`${path} is not a PEM file`, 'make one, for example with certtool(1)');
  }
  return text;
}

/** The lines of GnuTLS's psktool(1): USER:HEXKEY. Empty lines and lines with # are skipped. */
async function readPsk(path: string): Promise<Map<string, Uint8Array>> {
  const keys = new Map<string, Uint8Array>();
  const lines = (await readText(path)).split('\n');
  for (const [i, raw] of lines.entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const match = /^([^:]+):((?:[0-9a-fA-F]{2})+)$/.exec(line);
    if (match === null) {
      throw new ConfigError(
        `${path}, line ${i + 1} is not USER:HEXKEY`,
        'make the file with psktool(1)',
      );
    }
    keys.set(match[1] ?? '', new Uint8Array(Buffer.from(match[2] ?? '', 'hex')));
  }
  if (keys.size === 0) throw new ConfigError(`${path} has no keys`, 'make one with psktool(1)');
  return keys;
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    // A key that cannot be read now is still a configuration to correct; the cause keeps the errno for -v.
    throw new ConfigError(`cannot read ${path}`, messageOf(error), { cause: error });
  }
}
