/** tideover's own way from one kernel into another, in guests. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { type BootOptions, boot } from '../../lab/boot.ts';
import { bootDebian, debianDisk } from '../../lab/debian.ts';
import { emptyDisk } from '../../lab/disk.ts';
import { type KernelName, kernel } from '../../lab/kernels.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';
import { SETUP_HEADER_OFFSET, setup_header } from '../../src/abi/bootparam.ts';
import { E820_TYPE_RAM } from '../../src/abi/e820.ts';
import { Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE } from '../../src/abi/elf.ts';
import { readBzImage } from '../../src/kexec/bootimage.ts';
import { KERNELS, kernelsDisk, nextKernel } from './next-kernels.ts';
import { DB, trustSignerOf } from './signed.ts';

const NEXT_KERNEL_MS = 300_000;

type ChainMachine = Pick<BootOptions, 'cpus' | 'firmware' | 'memory' | 'append'> & {
  readonly above4G?: boolean;
  readonly damage?: boolean;
};

const disk = await kernelsDisk(['6.12', '6.18', '7.2', 'jump'], { vmlinux: await vmlinux() });
after(() => disk.remove());

/** The jump kernel uncompressed: it lies inside its bzImage, there compressed by gzip. */
async function vmlinux(): Promise<Uint8Array> {
  const { vmlinuz } = await kernel('jump');
  const bytes = readFileSync(vmlinuz);
  const { payload_offset, payload_length } = setup_header.read(bytes, SETUP_HEADER_OFFSET);
  return gunzipSync(
    readBzImage(bytes, vmlinuz).parts[0]!.bytes.subarray(payload_offset, payload_offset + payload_length),
  );
}

/** Boots a guest with the disk of kernels, does something in it, and ends it. */
async function inGuest(options: BootOptions, run: (vm: Vm) => Promise<void>): Promise<void> {
  const vm = await boot({ ...options, disks: [...(options.disks ?? []), disk] });
  try {
    await run(vm);
  } finally {
    await vm.close();
  }
}

/** Loads a kernel of the disk and goes there. */
async function changeKernel(vm: Vm, name: KernelName, options = ''): Promise<void> {
  const { vmlinuz, initrdOptions, release } = await nextKernel(vm, name);
  await vm.check(`tideover kexec load ${vmlinuz} ${initrdOptions} --reuse-cmdline ${options}`, {
    timeout: NEXT_KERNEL_MS,
  });
  await go(vm, release);
}

/** Starts what is loaded. */
async function go(vm: Vm, release: string, command = 'tideover kexec exec'): Promise<void> {
  assert.equal((await vm.check('cat /sys/kernel/kexec_loaded')).trim(), '1');
  const before = vm.agent.greeting;
  // The agent goes away with the kernel, and its command with it.
  void vm.run(command).catch(() => {});
  assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, release);
}

/** Loads a kernel of the disk by the library, with what the command line does not have. @returns its release */
async function loadByLibrary(vm: Vm, name: KernelName, options: object): Promise<string> {
  const { vmlinuz, initrds, release } = await nextKernel(vm, name);
  const given = JSON.stringify({ kernel: vmlinuz, initrds, ...options });
  await vm.check(['node', `${KERNELS}/tideover/test/lab/guest/load.ts`, given], { timeout: NEXT_KERNEL_MS });
  return release;
}

/** The firmware's memory map as the guest's kernel shows it, sorted. */
async function memoryMap(vm: Vm): Promise<{ start: number; end: number; type: string }[]> {
  const text = await vm.check('cd /sys/firmware/memmap && grep -H . */*');
  const entries = new Map<string, Record<string, string>>();
  for (const [, number, field, value] of text.matchAll(/^(\d+)\/(\w+):(.*)$/gm)) {
    entries.set(number!, { ...entries.get(number!), [field!]: value! });
  }
  return [...entries.values()]
    .map(({ start, end, type }) => ({ start: Number(start), end: Number(end) + 1, type: type! }))
    .sort((a, b) => a.start - b.start);
}

const machines = [
  // The processor has 5-level paging, and the kernels use it unless they are told not to. This much memory reaches above 4 GB.
  { cpus: 1, firmware: 'bios', append: 'no5lvl', memory: 3072, above4G: true, damage: true },
  { cpus: 2, firmware: 'uefi', memory: 1024 },
  ...(process.env.TIDEOVER_FULL
    ? ([
        { cpus: 2, firmware: 'bios', memory: 1024 },
        { cpus: 1, firmware: 'uefi', memory: 1024 },
      ] as const)
    : []),
] as const;

for (const { above4G = false, damage = false, ...machine } of machines as readonly ChainMachine[]) {
  const more = `${above4G ? ', also above 4 GB' : ''}${damage ? ', and a changed byte stops the purgatory' : ''}`;
  test(`6.1 -> 6.12 -> 6.18 -> 7.2, ${machine.cpus} CPUs, ${machine.firmware}, KASLR on${more}`, () =>
    inGuest({ kernel: '6.1', ...machine }, async (vm) => {
      // EFI's boot stub is told of the initrd on the command line, which is not for the next kernel.
      const commandLine = (await vm.check('cat /proc/cmdline')).replace(' initrd=initrd', '');
      assert.ok(!/nokaslr/.test(commandLine));
      const memory = await memoryMap(vm);
      const bases = new Set<string>();
      for (const [name, options] of [
        ['6.12', ''],
        ['6.18', '--reset-vga --reset-pic'],
        ['7.2', above4G ? '--mem-min 0x100000000' : ''],
      ] as const) {
        await changeKernel(vm, name, options);
        assert.equal((await vm.check('nproc')).trim(), `${machine.cpus}`);
        assert.equal(await vm.check('cat /proc/cmdline'), commandLine);
        bases.add((await vm.check("grep ' _text$' /proc/kallsyms")).split(' ')[0]!);
        if (machine.firmware === 'uefi') {
          assert.match(await vm.check('ls /sys/firmware/efi/runtime-map'), /^0$/m, 'EFI runtime services are on');
        } else assert.deepEqual(await memoryMap(vm), memory);
      }
      assert.ok(bases.size > 1, `KASLR moved the kernel: ${[...bases]}`);
      if (damage) await stopsAtDamage(vm);
    }));
}

/** Test hook: a byte of the initrd is changed after the purgatory was told its digest. */
async function stopsAtDamage(vm: Vm): Promise<void> {
  await loadByLibrary(vm, '6.12', { damage: 'initrd' });
  const since = vm.console.text.length;
  void vm.run('tideover kexec exec').catch(() => {});
  const said = /tideover purgatory: segment 1 of the next kernel was changed after it was loaded .*Stopped\./;
  await vm.waitFor(said, NEXT_KERNEL_MS, since);
  assert.doesNotMatch(vm.console.text.slice(since), /Linux version/);
}

test('other ways: in 32 bits, uncompressed, by kexec_file_load; a map of more than 128 entries, an archive from memory', async () => {
  const own = emptyDisk(64 << 20);
  try {
    const machine = { kernel: '6.12', memory: 1024, disks: [own], programs: ['mkfs.ext4'] } as const;
    await inGuest(machine, async (vm) => {
      await vm.check('mkfs.ext4 -q /dev/vda && mkdir /mnt/own && mount /dev/vda /mnt/own && echo one >/mnt/own/file');
      // Out of 5-level paging, and with 140 ranges that the next kernel is to leave alone.
      assert.match(await vm.check("grep -m1 '^flags' /proc/cpuinfo"), /\bla57\b/);
      const range = (i: number) => ({ start: 0x10000000 + i * 0x200000, end: 0x10010000 + i * 0x200000 });
      const ranges = Array.from({ length: 140 }, (_, i) => range(i));
      await go(vm, await loadByLibrary(vm, '6.18', { in32Bits: true, reserve: ranges, file: 'made in memory' }));
      assert.equal(await vm.check('cat /from-memory'), 'made in memory');
      const reserved = async () =>
        (await memoryMap(vm))
          .filter(
            ({ start, type }) => type === 'Reserved' && start >= ranges[0]!.start && start <= ranges.at(-1)!.start,
          )
          .map(({ start, end }) => ({ start, end }));
      assert.deepEqual(await reserved(), ranges);
      assert.ok((await memoryMap(vm)).length > 256);
      // exec has made the file system read-only, so that it was left clean; --now syncs it only.
      const recovered = async () => {
        const mount = 'mkdir -p /mnt/own && mount /dev/vda /mnt/own';
        return /recovery complete/.test(await vm.check(`${mount} && dmesg | grep EXT4-fs && cat /mnt/own/file >&2`));
      };
      assert.equal(await recovered(), false);
      assert.equal(await vm.check('cat /mnt/own/file && echo two >/mnt/own/file'), 'one\n');

      // An uncompressed kernel, and most of the ranges are given back.
      const back = ranges.slice(0, 100).map((each) => ({ ...each, type: E820_TYPE_RAM }));
      const jump = await loadByLibrary(vm, 'jump', { kernel: `${KERNELS}/vmlinux`, reserve: back });
      await go(vm, jump, 'tideover kexec exec --now');
      assert.equal((await vm.check("grep ' _text$' /proc/kallsyms")).split(' ')[0], 'ffffffff81000000');
      assert.deepEqual(await reserved(), ranges.slice(100));
      assert.equal(await recovered(), true);
      assert.equal(await vm.check('cat /mnt/own/file'), 'two\n');

      await changeKernel(vm, '6.12', '--kexec-file-syscall');
      assert.deepEqual(await reserved(), ranges.slice(100));
    });
  } finally {
    own.remove();
  }
});

/** A command is refused with exit status 3 and a reason, and nothing is loaded. */
async function refused(vm: Vm, command: string, pattern: RegExp): Promise<void> {
  const { status, stderr } = await vm.run(command);
  assert.equal(status, 3, `${command}: ${stderr}`);
  assert.match(stderr.toString(), pattern);
  assert.equal((await vm.check('cat /sys/kernel/kexec_loaded')).trim(), '0');
}

test('refusals come before anything is loaded, with exit status 3', () =>
  inGuest({ kernel: '6.12', memory: 512 }, async (vm) => {
    await vm.check(`ln -s ${(await nextKernel(vm, '6.12')).vmlinuz} /tmp/vmlinuz`);
    await refused(vm, 'tideover kexec exec', /none is loaded/);
    await refused(vm, 'tideover kexec load /tmp/vmlinuz --mem-max 0x1ffffff', /room for the kernel.* KiB are missing/);
    await refused(vm, 'su -s /bin/sh nobody -c "tideover kexec -l /tmp/vmlinuz"', /does not have CAP_SYS_BOOT/);
    await refused(vm, 'su -s /bin/sh nobody -c "tideover kexec -s -l /tmp/vmlinuz"', /does not have CAP_SYS_BOOT/);
    await refused(vm, 'tideover kexec jump /nowhere', /CONFIG_KEXEC_JUMP=y/);
    await refused(vm, 'tideover hibernate --to /tmp/vmlinuz', /CONFIG_KEXEC_JUMP=y/);
    await refused(vm, 'tideover kexec -p /tmp/vmlinuz', /no memory is reserved for one; boot with crashkernel=/);
    await refused(vm, 'tideover crash arm', /no memory is reserved for one; put crashkernel=/);
    await refused(vm, 'tideover kexec load -s --reset-vga /tmp/vmlinuz', /resetVga was asked for/);
    await vm.check('head -c 3000000 /tmp/vmlinuz >/tmp/cut');
    const cut = await vm.run('tideover kexec load /tmp/cut');
    assert.equal(cut.status, 5, cut.stderr.toString());
    assert.match(cut.stderr.toString(), /syssize.*truncated/);

    const plan = JSON.parse(await vm.check('tideover kexec --append quiet -l --dry-run --json /tmp/vmlinuz'));
    assert.deepEqual(
      plan.segments.map(({ name }: { name: string }) => name),
      ['kernel', 'boot params', 'purgatory'],
    );
    const shown = await vm.check('tideover kexec load /tmp/vmlinuz --command-line quiet --dry-run');
    assert.match(shown, /^bzImage: 6\.12.*^command line: quiet$.*^Segment .*^kernel .*^e820 from /ms);
    assert.equal(JSON.parse(await vm.check('tideover kexec -S --json')).loaded, false);
    await vm.check('tideover kexec -l /tmp/vmlinuz -s --append quiet');
    assert.equal(JSON.parse(await vm.check('tideover kexec -S --json')).loaded, true);
    await vm.check('tideover kexec -u');
    assert.equal(JSON.parse(await vm.check('tideover kexec -S --json')).loaded, false);

    await vm.check('echo 1 >/proc/sys/kernel/kexec_load_disabled');
    await refused(vm, 'tideover kexec load /tmp/vmlinuz', /kexec_load_disabled is 1/);
  }));

test('a kernel that is locked down takes no layout of ours, and kernels only that are signed with a key it knows', () =>
  inGuest({ kernel: '6.12', memory: 768, firmware: 'uefi', modules: ['efivarfs'] }, async (vm) => {
    // The firmware is made to trust who signed the stock kernel; the next kernel asks it.
    await vm.check('mount -t efivarfs efivarfs /sys/firmware/efi/efivars');
    const { vmlinuz } = await kernel('6.12');
    await vm.check(`cat >${DB}`, { input: trustSignerOf(readFileSync(vmlinuz)) });
    await changeKernel(vm, '6.12', '--append lockdown=integrity');

    const signed = (await nextKernel(vm, '6.12')).vmlinuz;
    await refused(vm, `tideover kexec load -c ${signed}`, /kexec_load.*EPERM/);
    await vm.check('mount -t securityfs securityfs /sys/kernel/security');
    await refused(vm, `tideover kexec load -c ${signed}`, /lockdown: integrity; turn off secure boot/);
    await refused(vm, `tideover kexec load --mem-min 0x2000000 ${signed}`, /lockdown: integrity/);
    await refused(vm, `tideover kexec load ${KERNELS}/jump/vmlinuz`, /takes signed kernels only/);
    await refused(vm, 'tideover crash arm', /lockdown: integrity/);
    await refused(vm, 'tideover hibernate --to /dev/vda', /lockdown: integrity/);
    const { systemCall, reason } = JSON.parse(await vm.check(`tideover kexec load ${signed} --json`));
    assert.equal(systemCall, 'kexec_file_load');
    assert.match(reason, /lockdown: integrity/);
    assert.equal((await vm.check('cat /sys/kernel/kexec_loaded')).trim(), '1');
  }));

/** The first 640K of a guest's memory. */
async function low640K(vm: Vm): Promise<Buffer> {
  const folder = temporaryFolder();
  try {
    const filename = join(folder, 'low');
    await vm.qmp('pmemsave', { val: 0, size: 0xa0000, filename });
    return readFileSync(filename);
  } finally {
    removeTemporary(folder);
  }
}

test('a capture kernel loaded by hand boots after a panic, and its ELF headers lead to the whole of the first 640K', () =>
  inGuest({ kernel: '6.12', memory: 1024, append: 'crashkernel=320M' }, async (vm) => {
    const { vmlinuz, initrdOptions } = await nextKernel(vm, '6.12');
    const append = 'console=ttyS0 panic=-1 nr_cpus=1 reset_devices no_timer_check';
    const load = `tideover kexec -p ${vmlinuz} ${initrdOptions} --append '${append}' --json`;
    const { commandLine } = JSON.parse(await vm.check(load, { timeout: NEXT_KERNEL_MS }));
    assert.equal(JSON.parse(await vm.check('tideover kexec status --json')).crashLoaded, true);
    // The guest's kernel leaves these 640K alone; QEMU reads all of them, /dev/mem would show the first page only.
    const before = await low640K(vm);
    assert.ok(before.subarray(4096).some((byte) => byte !== 0));

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
    const backup = `dd if=/proc/vmcore bs=4096 skip=${Number(low.p_offset) / 4096} count=160 2>/dev/null | sha256sum`;
    assert.equal((await vm.check(backup)).split(' ')[0], createHash('sha256').update(before).digest('hex'));
    const note = headers.find(({ p_type }) => p_type === PT_NOTE)!;
    const notes = `dd if=/proc/vmcore bs=1 skip=${note.p_offset} count=${note.p_filesz} 2>/dev/null`;
    assert.match(await vm.check(`${notes} | grep -a OSRELEASE=`), /OSRELEASE=6\.12/);
  }));

/** Jumps into the jump kernel, and back from there. Everything in the first kernel is asleep meanwhile. */
async function jumpAndBack(vm: Vm, options: string): Promise<void> {
  const first = vm.agent.greeting;
  const { vmlinuz, initrdOptions } = await nextKernel(vm, 'jump');
  const command = `tideover kexec jump ${vmlinuz} ${initrdOptions} ${options}`;
  // Not under the agent, which forgets what it runs when another kernel's agent speaks.
  await vm.check(
    `rm -f /tmp/jumped; (setsid sh -c "${command} >/tmp/jump.log 2>&1; echo \\$? >/tmp/jumped" &) </dev/null`,
  );
  const second = await vm.nextKernel(first, NEXT_KERNEL_MS);
  assert.match(await vm.check('cat /proc/cmdline'), /kexec_jump_back_entry=0x[0-9a-f]{16}/);
  assert.equal((await vm.check('nproc')).trim(), '2');
  void vm.run('tideover kexec jump --back').catch(() => {});
  const { agent } = await vm.nextKernel(second, NEXT_KERNEL_MS);
  assert.equal(agent, first?.agent, 'the first kernel goes on with the processes it had');
  await vm.check('until [ -s /tmp/jumped ]; do sleep 0.1; done; cat /tmp/jump.log; exit $(cat /tmp/jumped)');
  assert.equal(JSON.parse(await vm.check('tideover kexec status --json')).loaded, false, 'what was run is dropped');
}

const second = "--append 'console=ttyS0 panic=-1 mitigations=off no_timer_check'";

test('there and back five times, and once more with swapped memory; a process, a disk and a network card go on', async () => {
  const own = emptyDisk(256 << 20);
  try {
    const machine = { kernel: 'jump', memory: 1280, cpus: 2, disks: [own], programs: ['mkfs.ext4'] } as const;
    await inGuest({ ...machine, append: 'crashkernel=320M' }, async (vm) => {
      await vm.check('mkfs.ext4 -q /dev/vda && mkdir -p /mnt && mount /dev/vda /mnt');
      await vm.check(
        '(i=0; while :; do i=$((i + 1)); echo $i >/tmp/counter; sleep 0.1; done) </dev/null >/dev/null 2>&1 &',
      );
      // Threads of the kernel write at any moment. Without a pause, they hold up the processor that is to go.
      await vm.check('cd /proc/sys/vm; echo 1 >dirty_writeback_centisecs; echo 65536 >dirty_background_bytes');
      await vm.check(
        '(while sleep 0.1; do dd if=/dev/zero of=/mnt/zeros bs=256k count=8; done) </dev/null >/dev/null 2>&1 &',
      );
      await vm.check('head -c 16000000 /dev/urandom >/tmp/random; md5sum /tmp/random >/tmp/random.md5');
      const count = async () => Number(await vm.check('cat /tmp/counter'));
      // The last time into a region that the first kernel owns, not the memory of crashkernel=.
      for (const region of ['', '', '', '', '', '--region 0x10000000-0x1fffffff']) {
        const before = await count();
        await jumpAndBack(vm, `${second} ${region}`);
        const after = await count();
        assert.ok(after >= before && after < before + 600, `${before} and then ${after}`);
        await vm.check(`until [ "$(cat /tmp/counter)" -gt ${after} ]; do sleep 0.1; done`);
        await vm.check('md5sum -c /tmp/random.md5');
        const write = `head -c 2000000 /dev/urandom >/mnt/${after} && md5sum /mnt/${after} >>/mnt/md5 && sync`;
        await vm.check(`${write} && echo 3 >/proc/sys/vm/drop_caches && md5sum -c /mnt/md5`);
        await vm.check('ping -c 1 -W 5 10.0.2.2');
        assert.equal((await vm.check('nproc')).trim(), '2');
      }
      // Killed after it has frozen the file systems, also one where its first mount is hidden by another, it leaves none so.
      await vm.check('mkdir /tmp/seen && mount --bind /mnt /tmp/seen && mount -t tmpfs none /mnt');
      await vm.check(`(node ${KERNELS}/tideover/test/lab/guest/freeze.ts &) </dev/null >/tmp/freeze.log 2>&1`);
      await vm.check('until [ -s /tmp/frozen ]; do sleep 0.1; done');
      await vm.check('(touch /tmp/seen/thawed; sync) </dev/null >/dev/null 2>&1 &');
      await vm.check(
        'sleep 1; test ! -e /tmp/seen/thawed; kill -9 $(cat /tmp/frozen); until [ -e /tmp/seen/thawed ]; do sleep 0.1; done',
      );
    });
  } finally {
    own.remove();
  }
});

test('under systemd, services are stopped before the next kernel starts, and preserved memory is there', async () => {
  const own = await debianDisk();
  const vm = await bootDebian({ kernel: '6.12', memory: 1024, disk: own, disks: [disk] });
  try {
    const unit =
      '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c "date >/var/stopped"\n';
    await vm.check('cat >/run/systemd/system/stopped.service && systemctl start stopped', { input: unit });
    // Held by nothing but a mount, which has to be there to the end.
    await vm.check('seq 1 1000000 | tideover pkram save node - --medium memory');
    const digest = await vm.check('seq 1 1000000 | md5sum');
    // What systemd calls last of all. Its pages stay where they are: they are held by a process that belongs to no unit.
    const hook = '/usr/lib/systemd/system-shutdown/see';
    const see = '#!/bin/sh\ngrep -q ^@tideover /proc/[0-9]*/cmdline && echo "<0>$1, and pages are held" >/dev/kmsg\n';
    await vm.check(`cat >${hook} && chmod +x ${hook}`, { input: see });
    const { vmlinuz, initrdOptions, release } = await nextKernel(vm, '6.18');
    await vm.check(`tideover kexec load ${vmlinuz} ${initrdOptions} --reuse-cmdline`, { timeout: NEXT_KERNEL_MS });
    await go(vm, release, 'systemd-run --quiet --wait --pipe tideover kexec exec');
    assert.match(vm.console.text, /kexec, and pages are held/);
    await vm.check('test -s /var/stopped');
    assert.equal(await vm.check('tideover pkram load node | md5sum'), digest);
  } finally {
    await vm.close();
    own.remove();
  }
});
