/**
 * Where a dump goes. What the user named is looked at while the system is whole, and what the capture kernel must know to get
 * there without it is written down: which modules, which disk, which address by which interface.
 */
import { lookup } from 'node:dns/promises';
import { existsSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join, relative } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { blockDevice, deviceChain, lowerDevices, networkDevice, numberOf } from '../sys/devices.ts';
import type { InterfaceAddress } from '../sys/interface.ts';
import { type Mount, readMountinfo } from '../sys/mountinfo.ts';
import { routeTo } from '../sys/routes.ts';
import { type Identity, identityOf } from './identity.ts';

/** An interface by its hardware address, and what it is given. */
export interface Network extends InterfaceAddress {
  readonly mac: string;
}

interface Named {
  /** As the user named it. */
  readonly text: string;
}

export interface DirectoryPlace extends Named {
  readonly kind: 'directory';
  readonly device: Identity;
  readonly type: string;
  /** In the file system, from its own root. */
  readonly path: string;
}

export interface NfsPlace extends Named {
  readonly kind: 'nfs';
  readonly network: Network;
  readonly server: string;
  readonly exported: string;
}

export interface SshPlace extends Named {
  readonly kind: 'ssh';
  readonly network: Network;
  /** `user@address` */
  readonly login: string;
  /** The name by which known_hosts knows it. */
  readonly host: string;
  readonly path: string;
}

export interface HttpPlace extends Named {
  readonly kind: 'http';
  readonly network: Network;
  readonly url: string;
  readonly server: string;
}

export interface BlockPlace extends Named {
  readonly kind: 'block';
  readonly device: Identity;
}

export type Place = DirectoryPlace | NfsPlace | SshPlace | HttpPlace | BlockPlace;

/** A place with what the capture kernel needs for it. */
export interface FoundPlace {
  readonly place: Place;
  readonly modules: readonly string[];
  readonly aliases: readonly string[];
}

/** @throws UnsupportedError where the capture kernel could not get there */
export async function findPlace(text: string): Promise<FoundPlace> {
  const [, nfsHost, nfsPath] = /^nfs:([^:/]+):(\/.*)$/.exec(text) ?? [];
  if (nfsHost !== undefined) {
    const { server, network, ...needs } = await findHost(text, nfsHost);
    const place: NfsPlace = { kind: 'nfs', text, network, server, exported: nfsPath! };
    return { place, modules: [...needs.modules, 'nfs'], aliases: [...needs.aliases, 'nfs4', 'nfsv3', 'nfsv4'] };
  }
  const [, user, sshHost, sshPath] = /^ssh:(?:([^@:/]+)@)?([^@:/]+)(?::(.+))?$/.exec(text) ?? [];
  if (sshHost !== undefined) {
    const { server, network, ...needs } = await findHost(text, sshHost);
    const login = `${user ?? 'root'}@${server}`;
    return { place: { kind: 'ssh', text, network, login, host: sshHost, path: sshPath ?? '/var/crash' }, ...needs };
  }
  if (/^https?:\/\//.test(text)) {
    const { server, network, ...needs } = await findHost(text, new URL(text).hostname);
    return { place: { kind: 'http', text, network, server, url: text }, ...needs };
  }
  if (text.startsWith('/'))
    return existsSync(text) && statSync(text).isBlockDevice() ? findBlock(text) : findDirectory(text);
  throw unreachable(
    text,
    'it is none of DIR, nfs:HOST:/DIR, ssh:USER@HOST:DIR, http(s)://... and /dev/...',
    'see tideover crash arm --help',
  );
}

/** A directory on a disk. @throws UnsupportedError as `findPlace` */
export function findDirectory(text: string): FoundPlace {
  mkdirSync(text, { recursive: true, mode: 0o700 });
  const path = realpathSync(text);
  const mount = mountOf(path);
  const number = mount.major === 0 ? numberOf(mount.source) : `${mount.major}:${mount.minor}`;
  if (number === undefined) {
    throw unreachable(
      text,
      `its file system, ${mount.type}, is on no disk`,
      'name a directory on a disk, or nfs:, ssh: or http:',
    );
  }
  const folder = plainDevice(text, number);
  const { modules, aliases } = deviceChain(folder);
  const place: DirectoryPlace = {
    kind: 'directory',
    text,
    device: identityOf(folder),
    type: mount.type,
    path: join(mount.root, relative(mount.mountPoint, path)),
  };
  // Most file systems ask the crypto API for it when they are mounted, and only some kernels' lists say so.
  return { place, modules, aliases: [...aliases, `fs-${mount.type}`, 'crypto-crc32c'] };
}

function findBlock(text: string): FoundPlace {
  const folder = plainDevice(text, numberOf(text)!);
  return {
    place: { kind: 'block', text, device: { ...identityOf(folder), content: undefined } },
    ...deviceChain(folder),
  };
}

/** The device's folder in sysfs. @throws UnsupportedError where it is put together of others */
function plainDevice(text: string, number: string): string {
  const folder = blockDevice(number);
  const lower = lowerDevices(folder);
  if (lower.length === 0) return folder;
  const on = lower.map((each) => each.replace(/^.*\//, '')).join(', ');
  throw unreachable(
    text,
    `it lies on a device that is put together of others (${on}): device mapper or RAID, which the capture kernel does not set up`,
    'name a directory on a plain partition, or nfs:, ssh: or http:',
  );
}

/** The last mount at or above a path. */
function mountOf(path: string): Mount {
  const holds = ({ mountPoint }: Mount) =>
    path === mountPoint || path.startsWith(mountPoint === '/' ? '/' : `${mountPoint}/`);
  const found = readMountinfo('self').filter(holds);
  return found.reduce((best, each) => (each.mountPoint.length >= best.mountPoint.length ? each : best));
}

async function findHost(text: string, host: string) {
  const server = isIPv4(host) ? host : await lookupIPv4(text, host);
  const route = routeTo(server);
  if (route === undefined) throw unreachable(text, `there is no route to ${server}`, 'set up the network first');
  const own = networkInterfaces()[route.device]?.find(({ family }) => family === 'IPv4');
  if (own === undefined || own.internal)
    throw unreachable(
      text,
      `${route.device}, by which ${server} is reached, is no network card with an IPv4 address`,
      'name another machine',
    );
  const folder = networkDevice(route.device);
  if (folder.startsWith('/sys/devices/virtual/')) {
    throw unreachable(
      text,
      `${server} is reached by ${route.device}, which is no network card but made of software (a bridge, bond or VLAN)`,
      'name a target that a card reaches by itself',
    );
  }
  const { modules, aliases } = deviceChain(folder);
  const prefix = Number(own.cidr!.split('/')[1]);
  return { server, network: { mac: own.mac, address: own.address, prefix, gateway: route.gateway }, modules, aliases };
}

async function lookupIPv4(text: string, host: string): Promise<string> {
  try {
    return (await lookup(host, { family: 4 })).address;
  } catch (error) {
    throw unreachable(text, `${host} has no IPv4 address: ${(error as Error).message}`, 'name its address');
  }
}

function unreachable(text: string, why: string, remedy: string): UnsupportedError {
  return new UnsupportedError({ what: `saving a crash dump to ${text}`, why, remedy });
}
