/** tideover's own way from one kernel into another, in guests. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type BootOptions, boot } from '../../lab/boot.ts';
import { type KernelName, kernel } from '../../lab/kernels.ts';
import { guestRoot } from '../../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';
import { Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE } from '../../src/abi/elf.ts';

const project = new URL('../..', import.meta.url).pathname;
const NEXT_KERNEL_MS = 120_000;

/** Boots a guest, does something in it, and ends it. */
async function inGuest(options: BootOptions, run: (vm: Vm) => Promise<void>): Promise<void> {
  const vm = await boot(options);
  try {
    await run(vm);
  } finally {
    await vm.close();
  }
}

/** Puts a kernel and its root into the guest as /tmp/vmlinuz and /tmp/initrd. */
async function bring(vm: Vm, name: KernelName): Promise<string> {
  const { vmlinuz, release, ...rest } = await kernel(name);
  const folder = temporaryFolder();
  try {
    const initrd = join(folder, 'initrd');
    writeFileSync(initrd, await guestRoot({ vmlinuz, release, ...rest }));
    await vm.copyIn(vmlinuz, '/tmp/vmlinuz');
    await vm.copyIn(initrd, '/tmp/initrd');
  } finally {
    removeTemporary(folder);
  }
  return release;
}

/** Loads what `bring` has brought and goes there. */
async function changeKernel(vm: Vm, name: KernelName): Promise<void> {
  const release = await bring(vm, name);
  assert.equal(JSON.parse(await vm.check('tideover kexec status --json')).loaded, false);
  await vm.check('tideover kexec load /tmp/vmlinuz --initrd /tmp/initrd --reuse-cmdline', { timeout: 120_000 });
  assert.equal(JSON.parse(await vm.check('tideover kexec status --json')).loaded, true);
  const before = vm.agent.greeting;
  // The agent goes away with the kernel, and its command with it.
  void vm.run('tideover kexec exec').catch(() => {});
  assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
}

const machines = [
  { cpus: 1, firmware: 'bios' },
  { cpus: 2, firmware: 'uefi' },
  ...(process.env.TIDEOVER_FULL
    ? ([
        { cpus: 2, firmware: 'bios' },
        { cpus: 1, firmware: 'uefi' },
      ] as const)
    : []),
] as const;

for (const machine of machines) {
  test(`6.1 -> 6.12 -> 6.18 -> 7.2, ${machine.cpus} CPUs, ${machine.firmware}, KASLR on`, () =>
    inGuest({ kernel: '6.1', memory: 1024, ...machine }, async (vm) => {
      // EFI's boot stub is told of the initrd on the command line, which is not for the next kernel.
      const commandLine = (await vm.check('cat /proc/cmdline')).replace(' initrd=initrd', '');
      assert.ok(!/nokaslr/.test(commandLine));
      const memory = await vm.check('cat /sys/firmware/memmap/*/type | sort');
      const bases = new Set<string>();
      for (const name of ['6.12', '6.18', '7.2'] as const) {
        await changeKernel(vm, name);
        assert.equal((await vm.check('nproc')).trim(), `${machine.cpus}`);
        assert.equal(await vm.check('cat /proc/cmdline'), commandLine);
        bases.add((await vm.check("grep ' _text$' /proc/kallsyms")).split(' ')[0]!);
        if (machine.firmware === 'uefi') {
          assert.match(await vm.check('ls /sys/firmware/efi/runtime-map'), /^0$/m, 'EFI runtime services are on');
          assert.ok(Number(await vm.check('ls /sys/firmware/efi/efivars 2>/dev/null | wc -l; true')) >= 0);
        } else assert.equal(await vm.check('cat /sys/firmware/memmap/*/type | sort'), memory);
      }
      assert.ok(bases.size > 1, `KASLR moved the kernel: ${[...bases]}`);
    }));
}

test('a byte that was changed after loading stops the purgatory, which says so on the serial port', () =>
  inGuest({ kernel: '6.12', memory: 1024 }, async (vm) => {
    await bring(vm, '6.12');
    await vm.check('mkdir -p /tmp/t/test/lab');
    await vm.copyIn(join(project, 'src'), '/tmp/t/src');
    await vm.copyIn(join(project, 'dist/koffi.node'), '/tmp/t/src/koffi.node');
    await vm.copyIn(join(project, 'test/lab/guest'), '/tmp/t/test/lab/guest');
    await vm.copyIn(join(project, 'package.json'), '/tmp/t/package.json');
    const script = 'node /tmp/t/test/lab/guest/load-damaged.ts /tmp/vmlinuz';
    await vm.check([...script.split(' '), await vm.check('cat /proc/cmdline'), 'initrd'], { timeout: 120_000 });
    const since = vm.console.text.length;
    void vm.run('tideover kexec exec').catch(() => {});
    const said = /tideover purgatory: segment 1 of the next kernel was changed after it was loaded .*Stopped\./;
    await vm.waitFor(said, NEXT_KERNEL_MS, since);
    assert.doesNotMatch(vm.console.text.slice(since), /Linux version/);
  }));

test('refusals come before anything is loaded, with exit status 3', () =>
  inGuest({ kernel: '6.12', memory: 512 }, async (vm) => {
    const { vmlinuz } = await kernel('6.12');
    await vm.copyIn(vmlinuz, '/tmp/vmlinuz');
    const refused = async (command: string, pattern: RegExp) => {
      const { status, stderr } = await vm.run(command);
      assert.equal(status, 3, `${command}: ${stderr}`);
      assert.match(stderr.toString(), pattern);
      assert.equal(JSON.parse(await vm.check('tideover kexec status --json')).loaded, false);
    };
    await refused('tideover kexec exec', /none is loaded/);
    await refused('tideover kexec load /tmp/vmlinuz --mem-max 0x1ffffff', /too little room for the kernel.*missing/);
    await refused('su -s /bin/sh nobody -c "tideover kexec -l /tmp/vmlinuz"', /EPERM|CAP_SYS_BOOT/);
    await vm.check('head -c 3000000 /tmp/vmlinuz >/tmp/cut');
    const cut = await vm.run('tideover kexec load /tmp/cut');
    assert.equal(cut.status, 5, cut.stderr.toString());
    assert.match(cut.stderr.toString(), /syssize.*truncated/);

    const plan = JSON.parse(await vm.check('tideover kexec -l /tmp/vmlinuz --append quiet --dry-run --json'));
    assert.deepEqual(
      plan.segments.map(({ name }: { name: string }) => name),
      ['kernel', 'boot params', 'purgatory'],
    );
    assert.equal(JSON.parse(await vm.check('tideover kexec -S --json')).loaded, false);
    await vm.check('tideover kexec -l /tmp/vmlinuz -s --append quiet');
    assert.equal(JSON.parse(await vm.check('tideover kexec -S --json')).loaded, true);
    await vm.check('tideover kexec -u');
    assert.equal(JSON.parse(await vm.check('tideover kexec -S --json')).loaded, false);

    await vm.check('echo 1 >/proc/sys/kernel/kexec_load_disabled');
    await refused('tideover kexec load /tmp/vmlinuz', /kexec_load_disabled is 1/);
  }));

test('a capture kernel loaded by hand boots after a panic, and has the first 640K from before it', () =>
  inGuest({ kernel: '6.12', memory: 1024, append: 'crashkernel=320M' }, async (vm) => {
    await bring(vm, '6.12');
    const append = 'console=ttyS0 panic=-1 nr_cpus=1 reset_devices';
    const load = `tideover kexec -p /tmp/vmlinuz --initrd /tmp/initrd --append '${append}' --json`;
    const { commandLine } = JSON.parse(await vm.check(load, { timeout: 120_000 }));
    assert.equal(JSON.parse(await vm.check('tideover kexec status --json')).crashLoaded, true);
    // The page of BIOS data is what /dev/mem shows of these 640K: the rest is RAM, which it reads as zeros.
    const digest = (file: string, at: number) =>
      vm.check(`dd if=${file} bs=4096 skip=${at / 4096} count=1 2>/dev/null | sha256sum`);
    const before = await digest('/dev/mem', 0);
    assert.notEqual(before, await digest('/dev/zero', 0));

    const greeting = vm.agent.greeting;
    void vm.run('echo c >/proc/sysrq-trigger').catch(() => {});
    await vm.nextKernel(greeting, NEXT_KERNEL_MS);
    assert.equal((await vm.check('cat /proc/cmdline')).trim(), commandLine);
    await vm.check('dd if=/proc/vmcore of=/tmp/head bs=4096 count=1 2>/dev/null');
    const head = Buffer.from(await vm.check('base64 /tmp/head'), 'base64');
    const { e_phnum, e_phoff } = Elf64_Ehdr.read(head);
    const headers = Array.from({ length: e_phnum }, (_, i) =>
      Elf64_Phdr.read(head, Number(e_phoff) + i * Elf64_Phdr.size),
    );
    assert.equal(headers.filter(({ p_type }) => p_type === PT_NOTE).length, 1);
    const low = headers.find(({ p_type, p_paddr }) => p_type === PT_LOAD && p_paddr === 0n)!;
    assert.equal(low.p_filesz, 0xa0000n);
    assert.equal(await digest('/proc/vmcore', Number(low.p_offset)), before);
    const note = headers.find(({ p_type }) => p_type === PT_NOTE)!;
    const notes = `dd if=/proc/vmcore bs=1 skip=${note.p_offset} count=${note.p_filesz} 2>/dev/null`;
    assert.match(await vm.check(`${notes} | grep -a OSRELEASE=`), /OSRELEASE=6\.12/);
  }));
