/** Over ssh(1), which another kernel of ours has from this machine, with its libraries. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { UnsupportedError } from '../errors.ts';
import type { CpioEntry } from '../kexec/cpio.ts';
import type { Host } from './network.ts';

export interface Server {
  readonly user: string;
  /** As known_hosts has it: `backup`, `[backup]:2222`. */
  readonly alias: string;
}

const SSH = '/usr/bin/ssh';
/** In the other kernel. */
const KEY = '/root/.ssh/key';
const KNOWN = '/root/.ssh/known_hosts';
const HOSTS = [KNOWN, '/etc/ssh/ssh_known_hosts'];
/** Of root on this machine, as UserKnownHostsFile takes them. */
export const OWN_HOSTS = HOSTS.join(' ');

/** What ssh needs to log in without anybody at hand. @param what for messages @throws UnsupportedError that says what is missing */
export function requireSsh(what: string, { alias }: Server, key: string): { programs: string[]; files: CpioEntry[] } {
  const refuse = (why: string, remedy: string): never => {
    throw new UnsupportedError({ what, why, remedy });
  };
  const keygen = (...args: string[]) => spawnSync('ssh-keygen', args, { stdio: 'ignore' });
  if (!existsSync(SSH)) refuse(`there is no ${SSH}`, 'install openssh-client');
  if (!existsSync(key)) {
    const make = `make one (ssh-keygen -f ${key} -N '') and take it to the other machine`;
    refuse(`there is no key ${key}`, `${make}, or name another: sshkey in crash.conf`);
  }
  if (keygen('-y', '-P', '', '-f', key).status !== 0) {
    refuse(`${key} is no key that can be used without a passphrase`, `make one of its own: ssh-keygen -f FILE -N ''`);
  }
  const hosts = HOSTS.filter((path) => existsSync(path));
  if (!hosts.some((file) => keygen('-F', alias, '-f', file).status === 0)) {
    refuse(
      `the key of ${alias} is in none of ${HOSTS.join(', ')}`,
      'log in there once by hand, as root: ssh -i KEY USER@HOST',
    );
  }
  const files: CpioEntry[] = [
    { name: 'root/.ssh', mode: 0o40700 },
    { name: KEY.slice(1), mode: 0o600, data: readFileSync(key) },
    { name: KNOWN.slice(1), mode: 0o600, data: Buffer.concat(hosts.map((path) => readFileSync(path))) },
  ];
  return { programs: [SSH], files };
}

export interface Login extends Server, Pick<Host, 'server' | 'port'> {}

/** Where key and known hosts lie; not given in the other kernel. */
export interface Keys {
  readonly key: string;
  readonly known: string;
}

/** ssh's arguments before the command. */
export function sshArguments({ user, alias, server, port }: Login, keys: Keys = { key: KEY, known: KNOWN }): string[] {
  const options = [
    'BatchMode=yes',
    'IdentitiesOnly=yes',
    `UserKnownHostsFile=${keys.known}`,
    `HostKeyAlias=${alias}`,
    'ConnectTimeout=60',
    'ServerAliveInterval=15',
  ];
  return [
    '-F',
    'none',
    '-i',
    keys.key,
    '-p',
    String(port),
    ...options.flatMap((each) => ['-o', each]),
    '-l',
    user,
    server,
  ];
}

/** Runs a script there, with this as its input. @throws Error with ssh's status */
export async function runBySsh(login: Login, script: string, input: Readable, keys?: Keys): Promise<void> {
  const child = spawn('ssh', [...sshArguments(login, keys), script], { stdio: ['pipe', 'inherit', 'inherit'] });
  const closed = once(child, 'close');
  // A server that has no room ends before it has read all.
  const fed = pipeline(input, child.stdin).then(
    () => undefined,
    (error: Error) => error,
  );
  const [code] = await closed;
  const failure = await fed;
  if (code !== 0) throw new Error(`ssh to ${login.alias} ended with ${code}`);
  if (failure !== undefined) throw failure;
}

/**
 * A file that has its name when all of it is on the other machine's disk. To the other end a connection that breaks is the end of the
 * stream too: so it counts the bytes, or where nobody knows how many there are is told of the end by a second call.
 */
export async function putBySsh(
  login: Login,
  folder: string,
  name: string,
  content: Readable | Uint8Array,
  keys?: Keys,
): Promise<void> {
  const [path, part] = [quote(`${folder}/${name}`), quote(`${folder}/.${name}.partial`)];
  const write = `umask 077 && mkdir -p ${quote(folder)} && cat >${part} && sync ${part}`;
  const end = `mv ${part} ${path} && sync ${quote(folder)}`;
  if (content instanceof Readable) {
    await runBySsh(login, write, content, keys);
    await runBySsh(login, end, Readable.from([]), keys);
  } else {
    const count = `[ "$(wc -c <${part})" -eq ${content.length} ]`;
    await runBySsh(login, `${write} && ${count} && ${end}`, Readable.from([content]), keys);
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
