/** The way to an address: /proc/net/route, /proc/net/ipv6_route. */
import { isIPv6 } from 'node:net';
import { addressBytes } from './interface.ts';
import { readProcText } from './proc.ts';

export interface Route {
  readonly device: string;
  /** undefined for a neighbour */
  readonly gateway: string | undefined;
}

/** @param address IPv4 or IPv6 */
export function routeTo(address: string): Route | undefined {
  if (isIPv6(address)) return chooseRoute6(readProcText('/proc/net/ipv6_route'), address);
  return chooseRoute(readProcText('/proc/net/route'), address);
}

const RTF_UP = 1;
/** include/uapi/linux/route.h: there is no way. */
const RTF_REJECT = 0x200;

/** The most exact route of those with the lowest metric. @param table as /proc/net/route, whose addresses are as in memory */
export function chooseRoute(table: string, address: string): Route | undefined {
  const wanted = numberOf(address);
  const routes = table
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields.length >= 8)
    .map(([device, destination, gateway, flags, , , metric, mask]) => ({
      device: device!,
      destination: swapped(destination!),
      gateway: swapped(gateway!),
      up: (Number.parseInt(flags!, 16) & RTF_UP) !== 0,
      metric: Number(metric),
      mask: swapped(mask!),
    }))
    .filter(({ up, destination, mask }) => up && (wanted & mask) >>> 0 === destination)
    .sort((a, b) => b.mask - a.mask || a.metric - b.metric);
  const [best] = routes;
  return best && { device: best.device, gateway: best.gateway === 0 ? undefined : textOf(best.gateway) };
}

/** The same of /proc/net/ipv6_route: 32 hex digits of the destination, its prefix, source, gateway; metric, counts, flags, device. */
export function chooseRoute6(table: string, address: string): Route | undefined {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  const bits = (digits: string) => [...digits].map((digit) => Number.parseInt(digit, 16).toString(2).padStart(4, '0'));
  const wanted = bits(hex(addressBytes(address))).join('');
  const routes = table
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields.length === 10)
    .map(([destination, prefix, , , gateway, metric, , , flags, device]) => ({
      device: device!,
      network: bits(destination!).join('').slice(0, Number.parseInt(prefix!, 16)),
      gateway: gateway!,
      metric: Number.parseInt(metric!, 16),
      flags: Number.parseInt(flags!, 16),
    }))
    .filter(({ flags, network }) => (flags & (RTF_UP | RTF_REJECT)) === RTF_UP && wanted.startsWith(network))
    .sort((a, b) => b.network.length - a.network.length || a.metric - b.metric);
  const [best] = routes;
  const colons = (digits: string) => digits.match(/..../g)!.join(':');
  return best && { device: best.device, gateway: /^0*$/.test(best.gateway) ? undefined : colons(best.gateway) };
}

function swapped(hex: string): number {
  const [a, b, c, d] = hex.match(/../g)!.map((byte) => Number.parseInt(byte, 16));
  return ((d! << 24) | (c! << 16) | (b! << 8) | a!) >>> 0;
}

function numberOf(address: string): number {
  return address.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0);
}

function textOf(address: number): string {
  return [24, 16, 8, 0].map((bits) => (address >>> bits) & 255).join('.');
}
