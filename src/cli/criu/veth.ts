/** Where the outer ends of veth devices come to be: `eth0=host0` or `eth0=host0@bridge`. */
import type { Peers } from '../../process/network.ts';
import { UsageError } from '../exit.ts';

export function peersOf(pairs: readonly string[]): Peers {
  return new Map(
    pairs.map((pair) => {
      const [, inner, name, bridge] = /^([^=@]+)=([^=@]+)(?:@([^=@]+))?$/.exec(pair) ?? [];
      if (inner === undefined || name === undefined)
        throw new UsageError(`${pair} is not of the form IN=OUT or IN=OUT@BRIDGE`);
      return [inner, { name, bridge }];
    }),
  );
}
