/** Preserved memory over a change of kernels, in guests: stock kernels, and no more than tideover in them. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type BootOptions, boot } from '../../lab/boot.ts';
import { type KernelName, kernel } from '../../lab/kernels.ts';
import { guestRoot } from '../../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';

const project = new URL('../..', import.meta.url).pathname;
const full = process.env.TIDEOVER_FULL !== undefined;
const NEXT_KERNEL_MS = 180_000;
const SLOW = { timeout: 900_000 };
const MIB = 1 << 20;
const BLOCK = 128 * MIB;
/** They make soft-reserved memory ordinary, and must not be loaded before it is wanted. */
const spareModules = ['device_dax', 'dax_hmem', 'kmem'];

/** Boots a guest, does something in it, and ends it. */
async function inGuest(options: BootOptions, run: (vm: Vm) => Promise<void>): Promise<void> {
  const vm = await boot(options);
  try {
    await run(vm);
  } finally {
    await vm.close();
  }
}

/** Copies the sources with the programs of test/lab/guest into the guest. */
async function bringPrograms(vm: Vm): Promise<void> {
  await vm.check('mkdir -p /tmp/t/test/lab');
  await vm.copyIn(join(project, 'src'), '/tmp/t/src');
  await vm.copyIn(join(project, 'dist/koffi.node'), '/tmp/t/src/koffi.node');
  await vm.copyIn(join(project, 'test/lab/guest'), '/tmp/t/test/lab/guest');
  await vm.copyIn(join(project, 'package.json'), '/tmp/t/package.json');
}

/** Saves three nodes. @returns what the program says of them */
async function keep(vm: Vm, bytes: number, size = bytes, how = '') {
  await bringPrograms(vm);
  return JSON.parse(await vm.check(`node /tmp/t/test/lab/guest/pkram-keep.ts ${bytes} ${size} ${how}`, SLOW));
}

/** Reads what keep() left, in the kernel that runs now. */
async function find(vm: Vm, how = '') {
  await bringPrograms(vm);
  return JSON.parse(await vm.check(`node /tmp/t/test/lab/guest/pkram-find.ts ${how}`, SLOW));
}

async function json(vm: Vm, command: string) {
  return JSON.parse(await vm.check(`${command} --json`, SLOW));
}

/** Puts a kernel and its root into the guest as /tmp/vmlinuz and /tmp/initrd. */
async function bring(vm: Vm, name: KernelName): Promise<string> {
  const next = await kernel(name);
  const folder = temporaryFolder();
  try {
    writeFileSync(join(folder, 'initrd'), await guestRoot(next, { spareModules }));
    await vm.copyIn(next.vmlinuz, '/tmp/vmlinuz');
    await vm.copyIn(join(folder, 'initrd'), '/tmp/initrd');
  } finally {
    removeTemporary(folder);
  }
  return next.release;
}

async function load(vm: Vm, as: string) {
  const files = '/tmp/vmlinuz --initrd /tmp/initrd --reuse-cmdline';
  return json(vm, `tideover kexec load ${files} --preserve-as ${as}`);
}

async function go(vm: Vm, release: string): Promise<void> {
  const before = vm.agent.greeting;
  void vm.run('tideover kexec exec').catch(() => {});
  assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
}

async function changeKernel(vm: Vm, name: KernelName, as = 'soft-reserved'): Promise<void> {
  const release = await bring(vm, name);
  const loaded = await load(vm, as);
  assert.ok(loaded.preserved.nodes > 0);
  await go(vm, release);
}

/** Memory that the kernel has, in bytes. */
async function memTotal(vm: Vm): Promise<number> {
  return 1024 * Number(/MemTotal: *(\d+)/.exec(await vm.check('cat /proc/meminfo'))![1]);
}

/** Gives the memory of a medium without nodes back, and looks whether it is there. */
async function release(vm: Vm, size: number): Promise<void> {
  const { holding } = await json(vm, 'tideover pkram ls');
  assert.equal(holding.size, size);
  assert.ok(holding.returnable >= BLOCK, JSON.stringify(holding));
  const before = await memTotal(vm);
  const { returned } = await json(vm, 'tideover pkram release');
  const gained = (await memTotal(vm)) - before;
  assert.equal(returned, holding.returnable);
  assert.ok(gained >= 0.95 * returned, `${gained} of ${returned} bytes in whole blocks`);
  if (full) assert.ok(gained >= 0.8 * size, `${gained} of ${size} bytes`);
  assert.equal((await json(vm, 'tideover pkram status')).exists, false);
}

test('three nodes go 6.1 -> 6.12 -> 6.18 -> 7.2 whole, KASLR on, and their memory is ordinary then', () =>
  inGuest({ kernel: '6.1', memory: full ? 2048 : 1024, spareModules }, async (vm) => {
    assert.ok(!/nokaslr/.test(await vm.check('cat /proc/cmdline')));
    const kept = await keep(vm, full ? 1024 * MIB : 96 * MIB);
    const bases = new Set<string>();
    for (const name of ['6.12', '6.18', '7.2'] as const) {
      await changeKernel(vm, name);
      bases.add((await vm.check("grep ' _text$' /proc/kallsyms")).split(' ')[0]!);
      if (full) assert.deepEqual((await find(vm)).digests, kept.digests);
    }
    assert.ok(bases.size > 1, `KASLR moved the kernel: ${[...bases]}`);
    const found = await find(vm, 'load');
    assert.deepEqual(found.digests, kept.digests);
    assert.deepEqual([found.superblock, found.ranges, found.size], [kept.superblock, kept.ranges, kept.size]);
    assert.equal(found.left, 0);
    assert.match(found.kernel, /^6\.1\./, 'it says under which kernel it was saved');
    await release(vm, kept.size);
  }));

const furtherPairs = [
  ['6.1', '6.12'],
  ['6.12', '6.18'],
] as const;
for (const [from, to] of full ? furtherPairs : []) {
  test(`${to} takes in what ${from} left`, () =>
    inGuest({ kernel: from, memory: 1024 }, async (vm) => {
      const kept = await keep(vm, 96 * MIB);
      await changeKernel(vm, to);
      assert.deepEqual((await find(vm, 'load')).digests, kept.digests);
      await release(vm, kept.size);
    }));
}

test('what is saved after loading needs another load; 6.1 takes the memory in, and the kernel after it has it from the start', () =>
  inGuest({ kernel: '6.12', memory: 1536 }, async (vm) => {
    const refused = async (command: string, pattern: RegExp) => {
      const { status, stderr } = await vm.run(command, SLOW);
      assert.equal(status, 3, `${command}: ${stderr}`);
      assert.match(stderr.toString(), pattern);
    };
    const next = await bring(vm, '6.1');
    assert.deepEqual(await json(vm, 'tideover pkram ls'), { nodes: [] });
    await load(vm, 'soft-reserved');
    await vm.check('echo one | tideover pkram save one - --medium memory');
    await refused('tideover kexec exec', /before there was preserved memory.*load the kernel again/);
    await load(vm, 'soft-reserved');
    await vm.check('echo two | tideover pkram save two - --checksum');
    await refused('tideover kexec exec', /a node was saved.*after the kernel was loaded/);
    await refused('tideover kexec load /tmp/vmlinuz -s', /2 nodes of preserved memory.*--drop-preserved/);
    await refused('tideover pkram release', /there are 2 nodes in it/);
    await refused('tideover pkram save x - --medium memory:0x0-0xfffff </dev/null', /no memory|its own/);
    await refused('su -s /bin/sh nobody -c "tideover pkram ls"', /EACCES/);
    const { size } = await json(vm, 'tideover pkram status');
    const total = await memTotal(vm);
    await load(vm, 'soft-reserved');
    await go(vm, next);

    assert.doesNotMatch(await vm.check('cat /proc/cmdline'), /one|two/);
    assert.equal(await vm.check('tideover pkram load one --wipe'), 'one\n');
    assert.equal(await vm.check('tideover pkram load two'), 'two\n');
    await release(vm, size);
    const last = await bring(vm, '6.12');
    assert.equal((await load(vm, 'reserved')).preserved.nodes, 0);
    await go(vm, last);
    assert.equal(await memTotal(vm), total);
    await vm.check('head -c 50000000 /dev/zero | tideover pkram save three - --medium memory');
    const { holding } = await json(vm, 'tideover pkram ls');
    assert.equal((await json(vm, 'tideover pkram release --force')).returned, holding.size);
    assert.match(await vm.check('cat /proc/meminfo'), /HugePages_Total: +0\n/);
  }));

test('a node in 300 pieces of memory is found whole, as reserved memory', () =>
  inGuest({ kernel: '6.12', memory: 2048 }, async (vm) => {
    const kept = await keep(vm, (full ? 590 : 96) * MIB, 600 * MIB, 'scattered');
    assert.ok(kept.ranges >= 300, `${kept.ranges} pieces`);
    await changeKernel(vm, '6.18', 'reserved');
    assert.deepEqual((await find(vm, 'load')).digests, kept.digests);
    const { holding } = await json(vm, 'tideover pkram ls');
    assert.equal(holding.returnable, 0);
  }));

test('a capture kernel finds nodes that were saved after it was loaded, and nothing of the one in the middle of which was the panic', () =>
  inGuest({ kernel: '6.12', memory: 1024, append: 'crashkernel=384M' }, async (vm) => {
    const release = await bring(vm, '6.12');
    const { parameter } = await json(vm, 'tideover pkram init --medium memory');
    const append = 'console=ttyS0 panic=-1 nr_cpus=1 reset_devices';
    const loaded = await json(vm, `tideover kexec -p /tmp/vmlinuz --initrd /tmp/initrd --append '${append}'`);
    assert.ok(loaded.commandLine.includes(parameter));
    await bringPrograms(vm);
    const program = `node /tmp/t/test/lab/guest/pkram-keep.ts ${24 * MIB} ${24 * MIB} go-on`;
    await vm.check(`(setsid ${program} >/tmp/kept 2>/tmp/log </dev/null &)`);
    const wait = 'for i in $(seq 240); do [ -s /tmp/kept ] && break; sleep 1; done; cat /tmp/kept || cat /tmp/log';
    const kept = JSON.parse(await vm.check(wait, SLOW));
    const before = vm.agent.greeting;
    void vm.run('echo c >/proc/sysrq-trigger').catch(() => {});
    assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
    const found = await find(vm, 'load');
    assert.deepEqual(found.digests, kept.digests);
    assert.equal(found.left, 0);
  }));
