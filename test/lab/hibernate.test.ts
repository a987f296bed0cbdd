/** A whole machine is saved by another kernel, switched off, and goes on in a new one. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type BootOptions, boot } from '../../lab/boot.ts';
import { emptyDisk, type OwnDisk } from '../../lab/disk.ts';
import type { KernelName } from '../../lab/kernels.ts';
import type { Vm } from '../../lab/vm.ts';
import { kernelsDisk, nextKernel } from './next-kernels.ts';

const NEXT_KERNEL_MS = 300_000;
const END_MS = 120_000;

const disk = await kernelsDisk(['jump', '6.12']);
after(() => disk.remove());

/** A machine: what it is made of, and what is on its disks. */
function machineOf(own: OwnDisk, image: OwnDisk): BootOptions {
  const programs = ['mkfs.ext4', 'e2fsck'];
  return { kernel: 'jump', memory: 1280, cpus: 2, disks: [own, image, disk], programs, append: 'crashkernel=320M' };
}

/** Options that name the kernel that saves or restores. */
async function helper(vm: Vm, name: KernelName): Promise<string> {
  const { vmlinuz, initrdOptions } = await nextKernel(vm, name);
  return `--kernel ${vmlinuz} ${initrdOptions} --append 'console=ttyS0 panic=-1 mitigations=off random.trust_cpu=on'`;
}

/** Begins to hibernate. @returns when the kernel that saves is up */
async function intoSaver(vm: Vm, options: string, name: KernelName = 'jump'): Promise<void> {
  const first = vm.agent.greeting;
  const command = `tideover hibernate --to /dev/vdb ${options} ${await helper(vm, name)} --json`;
  // Not under the agent, which forgets what it runs when another kernel's agent speaks.
  await vm.check(
    `rm -f /tmp/ended; (setsid sh -c "${command} >/tmp/hibernate.log 2>&1; echo \\$? >/tmp/ended" &) </dev/null`,
  );
  const refused = vm.check('until [ -s /tmp/ended ]; do sleep 0.5; done; cat /tmp/hibernate.log');
  const log = await Promise.race([vm.nextKernel(first, NEXT_KERNEL_MS), refused]);
  if (typeof log === 'string') throw new Error(log);
  refused.catch(() => {});
}

/** Lets the kernel that was started for it save or restore. */
function obey(vm: Vm): void {
  void vm.run('tideover hibernate stage >/dev/console 2>&1').catch(() => {});
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

test('saved and going on at once; switched off, and going on in another machine; once only', async () => {
  const [own, image] = [emptyDisk(256 << 20), emptyDisk(2 ** 31)];
  const machine = machineOf(own, image);
  try {
    const vm = await boot(machine);
    let self: string | undefined;
    try {
      await startWork(vm);
      self = vm.agent.greeting?.agent;
      await intoSaver(vm, '--test');
      const saver = vm.agent.greeting;
      obey(vm);
      await vm.nextKernel(saver, NEXT_KERNEL_MS);
      assert.equal(vm.agent.greeting?.agent, self, 'the machine goes on with the processes it had');
      console.log(await ended(vm));
      await checkWork(vm);

      await intoSaver(vm, '');
      obey(vm);
      await Promise.race([vm.exited, new Promise((_, reject) => setTimeout(reject, END_MS, new Error('still on')))]);
    } finally {
      await vm.close();
    }

    const next = await boot(machine);
    try {
      const began = next.agent.greeting;
      void next.run(`tideover resume ${await helper(next, 'jump')}`).catch(() => {});
      const restorer = await next.nextKernel(began, NEXT_KERNEL_MS);
      obey(next);
      await next.nextKernel(restorer, NEXT_KERNEL_MS);
      assert.equal(next.agent.greeting?.agent, self, 'the machine that was saved goes on');
      console.log(await ended(next));
      await checkWork(next);
    } finally {
      await next.close();
    }
  } finally {
    own.remove();
    image.remove();
  }
});
