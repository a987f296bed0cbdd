import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KernelModules } from '../../../src/sys/modules.ts';
import { missingDrivers, nameFaults } from '../../../src/update/drivers.ts';

const modules: KernelModules = {
  folder: '/lib/modules/x',
  dependencies: new Map([['kernel/drivers/block/virtio_blk.ko.xz', []]]),
  builtin: new Set(['virtio_pci']),
  aliases: [['virtio:d00000001v*', 'virtio_net_new']],
  softDependencies: new Map(),
};

test('a driver is there as a module, built in, or by another name', () => {
  const missing = (names: readonly string[], aliases: readonly string[] = []) =>
    missingDrivers({ modules: names, aliases }, modules);
  assert.deepEqual(missing(['virtio_blk', 'virtio_pci']), []);
  assert.deepEqual(missing(['virtio_pci', 'virtio_net']), ['virtio_net']);
  assert.deepEqual(missing(['virtio_net'], ['virtio:d00000001v00001AF4']), []);
  assert.deepEqual(missing(['virtio_net'], ['virtio:d00000002v00001AF4']), ['virtio_net']);
});

test('names by the order in which devices are found', () => {
  assert.deepEqual(nameFaults('root=/dev/vda1 quiet', ['ens3'], ['vda', 'vda1']), []);
  assert.deepEqual(nameFaults('root=UUID=1', ['eth0'], ['vda', 'vdb']), []);
  assert.match(nameFaults('root=/dev/vda1', [], ['vda', 'vda1', 'vdb'])[0]!, /root=\/dev\/vda1 is a name by the order/);
  assert.match(nameFaults('', ['eth0', 'ens4'], [])[0]!, /\(eth0\)/);
});
