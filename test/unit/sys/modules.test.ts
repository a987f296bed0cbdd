import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UnsupportedError } from '../../../src/errors.ts';
import {
  aliased,
  type KernelModules,
  loadOrder,
  loadOrderOf,
  moduleName,
  parseModulesBuiltin,
  parseModulesDep,
} from '../../../src/sys/modules.ts';

const dep = `kernel/fs/ext4/ext4.ko.xz: kernel/fs/mbcache.ko.xz kernel/fs/jbd2/jbd2.ko.xz
kernel/fs/mbcache.ko.xz:
kernel/fs/jbd2/jbd2.ko.xz:
kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz kernel/drivers/net/net_failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
`;
const builtin = parseModulesBuiltin('kernel/drivers/virtio/virtio-pci.ko\nkernel/fs/fuse/fuse.ko\n');

test('names are those of /proc/modules', () => {
  assert.equal(moduleName('kernel/drivers/misc/pvpanic/pvpanic-pci.ko.zst'), 'pvpanic_pci');
  assert.equal(moduleName('snd-hda-intel'), 'snd_hda_intel');
});

test('each module comes once and after those that it needs; built-in ones do not come', () => {
  const order = loadOrder(['virtio-net', 'ext4', 'virtio_pci', 'net_failover'], parseModulesDep(dep), builtin);
  assert.deepEqual(order.map(moduleName), ['failover', 'net_failover', 'virtio_net', 'mbcache', 'jbd2', 'ext4']);
});

test('a module that the kernel does not have is named', () => {
  const expected = { name: 'UnsupportedError', message: /kernel module nonesuch: this kernel has it neither/ };
  assert.throws(() => loadOrder(['nonesuch'], parseModulesDep(dep), builtin), expected);
});

test('the order is right for any dependencies', () => {
  // Module i needs some of those before it.
  const needs = fc.array(fc.array(fc.nat(30), { maxLength: 5 }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(needs, fc.array(fc.nat(29), { minLength: 1, maxLength: 5 }), (lists, wanted) => {
      const path = (i: number) => `kernel/m${i}.ko`;
      const of = (i: number) => (lists[i] ?? []).filter((each) => each < i);
      const text = lists.map((_, i) => `${path(i)}: ${of(i).map(path).join(' ')}`).join('\n');
      const names = wanted.map((i) => `m${i % lists.length}`);
      const order = loadOrder(names, parseModulesDep(text), new Set());
      assert.equal(new Set(order).size, order.length);
      for (const name of names) assert.ok(order.includes(`kernel/${name}.ko`));
      for (const [at, each] of order.entries()) {
        for (const needed of of(Number(moduleName(each).slice(1)))) assert.ok(order.indexOf(path(needed)) < at);
      }
    }),
  );
});

const modules: KernelModules = {
  folder: '/none',
  dependencies: parseModulesDep(`${dep}kernel/crypto/crc32c_generic.ko:\nkernel/crypto/crc32c_intel.ko:\n`),
  builtin,
  aliases: [
    ['virtio:d00000001v*', 'virtio_net'],
    ['pci:v0000[18]AF4d*sv?i00', 'virtio_net'],
    ['fs-ext4', 'ext4'],
    ['crypto-crc32c', 'crc32c_intel'],
    ['crypto-crc32c', 'crc32c_generic'],
  ],
  softDependencies: new Map([['ext4', ['crypto-crc32c', 'crypto-nonesuch']]]),
};

test('aliases are patterns', () => {
  assert.deepEqual(aliased('virtio:d00000001v00001AF4', modules), ['virtio_net']);
  assert.deepEqual(aliased('pci:v00001AF4d00001000sv2i00', modules), ['virtio_net']);
  assert.deepEqual(aliased('pci:v00002AF4d00001000sv2i00', modules), []);
  assert.deepEqual(aliased('fs_ext4', modules), ['ext4']);
  assert.deepEqual(aliased('virtio:d00000002v00001AF4', modules), []);
});

test('soft dependencies come before, and need not be there', () => {
  for (const order of [loadOrderOf(['ext4'], [], modules), loadOrderOf([], ['fs-ext4', 'fs-nonesuch'], modules)]) {
    const names = order.map(moduleName);
    assert.deepEqual([...names].sort(), ['crc32c_generic', 'crc32c_intel', 'ext4', 'jbd2', 'mbcache']);
    assert.equal(names.at(-1), 'ext4');
  }
  assert.deepEqual(loadOrderOf(['virtio_pci'], [], modules), []);
  assert.throws(() => loadOrderOf(['nonesuch'], [], modules), UnsupportedError);
});
