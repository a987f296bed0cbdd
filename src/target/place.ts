/**
 * Where another kernel of ours saves to, and reads from: the capture kernel after a panic, the kernels of a hibernation. What the
 * user named is looked at while the system is whole, and what that kernel must know to get there without it is written down:
 *
 *     DIR                          the disk by its identity, the path in its file system
 *     /dev/...                     the disk or partition, by where it is plugged in, its serial number and size
 *     nfs:HOST:/DIR                the card, its address and gateway as they are now; the server's address
 *     ssh:USER@HOST:DIR            and the ssh program, a key, the server's own key
 *     ssh://USER@HOST:PORT/DIR
 *     http(s)://HOST/PATH          and the certificates that this machine trusts
 */
import { closeSync, existsSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import type { CpioEntry } from '../kexec/cpio.ts';
import { blockDevice, deviceChain, lowerDevices, numberOf } from '../sys/devices.ts';
import { type Mount, readMountinfo } from '../sys/mountinfo.ts';
import { openBlock } from './block.ts';
import { certificates } from './http.ts';
import { type Identity, identityOf } from './identity.ts';
import { findHost, type Host } from './network.ts';
import { requireSsh, type Server } from './ssh.ts';

interface Named {
  /** As the user named it, without a password. */
  readonly text: string;
}

export interface DirectoryPlace extends Named {
  readonly kind: 'directory';
  readonly device: Identity;
  readonly type: string;
  /** In the file system, from its own root. */
  readonly path: string;
}

export interface BlockPlace extends Named {
  readonly kind: 'block';
  readonly device: Identity;
}

export interface NfsPlace extends Named, Host {
  readonly kind: 'nfs';
  readonly exported: string;
}

export interface SshPlace extends Named, Host, Server {
  readonly kind: 'ssh';
  readonly path: string;
}

export interface HttpPlace extends Named, Host {
  readonly kind: 'http';
  readonly url: string;
}

export type NetworkPlace = NfsPlace | SshPlace | HttpPlace;
export type Place = DirectoryPlace | BlockPlace | NetworkPlace;

/** What the other kernel must have for a place. */
export interface Needs {
  readonly modules: readonly string[];
  readonly aliases: readonly string[];
  /** Paths of programs of this machine. */
  readonly programs: readonly string[];
  /** Secrets among them: they are in memory only, mode 0600. */
  readonly files: readonly CpioEntry[];
}

export interface FoundPlace extends Needs {
  readonly place: Place;
  /** What the user should know of it. */
  readonly note?: string;
}

export interface Wanted {
  /** For messages: `saving a crash dump to`. */
  readonly purpose: string;
  /** A key without a passphrase, for ssh. */
  readonly sshKey: string;
}

/** @throws UnsupportedError where the other kernel could not get there */
export async function findPlace(text: string, wanted: Wanted): Promise<FoundPlace> {
  const shown = text.replace(/^(\w+:\/\/[^/@:]*):[^/@]*@/, '$1:***@');
  const what = `${wanted.purpose} ${shown}`;
  const [, nfsHost, nfsPath] = /^nfs:(\[[^\]]+\]|[^:/]+):(\/.*)$/.exec(text) ?? [];
  if (nfsHost !== undefined) {
    const { host, ...needs } = await findHost(what, nfsHost, 2049);
    const place: NfsPlace = { kind: 'nfs', text, ...host, exported: nfsPath! };
    const modules = [...needs.modules, 'nfs'];
    return { place, ...nothing, modules, aliases: [...needs.aliases, 'nfs4', 'nfsv3', 'nfsv4'] };
  }
  const ssh = parseSsh(text);
  if (ssh !== undefined) {
    const { host, ...needs } = await findHost(what, ssh.name, ssh.port);
    const server: Server = { user: ssh.user, alias: ssh.port === 22 ? ssh.name : `[${ssh.name}]:${ssh.port}` };
    const place: SshPlace = { kind: 'ssh', text, ...host, ...server, path: ssh.path };
    return { place, ...needs, ...requireSsh(what, server, wanted.sshKey) };
  }
  if (/^https?:\/\//.test(text)) {
    const { protocol, hostname, port } = new URL(text);
    const isSecure = protocol === 'https:';
    const { host, ...needs } = await findHost(what, hostname, Number(port) || (isSecure ? 443 : 80));
    const place: HttpPlace = { kind: 'http', text: shown, ...host, url: text };
    return { place, ...nothing, ...needs, files: isSecure ? certificates() : [] };
  }
  if (text.startsWith('/')) {
    return existsSync(text) && statSync(text).isBlockDevice() ? findBlock(text, what) : findDirectory(text, what);
  }
  throw new UnsupportedError({
    what,
    why: 'it is none of DIR, nfs:HOST:/DIR, ssh:USER@HOST:DIR, http(s)://... and /dev/...',
    remedy: 'name one of them',
  });
}

const nothing = { programs: [], files: [] } as const;

interface SshName {
  readonly user: string;
  readonly name: string;
  readonly port: number;
  readonly path: string;
}

/** `ssh:USER@HOST:DIR`, as kdump.conf(5) and scp(1) have it, or an address with a port. @returns undefined for anything else */
export function parseSsh(text: string): SshName | undefined {
  const [, user = 'root', host, port = '22', path = '/var/crash'] =
    /^ssh:\/\/(?:([^@:/]+)@)?(\[[^\]]+\]|[^@:/]+)(?::(\d+))?(\/.+)?$/.exec(text) ?? [];
  if (host !== undefined) return { user, name: unbracketed(host), port: Number(port), path };
  const [, who = 'root', where, folder = '/var/crash'] =
    /^ssh:(?:([^@:/]+)@)?(\[[^\]]+\]|[^@:/]+)(?::(.+))?$/.exec(text) ?? [];
  return where === undefined ? undefined : { user: who, name: unbracketed(where), port: 22, path: folder };
}

function unbracketed(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1');
}

/** A directory on a disk. @param what for messages @throws UnsupportedError as `findPlace` */
export function findDirectory(text: string, what: string): FoundPlace {
  mkdirSync(text, { recursive: true, mode: 0o700 });
  const path = realpathSync(text);
  const mount = mountOf(path);
  const number = mount.major === 0 ? numberOf(mount.source) : `${mount.major}:${mount.minor}`;
  if (number === undefined) {
    throw new UnsupportedError({
      what,
      why: `its file system, ${mount.type}, is on no disk`,
      remedy: 'name a directory on a disk, or nfs:, ssh: or http:',
    });
  }
  const folder = plainDevice(what, number);
  const { modules, aliases } = deviceChain(folder);
  const place: DirectoryPlace = {
    kind: 'directory',
    text,
    device: identityOf(folder),
    type: mount.type,
    path: join(mount.root, relative(mount.mountPoint, path)),
  };
  // Most file systems ask the crypto API for it when they are mounted, and only some kernels' lists say so.
  return { place, ...nothing, modules, aliases: [...aliases, `fs-${mount.type}`, 'crypto-crc32c'] };
}

/** A disk or partition that holds nothing, or an earlier dump. */
function findBlock(text: string, what: string): FoundPlace {
  const folder = plainDevice(what, numberOf(text)!);
  const held = heldBy(text, what);
  return {
    place: { kind: 'block', text, device: { ...identityOf(folder), content: undefined } },
    ...nothing,
    ...deviceChain(folder),
    ...(held !== undefined && {
      note: `${text} holds ${held}; the next dump takes its place. To keep it: tar -xf ${text}`,
    }),
  };
}

/** The folder of the dump on it. @throws UnsupportedError where it is used for something else */
function heldBy(text: string, what: string): string | undefined {
  try {
    const { fd, held } = openBlock(text, 'read');
    closeSync(fd);
    return held;
  } catch (error) {
    const isBusy = (error as NodeJS.ErrnoException).code === 'EBUSY';
    throw new UnsupportedError({
      what,
      why: isBusy ? 'it is in use: mounted, swap, or part of another device' : (error as Error).message,
      remedy: isBusy
        ? 'name a directory on it, or another device'
        : `name another, or if nothing on it is needed: dd if=/dev/zero of=${text} bs=68K count=1`,
    });
  }
}

/** The device's folder in sysfs. @throws UnsupportedError where it is put together of others */
function plainDevice(what: string, number: string): string {
  const folder = blockDevice(number);
  const lower = lowerDevices(folder);
  if (lower.length === 0) return folder;
  const on = lower.map((each) => each.replace(/^.*\//, '')).join(', ');
  throw new UnsupportedError({
    what,
    why: `it lies on a device that is put together of others (${on}): device mapper or RAID, which the other kernel does not set up`,
    remedy: 'name a directory on a plain partition, or nfs:, ssh: or http:',
  });
}

/** The last mount at or above a path. */
function mountOf(path: string): Mount {
  const holds = ({ mountPoint }: Mount) =>
    path === mountPoint || path.startsWith(mountPoint === '/' ? '/' : `${mountPoint}/`);
  const found = readMountinfo('self').filter(holds);
  return found.reduce((best, each) => (each.mountPoint.length >= best.mountPoint.length ? each : best));
}
