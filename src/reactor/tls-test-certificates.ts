import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * For tests: an authority, a server (localhost, 127.0.0.1) and a client, under the names that qemu-nbd and nbdkit
 * use.
 */
export function makeCertificates(
  directory: string,
  options: { readonly revokeClient?: boolean; readonly serverDays?: number } = {},
): void {
  mkdirSync(directory, { recursive: true });
  const run = (...args: string[]): void => {
    execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
  };
  writeFileSync(join(directory, 'openssl.cnf'), CONFIG);
  writeFileSync(join(directory, 'index.txt'), '');
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  // prettier-ignore
  run('req', '-x509', ...key, '-config', 'openssl.cnf', '-extensions', 'authority', '-subj', '/CN=authority',
    '-days', '30', '-keyout', 'ca-key.pem', '-out', 'ca-cert.pem');
  for (const role of ['server', 'client']) {
    const days = role === 'server' ? (options.serverDays ?? 30) : 30;
    const validity =
      days > 0
        ? ['-days', `${days}`]
        : ['-startdate', '20200101000000Z', '-enddate', '20200201000000Z'];
    // prettier-ignore
    run('req', ...key, '-config', 'openssl.cnf', '-subj', `/CN=${role}`, '-keyout', `${role}-key.pem`,
      '-out', `${role}.csr`);
    // prettier-ignore
    run('ca', '-batch', '-notext', '-config', 'openssl.cnf', '-extensions', role, ...validity,
      '-in', `${role}.csr`, '-out', `${role}-cert.pem`);
  }
  if (options.revokeClient !== true) return;
  run('ca', '-config', 'openssl.cnf', '-revoke', 'client-cert.pem');
  run('ca', '-config', 'openssl.cnf', '-gencrl', '-out', 'ca-crl.pem');
}

const CONFIG = `
[ca]
default_ca = default
[default]
database = index.txt
new_certs_dir = .
certificate = ca-cert.pem
private_key = ca-key.pem
rand_serial = yes
default_md = sha256
default_crl_days = 30
policy = policy
[policy]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
subjectKeyIdentifier = hash
keyUsage = critical,keyCertSign,cRLSign
[server]
basicConstraints = CA:FALSE
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost,IP:127.0.0.1
extendedKeyUsage = serverAuth
[client]
basicConstraints = CA:FALSE
authorityKeyIdentifier = keyid
extendedKeyUsage = clientAuth
`;
