/** Preserved memory over a change of kernels, in guests: stock kernels, and no more than tideover in them. */
import assert from 'node:assert/strict';
import { after, type TestContext, test } from 'node:test';
import { type BootOptions, boot } from '../../lab/boot.ts';
import type { KernelName } from '../../lab/kernels.ts';
import type { Vm } from '../../lab/vm.ts';
import { KERNELS, kernelsDisk, mountKernels, nextKernel } from './next-kernels.ts';

const full = process.env.TIDEOVER_FULL !== undefined;
const NEXT_KERNEL_MS = 300_000;
const SLOW = { timeout: 900_000 };
const MIB = 1 << 20;
const BLOCK = 128 * MIB;
/** Those to give memory back with make soft-reserved memory ordinary, and must not be loaded before it is wanted. */
const drivers = ['device_dax', 'dax_hmem', 'kmem', 'nd_e820', 'nd_pmem'];
const disk = await kernelsDisk(['6.1', '6.12', '6.18', '7.2'], {}, drivers);
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
async function load(vm: Vm, name: KernelName, options = '--preserve-as soft-reserved') {
  const { vmlinuz, initrdOptions, release } = await nextKernel(vm, name);
  const loaded = await json(vm, `tideover kexec load ${vmlinuz} ${initrdOptions} --reuse-cmdline ${options}`);
  return { ...loaded, release };
}

async function go(vm: Vm, release: string): Promise<void> {
  const before = vm.agent.greeting;
  void vm.run('tideover kexec exec', SLOW).catch(() => {});
  assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
}

async function changeKernel(vm: Vm, name: KernelName, options?: string): Promise<void> {
  const { preserved, release } = await load(vm, name, options);
  assert.ok(preserved.nodes > 0);
  await go(vm, release);
}

/** Memory that the kernel has, in bytes. */
async function memTotal(vm: Vm): Promise<number> {
  return 1024 * Number(/MemTotal: *(\d+)/.exec(await vm.check('cat /proc/meminfo'))![1]);
}

/** Gives the memory of a medium without nodes back, and looks whether it is there. @returns bytes that the kernel has gained */
async function release(t: TestContext, vm: Vm, size: number): Promise<number> {
  const { holding } = await json(vm, 'tideover pkram ls');
  assert.equal(holding.size, size);
  assert.ok(holding.returnable >= BLOCK, JSON.stringify(holding));
  const before = await memTotal(vm);
  const { returned } = await json(vm, 'tideover pkram release');
  const gained = (await memTotal(vm)) - before;
  t.diagnostic(`${gained / MIB} MiB more of ${returned / MIB} in whole blocks, of ${size / MIB} in all`);
  assert.equal(returned, holding.returnable);
  assert.ok(gained >= 0.95 * returned, `${gained} of ${returned} bytes in whole blocks`);
  assert.equal((await json(vm, 'tideover pkram status')).exists, false);
  return gained;
}

test('three nodes go 6.1 -> 6.12 -> 6.18 -> 7.2 whole, KASLR on, and their memory is ordinary then', (t) =>
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
    const gained = await release(t, vm, kept.size);
    // Of a gigabyte little lies beside whole blocks.
    if (full) assert.ok(gained >= 0.8 * kept.size, `${gained} of ${kept.size} bytes`);
  }));

const furtherPairs = [
  ['6.1', '6.12'],
  ['6.12', '6.18'],
] as const;
for (const [from, to] of full ? furtherPairs : []) {
  test(`${to} takes in what ${from} left`, (t) =>
    inGuest({ kernel: from, memory: 1024 }, async (vm) => {
      const kept = await keep(vm, 96 * MIB);
      await changeKernel(vm, to);
      assert.deepEqual((await find(vm, 'load')).digests, kept.digests);
      await release(t, vm, kept.size);
    }));
}

/** What preserved memory is for the next kernel follows from the drivers that it has, and whether it will have /dev/mem. */
async function choosesTypes(vm: Vm): Promise<void> {
  const { vmlinuz, release } = await nextKernel(vm, '6.12');
  const folder = `/lib/modules/${release}`;
  const typeWith = async (modules: readonly string[], append = '') => {
    const lines = modules.map((name) => `kernel/${name}.ko:\\n`).join('');
    await vm.check(`mkdir -p ${folder} && printf '${lines}' >${folder}/modules.dep`);
    return (await json(vm, `tideover kexec load ${vmlinuz} --dry-run ${append}`)).preserved.type;
  };
  assert.equal(await typeWith(drivers), 'soft-reserved');
  assert.equal(await typeWith(drivers, '--append lockdown=integrity'), 'soft-reserved,pram');
  assert.equal(await typeWith(['nd_e820', 'nd_pmem'], '--append lockdown=integrity'), 'pram');
  assert.equal(await typeWith([], '--append lockdown=integrity'), 'reserved');
}

test('what is saved after loading needs another load; 6.1 takes the memory in, and 6.12 with lockdown finds more and takes it in', (t) =>
  inGuest({ kernel: '6.12', memory: 2048 }, async (vm) => {
    const refused = async (command: string, pattern: RegExp) => {
      const { status, stderr } = await vm.run(command, SLOW);
      assert.equal(status, 3, `${command}: ${stderr}`);
      assert.match(stderr.toString(), pattern);
    };
    assert.deepEqual(await json(vm, 'tideover pkram ls'), { nodes: [] });
    await load(vm, '6.1');
    // So large that there are whole memory blocks in it, wherever it begins.
    await vm.check('tideover pkram init --medium memory --size 384M', SLOW);
    await vm.check('echo one | tideover pkram save one -', SLOW);
    await refused('tideover kexec exec', /before there was preserved memory.*load the kernel again/);
    // From here on pages stay where they are as long as they are pinned.
    assert.deepEqual(JSON.parse(await vm.check(program('pkram-move.ts'), SLOW)), {
      pinned: { state: 'online', moved: false },
      free: { state: 'offline', moved: true },
    });
    await load(vm, '6.1');
    // The last page lies elsewhere, as when the kernel has moved it.
    const another = 'echo 999 >/proc/sys/vm/nr_overcommit_hugepages && fallocate -l 2M another';
    const exchange = 'last=$(ls 0* | tail -1) && mv $last /tmp/moved && mv another $last';
    await vm.check(`cd /dev/tideover/pkram && ${another} && ${exchange}`);
    await refused('tideover kexec exec', /pages of preserved memory were moved.*load the kernel again/);
    await vm.check('echo two | tideover pkram save two - --checksum', SLOW);
    await refused('tideover kexec exec', /a node was saved.*after the kernel was loaded/);
    await refused(`tideover kexec load ${KERNELS}/6.1/vmlinuz -s`, /2 nodes of preserved memory.*--drop-preserved/);
    await refused('tideover pkram release', /2 nodes would be lost/);
    await refused('tideover pkram save x - --medium memory:0x0-0xfffff </dev/null', /no memory|its own/);
    await refused('su -s /bin/sh nobody -c "tideover pkram ls"', /EACCES/);
    const { size } = await json(vm, 'tideover pkram status');
    const list = await vm.check('tideover pkram ls', SLOW);
    assert.match(list, /384.* held by the mount \/dev\/tideover\/pkram, without a process, 384.* can be returned/);
    const total = await memTotal(vm);
    await changeKernel(vm, '6.1');

    assert.doesNotMatch(await vm.check('cat /proc/cmdline'), /one|two/);
    assert.equal(await vm.check('tideover pkram load one --wipe', SLOW), 'one\n');
    assert.equal(await vm.check('tideover pkram load two', SLOW), 'two\n');
    await release(t, vm, size);
    // The next medium lies also in what was returned, the rest of which is ordinary memory of the kernel after it.
    await vm.check('tideover pkram init --medium memory --size 1200M', SLOW);
    await vm.check('echo three | tideover pkram save three -', SLOW);
    const next = await json(vm, 'tideover pkram status');
    await choosesTypes(vm);
    await changeKernel(vm, '6.12', '--append lockdown=integrity --preserve-as soft-reserved,pram');
    assert.equal((await vm.run('head -c 1 /dev/mem')).status, 1, 'the kernel is locked down');
    assert.equal(await vm.check('tideover pkram load three', SLOW), 'three\n');
    const gone = total - next.size - (await memTotal(vm));
    assert.ok(gone < 16 * MIB, `${gone} bytes are neither preserved nor ordinary memory`);
    await release(t, vm, next.size);
  }));

test('nodes in 300 pieces of memory are found whole, as reserved memory, and so is one in a region of memmap=', () =>
  inGuest({ kernel: '6.12', memory: 2048, append: 'memmap=16M$0x20000000' }, async (vm) => {
    const region = 'memory:0x20000000-0x20ffffff';
    await vm.check(`seq 1 100000 | tideover pkram save numbers - --medium ${region}`, SLOW);
    const kept = await keep(vm, (full ? 590 : 96) * MIB, 600 * MIB, 'scattered');
    assert.ok(kept.ranges >= 300, `${kept.ranges} pieces`);
    await changeKernel(vm, '6.18', '--preserve-as reserved');
    assert.deepEqual((await find(vm, 'load')).digests, kept.digests);
    const { holding } = await json(vm, 'tideover pkram ls');
    assert.equal(holding.returnable, 0);
    assert.match(holding.holder, /the memory map that this kernel was started with/);
    assert.match(holding.reason, /it is reserved memory/);
    const [numbers, same] = ['tideover pkram load numbers --medium memory:0x20000000', 'seq 1 100000'];
    assert.equal(await vm.check(`${numbers} | md5sum`), await vm.check(`${same} | md5sum`));
  }));

test('a capture kernel finds nodes that were saved after it was loaded, and nothing of the one in the middle of which was the panic', () =>
  inGuest({ kernel: '6.12', memory: 1024, append: 'crashkernel=384M' }, async (vm) => {
    const { vmlinuz, initrdOptions, release } = await nextKernel(vm, '6.12');
    const { parameter } = await json(vm, 'tideover pkram init --medium memory');
    const append = 'console=ttyS0 panic=-1 nr_cpus=1 reset_devices no_timer_check';
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
