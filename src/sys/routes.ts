/** The way to an IPv4 address: /proc/net/route. */
import { readProcText } from './proc.ts';

export interface Route {
  readonly device: string;
  /** undefined for a neighbour */
  readonly gateway: string | undefined;
}

export function routeTo(address: string): Route | undefined {
  return chooseRoute(readProcText('/proc/net/route'), address);
}

const RTF_UP = 1;

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
