/** In a network of its own: sets up one end of a cable, twice, and says what it has then and where it would send to. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { setTimeout } from 'node:timers/promises';
import { hasCarrier, interfaceKind } from '../../../src/sys/devices.ts';
import { setUp } from '../../../src/sys/interface.ts';
import { routeTo } from '../../../src/sys/routes.ts';
import { findHost } from '../../../src/target/network.ts';

execFileSync('ip', ['link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far']);
execFileSync('ip', ['link', 'set', 'far', 'up']);
const index = Number(readFileSync('/sys/class/net/near/ifindex', 'latin1'));
for (let i = 0; i < 2; i++) {
  setUp(index, { address: '10.9.0.5', prefix: 24, gateway: '10.9.0.1' });
  setUp(index, { address: 'fd00::5', prefix: 64, gateway: 'fd00::1' });
}
// Listed are those that run (IFF_RUNNING), which the kernel sees to by and by when there is a carrier.
while (networkInterfaces().near === undefined) await setTimeout(5);
const refused = await findHost('saving', 'fd00::7', 22).catch((error: Error) => error.message);
const result = {
  addresses: networkInterfaces().near!.map(({ cidr }) => cidr),
  carrier: hasCarrier('near'),
  kind: interfaceKind('near'),
  routes: ['10.9.0.7', '8.8.8.8', 'fd00::7', '2001:db8::1'].map((address) => routeTo(address)),
  refused,
};
console.log(JSON.stringify(result));
