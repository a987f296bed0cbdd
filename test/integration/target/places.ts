/** Servers of a test as places on the network, by names that nobody asks for. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { OwnServer, SshServer } from '../../../lab/servers.ts';
import type { HttpPlace, SshPlace } from '../../../src/target/place.ts';

const host = { network: { mac: '', address: '127.0.0.1', prefix: 8, gateway: undefined }, server: '127.0.0.1' };

/** @param path below the server */
export function httpPlace({ port }: OwnServer, path: string): HttpPlace {
  return { kind: 'http', text: 'http://storage/', ...host, port, url: `http://storage.example:${port}/${path}` };
}

/** The file `image` in a folder, and the keys that lead to it, which lie there too. */
export function sshPlace({ port, key, hostKey }: SshServer, folder: string) {
  const known = join(folder, 'known_hosts');
  writeFileSync(known, `storage ${hostKey}\n`);
  const login = { ...host, user: 'root', alias: 'storage', port };
  const place: SshPlace = { kind: 'ssh', text: 'ssh:storage:image', ...login, path: join(folder, 'image') };
  return { place, keys: { key, known } };
}
