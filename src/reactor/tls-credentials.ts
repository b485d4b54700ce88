import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError, messageOf } from '../base/errors.ts';
import type { TlsSettings } from './reactor.ts';
import { checkTlsSettings } from './tls.ts';

// Keys and certificates from files, named as qemu-nbd (--object tls-creds-x509,dir=) and nbdkit (--tls-certificates)
// name them, and the PSK file of GnuTLS (psktool). Everything wrong with them is a ConfigError before anybody
// connects.

const CA_CERT = 'ca-cert.pem';
const CA_CRL = 'ca-crl.pem';

const CERTIFICATES_HINT =
  'make the files with certtool or openssl; nbdkit-tls(1) shows how, and the names are the same';

/** OpenSSL takes no longer key (PSK_MAX_PSK_LEN). */
const PSK_BYTES_MAX = 512;

/**
 * The server's certificates in `directory`: server-cert.pem, server-key.pem, ca-cert.pem (needed to check clients), and
 * ca-crl.pem if there. `verifyPeer`: clients must have a certificate signed by the CA. Throws ConfigError.
 */
export async function loadServerCertificates(
  directory: string,
  options: { readonly verifyPeer: boolean },
): Promise<TlsSettings> {
  await checkDirectory(directory);
  const certPem = await readNeeded(join(directory, 'server-cert.pem'));
  const keyPem = await readNeeded(join(directory, 'server-key.pem'));
  checkPair(directory, 'server', certPem, keyPem);
  const authority = await readAuthority(directory, options.verifyPeer);
  const settings = { x509: { certPem, keyPem, ...authority, verifyPeer: options.verifyPeer } };
  return checked(directory, settings);
}

/**
 * The client's: ca-cert.pem (without it the authorities that Node trusts), client-cert.pem with client-key.pem if the
 * server asks for them. `directory` may be null. Throws ConfigError.
 */
export async function loadClientCertificates(
  directory: string | null,
  options: { readonly hostname: string; readonly verifyPeer: boolean },
): Promise<TlsSettings> {
  const client = { hostname: options.hostname };
  const { verifyPeer } = options;
  if (directory === null) return { x509: { certPem: '', keyPem: '', verifyPeer }, client };
  await checkDirectory(directory);
  const certPem = (await readOptional(join(directory, 'client-cert.pem'))) ?? '';
  let keyPem = '';
  if (certPem !== '') {
    keyPem = await readNeeded(join(directory, 'client-key.pem'));
    checkPair(directory, 'client', certPem, keyPem);
  }
  const authority = await readAuthority(directory, false);
  return checked(directory, { x509: { certPem, keyPem, ...authority, verifyPeer }, client });
}

/** The server's keys from a GnuTLS PSK file. Throws ConfigError. */
export async function loadPskFile(path: string): Promise<TlsSettings> {
  return { psk: parsePskFile(await readNeeded(path), path) };
}

/** The client's key: that of `user` in a GnuTLS PSK file, or the only one there. Throws ConfigError. */
export async function loadPskOfUser(path: string, user: string | null): Promise<TlsSettings> {
  const keys = parsePskFile(await readNeeded(path), path);
  const name = user ?? (keys.size === 1 ? keys.keys().next().value : undefined);
  const key = name === undefined ? undefined : keys.get(name);
  if (name === undefined || key === undefined) {
    const names = Array.from(keys.keys()).join(', ');
    throw new ConfigError(
      user === null ? `'${path}' has more than one user` : `'${path}' has no user '${user}'`,
      `name one of them in the URI, as in nbds://USER@host: ${names}`,
    );
  }
  return { psk: new Map([[name, key]]), client: { hostname: '' } };
}

/**
 * Parses `user:hexkey` lines. [GnuTLS psk_passwd.c] a user that begins with # is in hexadecimal. `path` is for
 * messages.
 */
export function parsePskFile(text: string, path: string): Map<string, Uint8Array> {
  const keys = new Map<string, Uint8Array>();
  text.split(/\r?\n/).forEach((line, index) => {
    if (line.trim() === '') return;
    const match = /^([^:]+):((?:[0-9a-f]{2})+)\s*$/i.exec(line);
    const user = match === null ? null : decodeUser(match[1] as string);
    const key = Buffer.from(match?.[2] ?? '', 'hex');
    if (user === null || key.length > PSK_BYTES_MAX) {
      throw new ConfigError(
        `line ${index + 1} of '${path}' is not USER:KEY with a key in hexadecimal`,
        `make the file with: psktool --username USER --pskfile ${path}`,
      );
    }
    if (keys.has(user)) {
      throw new ConfigError(`user '${user}' is twice in '${path}'`, 'remove one of the two lines');
    }
    keys.set(user, new Uint8Array(key));
  });
  if (keys.size > 0) return keys;
  throw new ConfigError(
    `'${path}' has no keys`,
    `make the file with: psktool --username USER --pskfile ${path}`,
  );
}

function decodeUser(word: string): string | null {
  if (!word.startsWith('#')) return word;
  if (!/^#(?:[0-9a-f]{2})+$/i.test(word)) return null;
  return Buffer.from(word.slice(1), 'hex').toString();
}

/** Without a CA nobody can be checked. */
async function readAuthority(
  directory: string,
  needed: boolean,
): Promise<{ caPem?: string; crlPem?: string }> {
  const caPath = join(directory, CA_CERT);
  const caPem = needed ? await readNeeded(caPath) : await readOptional(caPath);
  if (caPem !== null) parseCertificate(caPath, caPem);
  const crlPem = await readOptional(join(directory, CA_CRL));
  return { ...(caPem === null ? {} : { caPem }), ...(crlPem === null ? {} : { crlPem }) };
}

function checkPair(
  directory: string,
  role: 'server' | 'client',
  certPem: string,
  keyPem: string,
): void {
  const certPath = join(directory, `${role}-cert.pem`);
  const keyPath = join(directory, `${role}-key.pem`);
  const certificate = parseCertificate(certPath, certPem);
  let matches: boolean;
  try {
    matches = certificate.checkPrivateKey(createPrivateKey(keyPem));
  } catch (error) {
    throw new ConfigError(
      `'${keyPath}' is not a private key in PEM form without a passphrase: ${messageOf(error)}`,
      CERTIFICATES_HINT,
      { cause: error },
    );
  }
  if (!matches) {
    throw new ConfigError(
      `'${keyPath}' is not the key of '${certPath}'`,
      'put the key beside the certificate that was made from it',
    );
  }
}

function parseCertificate(path: string, pem: string): X509Certificate {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (error) {
    throw new ConfigError(
      `'${path}' is not a certificate in PEM form: ${messageOf(error)}`,
      CERTIFICATES_HINT,
      { cause: error },
    );
  }
  const now = Date.now();
  if (now > certificate.validToDate.getTime()) {
    throw new ConfigError(`'${path}' expired on ${certificate.validTo}`, 'renew the certificate');
  }
  if (now < certificate.validFromDate.getTime()) {
    throw new ConfigError(
      `'${path}' is not valid before ${certificate.validFrom}`,
      'wait, or check the clock of this host',
    );
  }
  return certificate;
}

/** What OpenSSL itself still refuses: keys that are too short, a broken chain or revocation list. */
function checked(directory: string, settings: TlsSettings): TlsSettings {
  try {
    checkTlsSettings(settings);
  } catch (error) {
    throw new ConfigError(
      `the certificates in '${directory}' cannot be used: ${messageOf(error)}`,
      CERTIFICATES_HINT,
      { cause: error },
    );
  }
  return settings;
}

async function checkDirectory(directory: string): Promise<void> {
  const stats = await stat(directory).catch((error: unknown) => {
    throw unreadable(directory, error);
  });
  if (stats.isDirectory()) return;
  throw new ConfigError(
    `'${directory}' is not a directory`,
    'name the directory of the certificates',
  );
}

async function readOptional(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw unreadable(path, error);
  }
}

async function readNeeded(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): ConfigError {
  const { code } = error as NodeJS.ErrnoException;
  const [why, hint] =
    code === 'ENOENT'
      ? ['it does not exist', path.endsWith('.pem') ? CERTIFICATES_HINT : 'check the path']
      : code === 'EACCES'
        ? ['permission denied', 'let the user that runs this read it, and nobody else']
        : [messageOf(error), 'check the path'];
  return new ConfigError(`cannot read '${path}': ${why}`, hint, { cause: error });
}
