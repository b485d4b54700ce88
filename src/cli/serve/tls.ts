import { UsageError } from '../../base/errors.ts';
import type { TlsSettings } from '../../reactor/reactor.ts';
import { loadPskFile, loadServerCertificates } from '../../reactor/tls-credentials.ts';
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
    return { mode, settings: await loadServerCertificates(directory, { verifyPeer }) };
  }
  if (pskFile !== undefined) return { mode, settings: await loadPskFile(pskFile) };
  throw new UsageError(`--tls ${mode} needs --tls-certificates or --tls-psk`);
}
