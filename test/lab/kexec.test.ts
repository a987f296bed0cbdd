/** tideover's own way from one kernel into another, in guests. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { type BootOptions, boot } from '../../lab/boot.ts';
import { bootDebian, debianDisk } from '../../lab/debian.ts';
import { emptyDisk } from '../../lab/disk.ts';
import { type KernelName, kernel } from '../../lab/kernels.ts';
import { guestRoot } from '../../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';
import { SETUP_HEADER_OFFSET, setup_header } from '../../src/abi/bootparam.ts';
import { Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE } from '../../src/abi/elf.ts';
import { readBzImage } from '../../src/kexec/bootimage.ts';

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

/** Copies the sources and a program of test/lab/guest that uses them into the guest. @returns its path there */
async function bringProgram(vm: Vm, name: string): Promise<string> {
  await vm.check('mkdir -p /tmp/t/test/lab');
  await vm.copyIn(join(project, 'src'), '/tmp/t/src');
  await vm.copyIn(join(project, 'dist/koffi.node'), '/tmp/t/src/koffi.node');
  await vm.copyIn(join(project, 'test/lab/guest'), '/tmp/t/test/lab/guest');
  await vm.copyIn(join(project, 'package.json'), '/tmp/t/package.json');
  return `/tmp/t/test/lab/guest/${name}`;
}

/** Brings a kernel, loads it and goes there. */
async function changeKernel(vm: Vm, name: KernelName, options = ''): Promise<void> {
  await loadAndGo(vm, '/tmp/vmlinuz', await bring(vm, name), options);
}

async function loadAndGo(vm: Vm, path: string, release: string, options = ''): Promise<void> {
  assert.equal(JSON.parse(await vm.check('tideover kexec status --json')).loaded, false);
  const load = `tideover kexec load ${path} --initrd /tmp/initrd --reuse-cmdline ${options}`;
  await vm.check(load, { timeout: 120_000 });
  assert.equal(JSON.parse(await vm.check('tideover kexec status --json')).loaded, true);
  const before = vm.agent.greeting;
  // The agent goes away with the kernel, and its command with it.
  void vm.run('tideover kexec exec').catch(() => {});
  assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
}

const machines = [
  // The processor has 5-level paging, and the kernels use it unless they are told not to.
  { cpus: 1, firmware: 'bios', append: 'no5lvl', extraArguments: ['-device', 'VGA'] },
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
        await changeKernel(vm, name, name === '6.18' ? '--reset-vga --reset-pic' : '');
        assert.equal((await vm.check('nproc')).trim(), `${machine.cpus}`);
        assert.equal(await vm.check('cat /proc/cmdline'), commandLine);
        bases.add((await vm.check("grep ' _text$' /proc/kallsyms")).split(' ')[0]!);
        if (machine.firmware === 'uefi') {
          assert.match(await vm.check('ls /sys/firmware/efi/runtime-map'), /^0$/m, 'EFI runtime services are on');
        } else assert.equal(await vm.check('cat /sys/firmware/memmap/*/type | sort'), memory);
      }
      assert.ok(bases.size > 1, `KASLR moved the kernel: ${[...bases]}`);
    }));
}

test('a byte that was changed after loading stops the purgatory, which says so on the serial port', () =>
  inGuest({ kernel: '6.12', memory: 1024 }, async (vm) => {
    await bring(vm, '6.12');
    const program = await bringProgram(vm, 'load-damaged.ts');
    const commandLine = await vm.check('cat /proc/cmdline');
    await vm.check(['node', program, '/tmp/vmlinuz', commandLine, 'initrd'], { timeout: 120_000 });
    const since = vm.console.text.length;
    void vm.run('tideover kexec exec').catch(() => {});
    const said = /tideover purgatory: segment 1 of the next kernel was changed after it was loaded .*Stopped\./;
    await vm.waitFor(said, NEXT_KERNEL_MS, since);
    assert.doesNotMatch(vm.console.text.slice(since), /Linux version/);
  }));

test('a kernel is entered in 32 bits out of 5-level paging', () =>
  inGuest({ kernel: '6.12', memory: 1024 }, async (vm) => {
    assert.match(await vm.check("grep -m1 '^flags' /proc/cpuinfo"), /\bla57\b/);
    const release = await bring(vm, '6.18');
    const program = await bringProgram(vm, 'load-in-32-bits.ts');
    const commandLine = (await vm.check('cat /proc/cmdline')).trim();
    await vm.check(['node', program, '/tmp/vmlinuz', '/tmp/initrd', commandLine], { timeout: 120_000 });
    const before = vm.agent.greeting;
    void vm.run('tideover kexec exec').catch(() => {});
    assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
  }));

test('an uncompressed kernel starts too, and the next one by kexec_file_load', () =>
  inGuest({ kernel: '6.12', memory: 1024 }, async (vm) => {
    const release = await bring(vm, 'jump');
    const { vmlinuz } = await kernel('jump');
    // Inside a bzImage lies the vmlinux, here compressed by gzip.
    const bytes = readFileSync(vmlinuz);
    const { payload_offset, payload_length } = setup_header.read(bytes, SETUP_HEADER_OFFSET);
    const payload = readBzImage(bytes, vmlinuz).parts[0]!.bytes.subarray(
      payload_offset,
      payload_offset + payload_length,
    );
    const folder = temporaryFolder();
    try {
      writeFileSync(join(folder, 'vmlinux'), gunzipSync(payload));
      await vm.copyIn(join(folder, 'vmlinux'), '/tmp/vmlinux');
    } finally {
      removeTemporary(folder);
    }
    await loadAndGo(vm, '/tmp/vmlinux', release);
    assert.equal((await vm.check("grep ' _text$' /proc/kallsyms")).split(' ')[0], 'ffffffff81000000');
    await changeKernel(vm, '6.12', '--kexec-file-syscall');
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

/** Jumps into the kernel that `bring` has brought, and back from there. Everything in the first kernel is asleep meanwhile. */
async function jumpAndBack(vm: Vm, options: string): Promise<void> {
  const first = vm.agent.greeting;
  const command = `tideover kexec jump /tmp/vmlinuz --initrd /tmp/initrd ${options}`;
  // Not under the agent, which forgets what it runs when another kernel's agent speaks.
  await vm.check(
    `rm -f /tmp/jumped; (setsid sh -c "${command} >/tmp/jump.log 2>&1; echo \\$? >/tmp/jumped" &) </dev/null`,
  );
  const second = await vm.nextKernel(first, NEXT_KERNEL_MS);
  assert.match(await vm.check('cat /proc/cmdline'), /kexec_jump_back_entry=0x[0-9a-f]{16}/);
  void vm.run('tideover kexec jump --back').catch(() => {});
  const { agent } = await vm.nextKernel(second, NEXT_KERNEL_MS);
  assert.equal(agent, first?.agent, 'the first kernel goes on with the processes it had');
  await vm.check('until [ -s /tmp/jumped ]; do sleep 0.1; done; cat /tmp/jump.log; exit $(cat /tmp/jumped)');
  assert.equal(JSON.parse(await vm.check('tideover kexec status --json')).loaded, false, 'what was run is dropped');
}

/**
 * One processor: one of four runs with two ended in a panic of the second kernel early in its boot, whose cause is not known.
 * A second kernel with more processors is therefore not shown here.
 */
const second = "--append 'console=ttyS0 panic=-1 mitigations=off nr_cpus=1'";

test('there and back five times, with a process, a disk and a network card that go on', async () => {
  const disk = emptyDisk(256 << 20);
  try {
    const machine = { kernel: 'jump', memory: 1024, cpus: 2, disks: [disk], programs: ['mkfs.ext4'] } as const;
    await inGuest({ ...machine, append: 'crashkernel=320M' }, async (vm) => {
      await bring(vm, 'jump');
      await vm.check('mkfs.ext4 -q /dev/vda && mkdir -p /mnt && mount /dev/vda /mnt');
      await vm.check(
        '(i=0; while :; do i=$((i + 1)); echo $i >/tmp/counter; sleep 0.1; done) </dev/null >/dev/null 2>&1 &',
      );
      await vm.check('head -c 16000000 /dev/urandom >/tmp/random; md5sum /tmp/random >/tmp/random.md5');
      const count = async () => Number(await vm.check('cat /tmp/counter'));
      for (let round = 1; round <= 5; round++) {
        const before = await count();
        await jumpAndBack(vm, second);
        const after = await count();
        assert.ok(after >= before && after < before + 600, `${before} and then ${after}`);
        await vm.check(`until [ "$(cat /tmp/counter)" -gt ${after} ]; do sleep 0.1; done`);
        await vm.check('md5sum -c /tmp/random.md5');
        const write = `head -c 8000000 /dev/urandom >/mnt/${round} && md5sum /mnt/${round} >>/mnt/md5 && sync`;
        await vm.check(`${write} && echo 3 >/proc/sys/vm/drop_caches && md5sum -c /mnt/md5`);
        await vm.check('ping -c 1 -W 5 10.0.2.2');
        assert.equal((await vm.check('nproc')).trim(), '2');
      }
    });
  } finally {
    disk.remove();
  }
});

test('there and back with a region whose pages the first kernel owns, which are swapped', () =>
  inGuest({ kernel: 'jump', memory: 2048 }, async (vm) => {
    await bring(vm, 'jump');
    await vm.check('head -c 300000000 /dev/urandom >/tmp/random; md5sum /tmp/random >/tmp/random.md5');
    await jumpAndBack(vm, `${second} --region 0x40000000-0x4fffffff`);
    await vm.check('md5sum -c /tmp/random.md5', { timeout: 120_000 });
  }));

test('a kernel that is not built for jumps is refused with the option it lacks', () =>
  inGuest({ kernel: '6.12', memory: 512, append: 'crashkernel=128M' }, async (vm) => {
    const { status, stderr } = await vm.run('tideover kexec jump /nowhere');
    assert.equal(status, 3);
    assert.match(stderr.toString(), /CONFIG_KEXEC_JUMP=y/);
  }));

test('under systemd, services are stopped before the next kernel starts', async () => {
  const disk = await debianDisk();
  const vm = await bootDebian({ kernel: '6.12', memory: 1024, disk });
  try {
    const release = await bring(vm, '6.18');
    const unit =
      '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c "date >/var/stopped"\n';
    await vm.check('cat >/run/systemd/system/stopped.service && systemctl start stopped', { input: unit });
    await loadAndGo(vm, '/tmp/vmlinuz', release);
    await vm.check('test -s /var/stopped');
  } finally {
    await vm.close();
    disk.remove();
  }
});
