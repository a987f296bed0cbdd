/** A network as another kernel sets it up, in a namespace. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { rootTest } from '../root.ts';

rootTest('a card has its addresses and the ways to everywhere at once, of both families', () => {
  const program = join(import.meta.dirname, 'interface.ts');
  // sysfs shows the network of who has mounted it.
  const script = 'mount -t sysfs sysfs /sys && exec "$0" "$1"';
  const output = execFileSync('unshare', ['--net', '--mount', 'sh', '-c', script, process.execPath, program], {
    encoding: 'utf8',
  });
  const { addresses, carrier, kind, routes, refused } = JSON.parse(output);
  assert.ok(addresses.includes('10.9.0.5/24') && addresses.includes('fd00::5/64'), addresses);
  assert.equal(carrier, true);
  assert.deepEqual(routes, [
    { device: 'near' },
    { device: 'near', gateway: '10.9.0.1' },
    { device: 'near' },
    { device: 'near', gateway: 'fd00:0000:0000:0000:0000:0000:0000:0001' },
  ]);
  assert.equal(kind, 'virtual');
  assert.match(refused, /fd00::7 is reached by near, which is no network card but of the kind virtual/);
});
