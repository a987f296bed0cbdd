/** Preserved memory over a change of kernels, in guests: stock kernels, and no more than tideover in them. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type BootOptions, boot } from '../../lab/boot.ts';
import type { KernelName } from '../../lab/kernels.ts';
import type { Vm } from '../../lab/vm.ts';
import { KERNELS, kernelsDisk, mountKernels, nextKernel } from './next-kernels.ts';

const full = process.env.TIDEOVER_FULL !== undefined;
const NEXT_KERNEL_MS = 180_000;
const SLOW = { timeout: 900_000 };
const MIB = 1 << 20;
const BLOCK = 128 * MIB;
/** Those to give memory back with make soft-reserved memory ordinary, and must not be loaded before it is wanted. */
const disk = await kernelsDisk(['6.1', '6.12', '6.18', '7.2'], {}, ['device_dax', 'dax_hmem', 'kmem']);
after(() => disk.remove());

/** Boots a guest with the disk of kernels, does something in it, and ends it. */
async function inGuest(options: BootOptions, run: (vm: Vm) => Promise<void>): Promise<void> {
  const vm = await boot({ ...options, disks: [disk] });
  try {
    await run(vm);
  } finally {
    await vm.close();
  }
}

/** Saves three nodes. @returns what the program says of them */
async function keep(vm: Vm, bytes: number, size = bytes, how = '') {
  await mountKernels(vm);
  return JSON.parse(await vm.check(`${program('pkram-keep.ts')} ${bytes} ${size} ${how}`, SLOW));
}

/** Reads what keep() left, in the kernel that runs now. */
async function find(vm: Vm, how = '') {
  await mountKernels(vm);
  return JSON.parse(await vm.check(`${program('pkram-find.ts')} ${how}`, SLOW));
}

function program(name: string): string {
  return `node ${KERNELS}/tideover/test/lab/guest/${name}`;
}

async function json(vm: Vm, command: string) {
  return JSON.parse(await vm.check(`${command} --json`, SLOW));
}

/** Loads a kernel of the disk. @returns what the command says of it, and the kernel's release */
async function load(vm: Vm, name: KernelName, as = 'soft-reserved') {
  const { vmlinuz, initrdOptions, release } = await nextKernel(vm, name);
  const loaded = await json(vm, `tideover kexec load ${vmlinuz} ${initrdOptions} --reuse-cmdline --preserve-as ${as}`);
  return { ...loaded, release };
}

async function go(vm: Vm, release: string): Promise<void> {
  const before = vm.agent.greeting;
  void vm.run('tideover kexec exec').catch(() => {});
  assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
}

async function changeKernel(vm: Vm, name: KernelName, as?: string): Promise<void> {
  const { preserved, release } = await load(vm, name, as);
  assert.ok(preserved.nodes > 0);
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
  inGuest({ kernel: '6.1', memory: full ? 2048 : 1024 }, async (vm) => {
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
    assert.deepEqual(await json(vm, 'tideover pkram ls'), { nodes: [] });
    await load(vm, '6.1');
    // So large that there are whole memory blocks in it, wherever it begins.
    await vm.check('tideover pkram init --medium memory --size 384M');
    await vm.check('echo one | tideover pkram save one -');
    await refused('tideover kexec exec', /before there was preserved memory.*load the kernel again/);
    await load(vm, '6.1');
    await vm.check('echo two | tideover pkram save two - --checksum');
    await refused('tideover kexec exec', /a node was saved.*after the kernel was loaded/);
    await refused(`tideover kexec load ${KERNELS}/6.1/vmlinuz -s`, /2 nodes of preserved memory.*--drop-preserved/);
    await refused('tideover pkram release', /2 nodes would be lost/);
    await refused('tideover pkram save x - --medium memory:0x0-0xfffff </dev/null', /no memory|its own/);
    await refused('su -s /bin/sh nobody -c "tideover pkram ls"', /EACCES/);
    const { size } = await json(vm, 'tideover pkram status');
    const total = await memTotal(vm);
    await changeKernel(vm, '6.1');

    assert.doesNotMatch(await vm.check('cat /proc/cmdline'), /one|two/);
    assert.equal(await vm.check('tideover pkram load one --wipe'), 'one\n');
    assert.equal(await vm.check('tideover pkram load two'), 'two\n');
    await release(vm, size);
    // The next medium lies also in what was returned, the rest of which is ordinary memory of the kernel after it.
    await vm.check('tideover pkram init --medium memory --size 700M');
    await vm.check('echo three | tideover pkram save three -');
    const next = await json(vm, 'tideover pkram status');
    await changeKernel(vm, '6.12');
    assert.equal(await vm.check('tideover pkram load three'), 'three\n');
    const gone = total - next.size - (await memTotal(vm));
    assert.ok(gone < 16 * MIB, `${gone} bytes are neither preserved nor ordinary memory`);
  }));

test('nodes in 300 pieces of memory are found whole, as reserved memory, and so is one in a region of memmap=', () =>
  inGuest({ kernel: '6.12', memory: 2048, append: 'memmap=16M$0x20000000' }, async (vm) => {
    const region = 'memory:0x20000000-0x20ffffff';
    await vm.check(`seq 1 100000 | tideover pkram save numbers - --medium ${region}`);
    const kept = await keep(vm, (full ? 590 : 96) * MIB, 600 * MIB, 'scattered');
    assert.ok(kept.ranges >= 300, `${kept.ranges} pieces`);
    await changeKernel(vm, '6.18', 'reserved');
    assert.deepEqual((await find(vm, 'load')).digests, kept.digests);
    const { holding } = await json(vm, 'tideover pkram ls');
    assert.equal(holding.returnable, 0);
    const [numbers, same] = ['tideover pkram load numbers --medium memory:0x20000000', 'seq 1 100000'];
    assert.equal(await vm.check(`${numbers} | md5sum`), await vm.check(`${same} | md5sum`));
  }));

test('a capture kernel finds nodes that were saved after it was loaded, and nothing of the one in the middle of which was the panic', () =>
  inGuest({ kernel: '6.12', memory: 1024, append: 'crashkernel=384M' }, async (vm) => {
    const { vmlinuz, initrdOptions, release } = await nextKernel(vm, '6.12');
    const { parameter } = await json(vm, 'tideover pkram init --medium memory');
    const append = 'console=ttyS0 panic=-1 nr_cpus=1 reset_devices';
    const loaded = await json(vm, `tideover kexec -p ${vmlinuz} ${initrdOptions} --append '${append}'`);
    assert.ok(loaded.commandLine.includes(parameter));
    const going = `${program('pkram-keep.ts')} ${24 * MIB} ${24 * MIB} go-on`;
    await vm.check(`(setsid ${going} >/tmp/kept 2>/tmp/log </dev/null &)`);
    const wait = 'for i in $(seq 240); do [ -s /tmp/kept ] && break; sleep 1; done; cat /tmp/kept || cat /tmp/log';
    const kept = JSON.parse(await vm.check(wait, SLOW));
    const before = vm.agent.greeting;
    void vm.run('echo c >/proc/sysrq-trigger').catch(() => {});
    assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
    const found = await find(vm, 'load');
    assert.deepEqual(found.digests, kept.digests);
    assert.equal(found.left, 0);
  }));
