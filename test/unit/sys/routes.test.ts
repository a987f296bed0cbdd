import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseRoute } from '../../../src/sys/routes.ts';

const table = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0202000A	0003	0	0	100	00000000	0	0	0
wlan0	00000000	0100A8C0	0003	0	0	600	00000000	0	0	0
eth0	0002000A	00000000	0001	0	0	100	00FFFFFF	0	0	0
eth1	00000A0A	00000000	0000	0	0	0	0000FFFF	0	0	0
`;

test('the most exact route that is up', () => {
  assert.deepEqual(chooseRoute(table, '10.0.2.200'), { device: 'eth0', gateway: undefined });
  assert.deepEqual(chooseRoute(table, '8.8.8.8'), { device: 'eth0', gateway: '10.0.2.2' });
  assert.deepEqual(chooseRoute(table, '10.10.1.1'), { device: 'eth0', gateway: '10.0.2.2' });
  assert.equal(chooseRoute(table.split('\n')[0]!, '8.8.8.8'), undefined);
});
