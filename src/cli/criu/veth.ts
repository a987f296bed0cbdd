/** Where the outer ends of veth devices come to be: CRIU's `--veth-pair eth0=host0@bridge` and `--external veth[eth0]:host0@bridge`. */
import type { Peers } from '../../process/network.ts';
import { UsageError } from '../exit.ts';

/** @param external of other kinds are none of these */
export function peersOf(pairs: readonly string[], external: readonly string[]): Peers {
  const others = external
    .filter((each) => each.startsWith('veth['))
    .map((each) => each.replace(/^veth\[([^\]]*)\]:/, '$1='));
  return new Map(
    [...pairs, ...others].map((pair) => {
      const [, inner, name, bridge] = /^([^=@]+)=([^=@]+)(?:@([^=@]+))?$/.exec(pair) ?? [];
      if (inner === undefined || name === undefined)
        throw new UsageError(`${pair} is not of the form IN=OUT or IN=OUT@BRIDGE`);
      return [inner, { name, bridge }];
    }),
  );
}
