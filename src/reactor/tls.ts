import { constants } from 'node:crypto';
import net from 'node:net';
import tls from 'node:tls';
import { assert } from '../base/assert.ts';
import { messageOf } from '../base/errors.ts';
import type { TlsSettings } from './reactor.ts';

// TLS on a socket of node:net that is already connected (STARTTLS): [NBD proto "TLS support"], TLS 1.2 or later.

/** A peer that has not finished its handshake by then is gone. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/**
 * What GnuTLS offers for PSK (nbdinfo, qemu: NORMAL with +ECDHE-PSK:+DHE-PSK:+PSK), forward secrecy first. Only PSK
 * below TLS 1.3; there the key exchange is apart from the cipher, and external keys go with SHA-256 [RFC 8446
 * 4.2.11].
 */
const PSK_CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-PSK-CHACHA20-POLY1305',
  'ECDHE-PSK-AES128-CBC-SHA256',
  'DHE-PSK-AES256-GCM-SHA384',
  'DHE-PSK-AES128-GCM-SHA256',
  'DHE-PSK-CHACHA20-POLY1305',
  'PSK-AES256-GCM-SHA384',
  'PSK-AES128-GCM-SHA256',
  'PSK-CHACHA20-POLY1305',
].join(':');

/**
 * Does the handshake on a connected socket, as the server, or as the client where `settings.client` is there. The
 * result takes the socket's place. Rejects with one line that says why; the socket is destroyed then. What the socket
 * has read and nobody consumed (`unshift`) is taken as the beginning of the handshake.
 */
export function startTls(socket: net.Socket, settings: TlsSettings): Promise<tls.TLSSocket> {
  return settings.client === undefined ? serve(socket, settings) : connectTls(socket, settings);
}

async function serve(socket: net.Socket, settings: TlsSettings): Promise<tls.TLSSocket> {
  if (socket.destroyed) throw new Error('TLS handshake failed: the connection is closed');
  const server = takeServer(settings);
  // tls.Server is what checks client certificates; it documents that connections may be given to it like this.
  const secured = new Promise<tls.TLSSocket>((resolve, reject) => {
    server.once('secureConnection', resolve);
    server.once('tlsClientError', (error, failed) => reject(handshakeError(error, failed)));
  });
  // A peer that ends in the middle of its handshake ends the handshake: the TLS socket takes the setting over.
  const { allowHalfOpen } = socket;
  socket.allowHalfOpen = false;
  server.emit('connection', socket);
  try {
    const result = await secured;
    result.allowHalfOpen = allowHalfOpen;
    result.on('error', ignore);
    return result;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    server.removeAllListeners('secureConnection').removeAllListeners('tlsClientError');
    // A late error of a failed handshake still finds somebody.
    server.on('tlsClientError', ignore);
    giveServer(settings, server);
  }
}

/** As the client: checks the server's certificate and name, or proves the key. */
export function connectTls(socket: net.Socket, settings: TlsSettings): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const secured = tls.connect({ socket, ...clientOptions(settings) });
    const fail = (error: Error): void => {
      clearTimeout(timer);
      secured.destroy();
      socket.destroy();
      reject(handshakeError(error, secured));
    };
    const closed = (): void => fail(new Error('the server closed the connection'));
    const timer = setTimeout(() => fail(new Error('no answer in time')), HANDSHAKE_TIMEOUT_MS);
    secured.once('error', fail);
    secured.once('end', closed);
    secured.once('close', closed);
    secured.once('secureConnect', () => {
      clearTimeout(timer);
      secured.removeListener('error', fail).on('error', ignore);
      secured.removeListener('end', closed).removeListener('close', closed);
      resolve(secured);
    });
  });
}

function ignore(): void {}

/** Throws what OpenSSL finds wrong with the certificates and keys, before anybody connects. */
export function checkTlsSettings(settings: TlsSettings): void {
  tls.createSecureContext(
    settings.client === undefined ? serverOptions(settings) : clientOptions(settings),
  );
}

function serverOptions(settings: TlsSettings): tls.TlsOptions {
  const { x509, psk } = settings;
  assert(
    (x509 === undefined) !== (psk === undefined),
    'TLS settings with certificates and keys, or neither',
  );
  const common: tls.TlsOptions = {
    minVersion: 'TLSv1.2',
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    // Resumption would let a later connection skip the check of its certificate; block connections are long anyway.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
  if (psk !== undefined) {
    return {
      ...common,
      ciphers: PSK_CIPHERS,
      dhparam: 'auto',
      pskCallback: (_socket, user) => psk.get(user) ?? null,
    };
  }
  return {
    ...common,
    ...certificates(settings),
    requestCert: x509?.verifyPeer === true,
    rejectUnauthorized: x509?.verifyPeer === true,
  };
}

function clientOptions(settings: TlsSettings): tls.ConnectionOptions {
  const { x509, psk, client } = settings;
  const hostname = client?.hostname ?? '';
  if (psk !== undefined) {
    const [entry] = psk;
    assert(entry !== undefined, 'a TLS client without a key');
    const [identity, key] = entry;
    return {
      minVersion: 'TLSv1.2',
      ciphers: PSK_CIPHERS,
      pskCallback: () => ({ identity, psk: key }),
      // Both ends have shown that they hold the key; there is no certificate to look at.
      checkServerIdentity: () => undefined,
    };
  }
  return {
    minVersion: 'TLSv1.2',
    ...certificates(settings),
    host: hostname,
    // [RFC 6066 3] server names are DNS names, never addresses.
    ...(hostname === '' || net.isIP(hostname) !== 0 ? {} : { servername: hostname }),
    rejectUnauthorized: x509?.verifyPeer !== false,
  };
}

function certificates({ x509 }: TlsSettings): tls.SecureContextOptions {
  return {
    ...(x509?.certPem ? { cert: x509.certPem, key: x509.keyPem } : {}),
    ...(x509?.caPem === undefined ? {} : { ca: x509.caPem }),
    ...(x509?.crlPem === undefined ? {} : { crl: x509.crlPem }),
  };
}

// One tls.Server does one handshake at a time, so that its events are about one socket. Idle ones wait here: reading
// certificates takes longer than many a handshake.
const idle = new Map<string, tls.Server[]>();
const IDLE_MAX = 64;

function takeServer(settings: TlsSettings): tls.Server {
  const server = idle.get(keyOf(settings))?.pop() ?? tls.createServer(serverOptions(settings));
  server.removeAllListeners('tlsClientError');
  return server;
}

function giveServer(settings: TlsSettings, server: tls.Server): void {
  const key = keyOf(settings);
  const servers = idle.get(key);
  if (servers === undefined) {
    // Settings change when an operator renews certificates: what was before is not kept.
    idle.clear();
    idle.set(key, [server]);
  } else if (servers.length < IDLE_MAX) servers.push(server);
}

/** Settings that came through a message port are equal, not identical. */
function keyOf({ x509, psk }: TlsSettings): string {
  if (x509 !== undefined) return JSON.stringify(x509);
  return JSON.stringify(
    Array.from(psk ?? [], ([user, key]) => [user, Buffer.from(key).toString('hex')]),
  );
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNRESET: 'the peer closed the connection',
  ERR_TLS_HANDSHAKE_TIMEOUT: 'no answer in time',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "the peer's certificate is not signed by the CA",
  SELF_SIGNED_CERT_IN_CHAIN: "the peer's certificate is not signed by the CA",
  DEPTH_ZERO_SELF_SIGNED_CERT: "the peer's certificate is not signed by the CA",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "the peer's certificate is not signed by the CA",
  CERT_HAS_EXPIRED: "the peer's certificate has expired",
  CERT_REVOKED: "the peer's certificate is revoked",
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: 'the client sent no certificate',
  ERR_SSL_WRONG_VERSION_NUMBER: 'what came is not TLS',
  ERR_SSL_HTTP_REQUEST: 'what came is not TLS',
  ERR_SSL_NO_SHARED_CIPHER: 'no cipher in common, or an unknown user',
  ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM: 'no signature algorithm in common, or an unknown user',
  ERR_SSL_UNSUPPORTED_PROTOCOL: 'the client is older than TLS 1.2',
  ERR_SSL_BINDER_DOES_NOT_VERIFY: 'the key of the user is not the one the client has',
  ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC: 'the keys differ',
};

function handshakeError(error: Error, socket: tls.TLSSocket): Error {
  // Set when the certificate was refused; the error itself then only says that the connection ended.
  const refused = socket.authorizationError as unknown as string | null | undefined;
  const { code } = error as NodeJS.ErrnoException;
  const reason = REASONS[refused ?? ''] ?? REASONS[code ?? ''] ?? reasonOf(error);
  return new Error(`TLS handshake failed: ${reason}`, { cause: error });
}

/** OpenSSL's errors name its source files; only their reason is of use. */
function reasonOf(error: Error): string {
  const { reason, library } = error as { reason?: string; library?: string };
  return library === undefined || reason === undefined ? messageOf(error) : reason;
}
