/** A whole machine is saved by another kernel, switched off, and goes on in a new one. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type BootOptions, boot } from '../../lab/boot.ts';
import { cacheDirectory } from '../../lab/cache.ts';
import { within } from '../../lab/deadline.ts';
import { emptyDisk, type OwnDisk } from '../../lab/disk.ts';
import type { Vm } from '../../lab/vm.ts';
import { systemImage } from '../../src/kexec/system.ts';
import { KERNELS, kernelsDisk, nextKernel } from './next-kernels.ts';

const NEXT_KERNEL_MS = 300_000;
const SLOW = { timeout: NEXT_KERNEL_MS };

const dist = new URL('../../dist', import.meta.url).pathname;
const system = readFileSync(systemImage({ cache: join(cacheDirectory(), 'systems'), bundle: dist }));
const disk = await kernelsDisk(['jump', '6.12'], { system });
after(() => disk.remove());

/** On a busy host, emulated timers are not what a kernel expects when it tries them. */
const EMULATED = 'no_timer_check';

/** A machine: what it is made of, and what is on its disks. */
function machineOf(own: OwnDisk, image: OwnDisk, small: OwnDisk): BootOptions {
  const programs = ['mkfs.ext4', 'e2fsck'];
  return {
    kernel: 'jump',
    memory: 1280,
    cpus: 2,
    disks: [own, image, small, disk],
    programs,
    append: 'crashkernel=256M',
  };
}

/** Options that name the kernel that saves or restores. */
async function helper(vm: Vm): Promise<string> {
  const { vmlinuz } = await nextKernel(vm, 'jump');
  const append = `console=ttyS0 panic=10 mitigations=off random.trust_cpu=on ${EMULATED}`;
  return `--kernel ${vmlinuz} --system ${KERNELS}/system --append '${append}'`;
}

/** Begins to hibernate, and returns when the other kernel has said something. */
async function hibernate(vm: Vm, options: string, until: RegExp): Promise<void> {
  const since = vm.console.text.length;
  const command = `tideover hibernate ${options} ${await helper(vm)} --json`;
  // Not under the agent, for which nobody speaks meanwhile.
  await vm.check(
    `rm -f /tmp/ended; (setsid sh -c "${command} >/tmp/hibernate.log 2>/dev/null; echo \\$? >/tmp/ended; grep error /tmp/hibernate.log >/dev/console" &) </dev/null`,
  );
  // Where it was refused there is nothing to wait for.
  await vm.waitFor(new RegExp(`${until.source}|"error"`), NEXT_KERNEL_MS, since);
}

/** How the command ended that had begun to hibernate. */
async function ended(vm: Vm, status = 0): Promise<{ outcome?: string; error?: { message: string } }> {
  const log = await vm.check(
    `until [ -s /tmp/ended ]; do sleep 0.1; done; cat /tmp/hibernate.log; [ $(cat /tmp/ended) = ${status} ]`,
    SLOW,
  );
  return JSON.parse(log);
}

async function startWork(vm: Vm): Promise<void> {
  await vm.check('mkfs.ext4 -q /dev/vda && mkdir -p /mnt/own && mount /dev/vda /mnt/own');
  const background = (script: string) => vm.check(`sh -c '${script}' </dev/null >/dev/null 2>&1 &`);
  await background('i=0; while :; do i=$((i + 1)); echo $i >/tmp/counter; sleep 0.1; done');
  await background(
    'echo $$ >/tmp/writer; while sleep 0.3; do dd if=/dev/urandom of=/mnt/own/random bs=64k count=8; done',
  );
  await vm.check('dd if=/dev/urandom of=/tmp/random bs=1M count=64; md5sum /tmp/random >/tmp/random.md5', SLOW);
}

async function checkWork(vm: Vm): Promise<void> {
  const now = Number(await vm.check('cat /tmp/counter'));
  await vm.check(`until [ "$(cat /tmp/counter)" -gt ${now} ]; do sleep 0.1; done`);
  await vm.check('md5sum -c /tmp/random.md5', SLOW);
  const write = 'head -c 2000000 /dev/urandom >/mnt/own/more && md5sum /mnt/own/more >/mnt/own/md5 && sync';
  await vm.check(`${write} && echo 3 >/proc/sys/vm/drop_caches && md5sum -c /mnt/own/md5`);
  await vm.check('ping -c 1 -W 5 10.0.2.2');
  assert.equal((await vm.check('nproc')).trim(), '2');
}

/** The kernel says so when it is back from the other one. */
const GOES_ON = /Restarting tasks: Done/;

/** Boots, does something, and cuts the power. */
async function inMachine<T>(machine: BootOptions, run: (vm: Vm) => Promise<T>): Promise<T> {
  const vm = await boot(machine);
  try {
    return await run(vm);
  } catch (error) {
    console.log(vm.console.text.slice(-8000));
    throw error;
  } finally {
    await vm.close();
  }
}

/** What the initramfs of the normal boot does, with what setup has written for it. */
async function prepareBoot(vm: Vm): Promise<void> {
  await vm.check('mkdir -p /etc/initramfs-tools');
  const { written } = JSON.parse(
    await vm.check(`tideover hibernate setup --to /dev/vdb ${await helper(vm)} --json`, SLOW),
  );
  assert.equal(written.length, 3);
  await vm.check('mv /var/lib/tideover/hibernate /tideover');
}

const SCRIPT = 'sh /etc/initramfs-tools/scripts/local-premount/tideover';

/** Boots the machine once more and lets it go on. @param how options of resume @param then what to look at then */
async function goOn(
  machine: BootOptions,
  self: string | undefined,
  how: (vm: Vm) => Promise<string>,
  then?: (vm: Vm) => Promise<void>,
): Promise<void> {
  await inMachine(machine, async (vm) => {
    const began = vm.agent.greeting;
    void vm.run(await how(vm), SLOW).catch(() => {});
    await vm.waitFor(GOES_ON, NEXT_KERNEL_MS);
    assert.equal((await vm.nextKernel(began, NEXT_KERNEL_MS)).agent, self, 'the machine that was saved goes on');
    assert.equal((await ended(vm)).outcome, 'resumed');
    await checkWork(vm);
    await then?.(vm);
  });
}

/** Software emulation compresses slowly. */
const QUICK = '--compress none';

test('where there is no room it goes on; switched off, it goes on in another machine, and once only', async () => {
  const [own, image, small] = [emptyDisk(256 << 20), emptyDisk(2 ** 31), emptyDisk(48 << 20)];
  const machine = machineOf(own, image, small);
  try {
    const self = await inMachine(machine, async (vm) => {
      await startWork(vm);
      await hibernate(vm, `--to /dev/vdc ${QUICK}`, GOES_ON);
      assert.match((await ended(vm, 1)).error!.message, /goes on: ENOSPC/);
      assert.match(await vm.check('dmesg'), /tideover: this machine goes on: failed: ENOSPC/);
      await checkWork(vm);
      await hibernate(vm, `--to /dev/vdb ${QUICK}`, /tideover: saved .* as \d+ MB/);
      await within(NEXT_KERNEL_MS, 'the machine is off', vm.exited);
      return vm.agent.greeting?.agent;
    });
    const resume = async (vm: Vm) => `tideover resume ${await helper(vm)}`;
    await goOn(machine, self, resume, async (vm) => {
      const shown = JSON.parse(await vm.check('tideover image show /dev/vdb --json', SLOW));
      assert.equal(shown.state, 'used');
      assert.match(await vm.check(await resume(vm), SLOW), /has been resumed before/);
    });
  } finally {
    for (const each of [own, image, small]) each.remove();
  }
});

const TESTS = 10;
const CUTS = 20;

if (process.env.TIDEOVER_FULL) {
  for (const firmware of ['bios', 'uefi'] as const) {
    test(`${firmware}: ${TESTS} times saved and going on; then to a file, switched off, and going on`, async () => {
      const [own, image, small] = [emptyDisk(256 << 20), emptyDisk(2 ** 31), emptyDisk(48 << 20)];
      const machine = { ...machineOf(own, image, small), firmware, memory: 2048 };
      try {
        let extents = '';
        const self = await inMachine(machine, async (vm) => {
          await startWork(vm);
          await vm.check(
            'mkfs.ext4 -q /dev/vdb && mkdir -p /mnt/image /etc/initramfs-tools && mount /dev/vdb /mnt/image',
          );
          await vm.check('dd if=/dev/zero of=/mnt/image/file bs=1M count=1500', SLOW);
          for (let i = 0; i < TESTS; i++) {
            await hibernate(vm, '--test --to /mnt/image/file', GOES_ON);
            assert.equal((await ended(vm)).outcome, 'tested');
            await checkWork(vm);
          }
          await vm.check(`tideover hibernate setup --to /mnt/image/file ${await helper(vm)}`, SLOW);
          extents = await vm.check('cat /var/lib/tideover/hibernate/extents');
          await hibernate(vm, '--to /mnt/image/file', /tideover: saved .* as \d+ MB/);
          await within(NEXT_KERNEL_MS, 'the machine is off', vm.exited);
          return vm.agent.greeting?.agent;
        });
        await goOn(machine, self, async (vm) => {
          await vm.check('cat >/tmp/extents', { input: extents });
          return `tideover resume --extents /tmp/extents ${await helper(vm)}`;
        });
      } finally {
        for (const each of [own, image, small]) each.remove();
      }
    });
  }

  test('the script of the initramfs finds the image; a damaged one is not resumed', async () => {
    const [own, image, small] = [emptyDisk(256 << 20), emptyDisk(2 ** 31), emptyDisk(48 << 20)];
    const machine = machineOf(own, image, small);
    try {
      const self = await inMachine(machine, async (vm) => {
        await startWork(vm);
        await hibernate(vm, '--to /dev/vdb', /tideover: saved .* as \d+ MB/);
        await within(NEXT_KERNEL_MS, 'the machine is off', vm.exited);
        return vm.agent.greeting?.agent;
      });
      await inMachine(machine, async (vm) => {
        assert.match(await vm.check('tideover crash sys /dev/vdb', SLOW), /RELEASE: 7\./);
        await vm.check('dd if=/dev/vdb of=/tmp/block bs=4096 skip=1 count=1');
        await vm.check('dd if=/dev/urandom of=/dev/vdb bs=4096 seek=1 count=1 && sync');
        const { status } = await vm.run(`tideover resume ${await helper(vm)}`, SLOW);
        assert.equal(status, 5);
        await vm.check('dd if=/tmp/block of=/dev/vdb bs=4096 seek=1 count=1 && sync');
      });
      await goOn(
        machine,
        self,
        async (vm) => {
          await prepareBoot(vm);
          return SCRIPT;
        },
        async (vm) => {
          await vm.check('kill $(cat /tmp/writer); umount /mnt/own && e2fsck -f -n /dev/vda');
        },
      );
    } finally {
      for (const each of [own, image, small]) each.remove();
    }
  });

  test(`${CUTS} power cuts at any moment: it goes on, or boots; never twice`, async () => {
    const [own, image, small] = [emptyDisk(256 << 20), emptyDisk(2 ** 31), emptyDisk(48 << 20)];
    const machine = machineOf(own, image, small);
    const wait = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
    try {
      for (let cut = 0; cut < CUTS; cut++) {
        const moment = Math.random();
        const self = await inMachine(machine, async (vm) => {
          await startWork(vm);
          await hibernate(vm, '--to /dev/vdb', /tideover: saving/);
          // The second half of the cuts come while it is restored.
          if (cut < CUTS / 2) await wait(moment * 20_000);
          else await within(NEXT_KERNEL_MS, 'the machine is off', vm.exited);
          return vm.agent.greeting?.agent;
        });
        if (cut >= CUTS / 2) {
          await inMachine(machine, async (vm) => {
            void vm.run(`tideover resume ${await helper(vm)}`).catch(() => {});
            await vm.waitFor(/tideover: restoring/, NEXT_KERNEL_MS);
            await wait(moment * 20_000);
          });
        }
        await inMachine(machine, async (vm) => {
          const resumed = vm.waitFor(GOES_ON, NEXT_KERNEL_MS).then(() => 'goes on');
          const began = vm.agent.greeting;
          const command = vm.check(`tideover resume ${await helper(vm)}`, SLOW);
          const how = await Promise.race([resumed, command]);
          console.log(`cut ${cut} at ${moment.toFixed(3)}: ${how.trim()}`);
          for (const each of [resumed, command]) each.catch(() => {});
          if (how !== 'goes on') {
            assert.match(how, /there is no image|has been resumed before/);
            return;
          }
          assert.equal((await vm.nextKernel(began, NEXT_KERNEL_MS)).agent, self);
          await checkWork(vm);
          assert.match(await vm.check(`tideover resume ${await helper(vm)}`), /has been resumed before/);
        });
      }
    } finally {
      for (const each of [own, image, small]) each.remove();
    }
  });

  test('saved and restored by a kernel of Debian, with an initramfs of its own', async () => {
    const [own, image, small] = [emptyDisk(256 << 20), emptyDisk(2 ** 31), emptyDisk(48 << 20)];
    const machine = { ...machineOf(own, image, small), append: `crashkernel=384M ${EMULATED}` };
    const debian = async (vm: Vm) => {
      const { vmlinuz, initrdOptions } = await nextKernel(vm, '6.12');
      return `--kernel ${vmlinuz} ${initrdOptions} --append 'console=ttyS0 panic=-1 mitigations=off'`;
    };
    /** The agent of that initramfs has to be told what the kernel is for. */
    const obey = async (vm: Vm, before: Vm['agent']['greeting']) => {
      const { release } = await vm.nextKernel(before, NEXT_KERNEL_MS);
      assert.match(release, /^6\.12/);
      void vm.run('tideover hibernate stage', SLOW).catch(() => {});
    };
    try {
      const self = await inMachine(machine, async (vm) => {
        await startWork(vm);
        const first = vm.agent.greeting;
        const command = `tideover hibernate --to /dev/vdb ${await debian(vm)} --json`;
        await vm.check(
          `(setsid sh -c "${command} >/tmp/hibernate.log 2>/dev/null; echo \\$? >/tmp/ended" &) </dev/null`,
        );
        await obey(vm, first);
        await within(NEXT_KERNEL_MS, 'the machine is off', vm.exited);
        return first?.agent;
      });
      await inMachine(machine, async (vm) => {
        const began = vm.agent.greeting;
        void vm.run(`tideover resume ${await debian(vm)}`, SLOW).catch(() => {});
        await obey(vm, began);
        await vm.waitFor(GOES_ON, NEXT_KERNEL_MS);
        const restorer = vm.agent.greeting;
        assert.equal((await vm.nextKernel(restorer, NEXT_KERNEL_MS)).agent, self);
        assert.equal((await ended(vm)).outcome, 'resumed');
        await checkWork(vm);
      });
    } finally {
      for (const each of [own, image, small]) each.remove();
    }
  });
}
