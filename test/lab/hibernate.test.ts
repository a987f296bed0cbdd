/** A whole machine is saved by another kernel, switched off, and goes on in a new one. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type BootOptions, boot } from '../../lab/boot.ts';
import { cacheDirectory } from '../../lab/cache.ts';
import { emptyDisk, type OwnDisk } from '../../lab/disk.ts';
import type { Vm } from '../../lab/vm.ts';
import { systemImage } from '../../src/kexec/system.ts';
import { KERNELS, kernelsDisk, nextKernel } from './next-kernels.ts';

const NEXT_KERNEL_MS = 300_000;

const dist = new URL('../../dist', import.meta.url).pathname;
const system = readFileSync(systemImage({ cache: join(cacheDirectory(), 'systems'), bundle: dist }));
const disk = await kernelsDisk(['jump', '6.12'], { system });
after(() => disk.remove());

/** A machine: what it is made of, and what is on its disks. */
function machineOf(own: OwnDisk, image: OwnDisk): BootOptions {
  const programs = ['mkfs.ext4', 'e2fsck'];
  return { kernel: 'jump', memory: 1280, cpus: 2, disks: [own, image, disk], programs, append: 'crashkernel=256M' };
}

/** Options that name the kernel that saves or restores. */
async function helper(vm: Vm): Promise<string> {
  const { vmlinuz } = await nextKernel(vm, 'jump');
  return `--kernel ${vmlinuz} --system ${KERNELS}/system`;
}

/** Begins to hibernate, and returns when the other kernel has said something. */
async function hibernate(vm: Vm, options: string, until: RegExp): Promise<void> {
  const since = vm.console.text.length;
  const command = `tideover hibernate --to /dev/vdb ${options} ${await helper(vm)} --json`;
  // Not under the agent, for which nobody speaks meanwhile.
  await vm.check(
    `rm -f /tmp/ended; (setsid sh -c "${command} >/tmp/hibernate.log 2>&1; echo \\$? >/tmp/ended; [ \\$? = 0 ] || cat /tmp/hibernate.log >/dev/console" &) </dev/null`,
  );
  await vm.waitFor(until, NEXT_KERNEL_MS, since);
}

/** How the command ended that had begun to hibernate. */
async function ended(
  vm: Vm,
  status = 0,
): Promise<{ outcome: string; bytes: number; seconds: number; message: string }> {
  const log = await vm.check(
    `until [ -s /tmp/ended ]; do sleep 0.1; done; cat /tmp/hibernate.log; [ $(cat /tmp/ended) = ${status} ]`,
  );
  return JSON.parse(log.slice(log.indexOf('{')));
}

async function startWork(vm: Vm): Promise<void> {
  await vm.check('mkfs.ext4 -q /dev/vda && mkdir -p /mnt/own && mount /dev/vda /mnt/own');
  const background = (script: string) => vm.check(`(${script}) </dev/null >/dev/null 2>&1 &`);
  await background('i=0; while :; do i=$((i + 1)); echo $i >/tmp/counter; sleep 0.1; done');
  await background('while sleep 0.3; do dd if=/dev/urandom of=/mnt/own/random bs=64k count=8; done');
  await vm.check('head -c 150000000 /dev/urandom >/tmp/random; md5sum /tmp/random >/tmp/random.md5');
}

async function checkWork(vm: Vm): Promise<void> {
  const now = Number(await vm.check('cat /tmp/counter'));
  await vm.check(`until [ "$(cat /tmp/counter)" -gt ${now} ]; do sleep 0.1; done`);
  await vm.check('md5sum -c /tmp/random.md5');
  const write = 'head -c 2000000 /dev/urandom >/mnt/own/more && md5sum /mnt/own/more >/mnt/own/md5 && sync';
  await vm.check(`${write} && echo 3 >/proc/sys/vm/drop_caches && md5sum -c /mnt/own/md5`);
  await vm.check('ping -c 1 -W 5 10.0.2.2');
  assert.equal((await vm.check('nproc')).trim(), '2');
}

/** The kernel says so when it is back from the other one. */
const GOES_ON = /Restarting tasks: Done/;

test('saved and going on at once; switched off, and going on in another machine; once only', async () => {
  const [own, image] = [emptyDisk(256 << 20), emptyDisk(2 ** 31)];
  const machine = machineOf(own, image);
  try {
    const vm = await boot(machine);
    const self = vm.agent.greeting?.agent;
    try {
      await startWork(vm);
      await hibernate(vm, '--test', GOES_ON);
      assert.equal((await ended(vm)).outcome, 'tested');
      await checkWork(vm);

      await hibernate(vm, '', /tideover: saved .* as \d+ MB/);
      await vm.exited;
    } finally {
      console.log(vm.console.text.slice(-6000));
      await vm.close();
    }

    const next = await boot(machine);
    try {
      const began = next.agent.greeting;
      void next.run(`tideover resume ${await helper(next)}`).catch(() => {});
      await next.waitFor(GOES_ON, NEXT_KERNEL_MS);
      assert.equal((await next.nextKernel(began, NEXT_KERNEL_MS)).agent, self, 'the machine that was saved goes on');
      assert.equal((await ended(next)).outcome, 'resumed');
      await checkWork(next);
    } finally {
      console.log(next.console.text.slice(-6000));
      await next.close();
    }
  } finally {
    own.remove();
    image.remove();
  }
});
