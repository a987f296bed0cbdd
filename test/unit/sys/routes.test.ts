import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressBytes } from '../../../src/sys/interface.ts';
import { chooseRoute, chooseRoute6 } from '../../../src/sys/routes.ts';

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

const table6 = `fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
20010db8000000000000000000000000 20 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00200200       lo
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000003 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000002 00000100 00000003 00000000 00000003     eth1
`;

test('the same of IPv6', () => {
  assert.deepEqual(chooseRoute6(table6, 'fd00::7'), { device: 'eth0', gateway: undefined });
  assert.deepEqual(chooseRoute6(table6, '2001:db8::1'), {
    device: 'eth1',
    gateway: 'fe80:0000:0000:0000:0000:0000:0000:0002',
  });
  assert.equal(chooseRoute6('', 'fd00::7'), undefined);
});

test('addresses as bytes', () => {
  const hex = (address: string) => Buffer.from(addressBytes(address)).toString('hex');
  assert.equal(hex('10.0.2.15'), '0a00020f');
  assert.equal(hex('fd00::1:0'), 'fd000000000000000000000000010000');
  assert.equal(hex('::'), '0'.repeat(32));
  assert.equal(hex('::ffff:10.0.2.15'), `${'0'.repeat(20)}ffff0a00020f`);
  assert.equal(hex('1:2:3:4:5:6:7:8'), '00010002000300040005000600070008');
});
