/** The way to a server, for a kernel that has nothing of this system's network but what is written down here. */
import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { BlockList, connect as connectTo, isIPv6 } from 'node:net';
import { networkInterfaces as addresses, type NetworkInterfaceInfo } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { UnsupportedError } from '../errors.ts';
import { deviceChain, hasCarrier, interfaceKind, networkDevice, networkInterfaces } from '../sys/devices.ts';
import { type InterfaceAddress, setUp } from '../sys/interface.ts';
import { routeTo } from '../sys/routes.ts';

/** An interface by its hardware address, and what it is given: what it has now, whoever it has that from (DHCP too). */
export interface Network extends InterfaceAddress {
  readonly mac: string;
}

export interface Host {
  readonly network: Network;
  /** Its address, IPv4 or IPv6. */
  readonly server: string;
  readonly port: number;
}

/**
 * @param what for messages @param name of the server, or its address @param port of TCP
 * @throws UnsupportedError that names the interface, where the way goes over more than a network card
 */
export async function findHost(what: string, name: string, port: number) {
  const refuse = (why: string, remedy: string): never => {
    throw new UnsupportedError({ what, why, remedy });
  };
  const server = (
    await lookup(name.replace(/^\[(.*)\]$/, '$1')).catch((error: Error) =>
      refuse(`${name} has no address: ${error.message}`, 'name its address'),
    )
  ).address;
  const all = addresses();
  if (Object.values(all).some((own) => own?.some(({ address }) => address === server)) || server.startsWith('127.')) {
    refuse(`${server} is this machine itself`, 'name another machine');
  }
  const route = routeTo(server) ?? refuse(`there is no route to ${server}`, 'set up the network first');
  const { device, gateway } = route;
  const kind = interfaceKind(device);
  if (kind !== 'card') {
    refuse(
      `${server} is reached by ${device}, which is no network card but of the kind ${kind}, which the other kernel does not set up`,
      'name a target that a card reaches by itself',
    );
  }
  const own =
    ownAddress(all[device] ?? [], gateway ?? server) ??
    refuse(
      `${device}, by which ${server} is reached, has no IPv${isIPv6(server) ? 6 : 4} address to call from`,
      'give it one',
    );
  const { modules, aliases } = deviceChain(networkDevice(device));
  const network: Network = { mac: own.mac, address: own.address, prefix: prefixOf(own), gateway };
  const host: Host = { network, server, port };
  return { host, modules, aliases };
}

/** Of an interface's addresses the one that is in the network of a neighbour, or one that is good everywhere. */
export function ownAddress(own: readonly NetworkInterfaceInfo[], neighbour: string): NetworkInterfaceInfo | undefined {
  const family = isIPv6(neighbour) ? 'IPv6' : 'IPv4';
  const candidates = own.filter((each) => each.family === family && !each.internal && !/^fe80:/i.test(each.address));
  const isNear = (each: NetworkInterfaceInfo) => {
    const list = new BlockList();
    list.addSubnet(each.address, prefixOf(each), family === 'IPv6' ? 'ipv6' : 'ipv4');
    return list.check(neighbour, family === 'IPv6' ? 'ipv6' : 'ipv4');
  };
  return candidates.find(isNear) ?? candidates[0];
}

function prefixOf({ cidr }: NetworkInterfaceInfo): number {
  return Number(cidr!.split('/')[1]);
}

const DEVICE_MS = 30_000;
const CARRIER_MS = 60_000;
const ANSWER_MS = 60_000;
const TRY_MS = 10_000;

/** In the other kernel: sets the card up, and waits until the server answers. @throws Error with what is missing */
export async function connect({ network, server, port }: Host): Promise<void> {
  const card = () => networkInterfaces().find(({ address }) => address === network.mac);
  const { name } = await until(card, DEVICE_MS, `the network card ${network.mac}`);
  setUp(Number(readFileSync(`/sys/class/net/${name}/ifindex`, 'latin1')), network);
  await until(() => hasCarrier(name) || undefined, CARRIER_MS, `a link on ${name}`);
  // A switch may take half a minute before it passes anything on.
  const end = Date.now() + ANSWER_MS;
  for (;;) {
    const failure = await tryOnce(server, port);
    if (failure === undefined) return;
    if (Date.now() > end) throw new Error(`${server} does not answer at port ${port}: ${failure.message}`);
    await delay(1000);
  }
}

function tryOnce(host: string, port: number): Promise<Error | undefined> {
  return new Promise((resolve) => {
    const socket = connectTo({ host, port, timeout: TRY_MS });
    const end = (failure?: Error) => {
      socket.destroy();
      resolve(failure);
    };
    socket.once('connect', () => end());
    socket.once('timeout', () => end(new Error('no answer')));
    socket.once('error', end);
  });
}

/** Devices come by and by after their drivers. */
export async function until<T>(look: () => T | undefined, milliseconds: number, what: string): Promise<T> {
  for (const end = Date.now() + milliseconds; ; await delay(200)) {
    const found = look();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error(`there is no sign of ${what} after ${milliseconds / 1000} s`);
  }
}
