/** Preserved memory over a change of kernels, in guests: stock kernels, and no more than tideover in them. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import { type KernelName, kernel } from '../../lab/kernels.ts';
import { guestRoot } from '../../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';

const project = new URL('../..', import.meta.url).pathname;
const NEXT_KERNEL_MS = 120_000;
const MIB = 1 << 20;

/** Copies the sources with the programs of test/lab/guest into the guest. */
async function bringPrograms(vm: Vm): Promise<void> {
  await vm.check('mkdir -p /tmp/t/test/lab');
  await vm.copyIn(join(project, 'src'), '/tmp/t/src');
  await vm.copyIn(join(project, 'dist/koffi.node'), '/tmp/t/src/koffi.node');
  await vm.copyIn(join(project, 'test/lab/guest'), '/tmp/t/test/lab/guest');
  await vm.copyIn(join(project, 'package.json'), '/tmp/t/package.json');
}

/** Saves three nodes and has a process hold them. @returns what it reports */
async function keep(vm: Vm, bytes: number, next = '') {
  const command = `node /tmp/t/test/lab/guest/pkram-keep.ts /tmp/files ${bytes} /tmp/kept ${next}`;
  await vm.check(`mkdir /tmp/files; (setsid ${command} >/tmp/log 2>&1 </dev/null &)`);
  const wait = 'for i in $(seq 240); do [ -e /tmp/kept ] && break; sleep 1; done; cat /tmp/kept || cat /tmp/log';
  return JSON.parse(await vm.check(wait, { timeout: 300_000 }));
}

/** Loads what keep() left, in the kernel that runs now. */
async function find(vm: Vm) {
  return JSON.parse(await vm.check('node /tmp/t/test/lab/guest/pkram-find.ts /tmp/files', { timeout: 300_000 }));
}

/** Puts a kernel and its root into the guest as /tmp/vmlinuz and /tmp/initrd. */
async function bring(vm: Vm, name: KernelName): Promise<string> {
  const next = await kernel(name);
  const folder = temporaryFolder();
  try {
    writeFileSync(join(folder, 'initrd'), await guestRoot(next));
    await vm.copyIn(next.vmlinuz, '/tmp/vmlinuz');
    await vm.copyIn(join(folder, 'initrd'), '/tmp/initrd');
  } finally {
    removeTemporary(folder);
  }
  return next.release;
}

test('nodes in huge pages of 6.12 are found by 6.18, whole, and are off the list then', async () => {
  const vm = await boot({ kernel: '6.12', memory: 1024 });
  try {
    const release = await bring(vm, '6.18');
    await bringPrograms(vm);
    const commandLine = (await vm.check('cat /proc/cmdline')).trim();
    assert.ok(!/nokaslr/.test(commandLine));
    const kept = await keep(vm, 40 * MIB, `/tmp/vmlinuz /tmp/initrd '${commandLine}'`);
    assert.ok(kept.size >= 120 * MIB);
    const before = vm.agent.greeting;
    void vm.run('tideover kexec exec').catch(() => {});
    assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
    await bringPrograms(vm);
    const found = await find(vm);
    assert.deepEqual(found.digests, kept.digests);
    assert.deepEqual([found.superblock, found.ranges, found.size], [kept.superblock, kept.ranges, kept.size]);
    assert.equal(found.left, 0);
    assert.match(found.kernel, /^6\.12/, 'it says under which kernel it was saved');
    assert.deepEqual((await find(vm)).digests, {});
  } finally {
    await vm.close();
  }
});

test('a capture kernel finds the nodes whole that were finished, and nothing of the one in the middle of which was the panic', async () => {
  const vm = await boot({ kernel: '6.12', memory: 1024, append: 'crashkernel=384M' });
  try {
    const release = await bring(vm, '6.12');
    await bringPrograms(vm);
    const kept = await keep(vm, 8 * MIB);
    const append = `console=ttyS0 panic=-1 nr_cpus=1 reset_devices tideover.pkram=0x${kept.superblock.toString(16)}`;
    await vm.check(`tideover kexec -p /tmp/vmlinuz --initrd /tmp/initrd --append '${append}'`, { timeout: 120_000 });
    const before = vm.agent.greeting;
    void vm.run('echo c >/proc/sysrq-trigger').catch(() => {});
    assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
    await bringPrograms(vm);
    const found = await find(vm);
    assert.deepEqual(found.digests, kept.digests);
    assert.equal(found.left, 0);
  } finally {
    await vm.close();
  }
});
