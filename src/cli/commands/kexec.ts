import { UnsupportedError } from '../../errors.ts';
import { count } from '../../image/count.ts';
import type { Loading, SystemCall } from '../../kexec/kexec.ts';
import type { KexecStatus } from '../../kexec/load.ts';
import type { Preserved } from '../../update/preserved.ts';
import { type Command, command, type Flags, type FlagValues } from '../command.ts';
import { UsageError } from '../exit.ts';
import type { Io, Output, View } from '../io.ts';
import { table } from '../table.ts';
import { printableLine } from '../text.ts';

const loadFlags = {
  initrd: { long: 'initrd', value: 'FILE', repeat: true, summary: 'initrd or initramfs; several are joined' },
  append: { long: 'append', value: 'TEXT', summary: 'command line of the next kernel' },
  commandLine: { long: 'command-line', value: 'TEXT', summary: 'the same as --append' },
  reuse: { long: 'reuse-cmdline', summary: "begin with this kernel's command line" },
  memMin: { long: 'mem-min', value: 'ADDR', summary: 'lowest physical address to load to' },
  memMax: { long: 'mem-max', value: 'ADDR', summary: 'highest physical address to load to' },
  resetVga: { long: 'reset-vga', summary: 'put the VGA into text mode on the way' },
  resetPic: { long: 'reset-pic', summary: 'put the interrupt controllers into legacy mode on the way' },
  fileSyscall: {
    long: 'kexec-file-syscall',
    short: 's',
    summary: 'let the kernel read the image and check its signature (kexec_file_load)',
  },
  ownSyscall: { long: 'kexec-syscall', short: 'c', summary: 'lay the memory out here (kexec_load)' },
  preserveAs: {
    long: 'preserve-as',
    value: 'TYPE',
    summary:
      'what the memory map calls preserved memory: reserved; soft-reserved, whole blocks of which can be given back later; pram, for ' +
      'kernels without /dev/mem or with lockdown; or soft-reserved,pram [by what the next kernel has]',
  },
  dropPreserved: { long: 'drop-preserved', summary: 'do not keep preserved memory' },
  dryRun: { long: 'dry-run', summary: 'show what would be loaded, and load nothing' },
} as const satisfies Flags;

const now = { long: 'now', summary: 'do not stop services and do not make file systems read-only first' } as const;

const load = command({
  name: 'load',
  summary: 'Load a kernel to be started by kexec exec',
  description: [
    'The kernel is a bzImage or a vmlinux. It is loaded with a memory map, an initrd and a command line, and with a ' +
      'purgatory that checks all of it by SHA-256 before it is entered. By --kexec-file-syscall the kernel does all this by ' +
      'itself; only so it checks signatures, and carries what kexec handover (KHO) keeps.',
    'Preserved memory (tideover pkram) is left out of the memory map, and the command line says where it is. What is saved ' +
      'afterwards needs another load.',
    'With --json: {"systemCall", "reason", "kernel": {file, format, version}, "commandLine", "segments": [{name, start, size, ' +
      'bytes}], "e820": [{start, end, type}], "entry", "preserved": {nodes, type}}; segments, e820 and entry only where systemCall is "kexec_load".',
  ],
  arguments: [{ name: 'KERNEL', summary: 'bzImage (vmlinuz) or vmlinux' }],
  flags: loadFlags,
  exits: {
    3: 'A privilege, a setting or a kernel feature is missing, or there is too little room; nothing was loaded.',
    5: 'The kernel file is damaged.',
  },
  examples: [
    {
      line: 'tideover kexec load /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12 --reuse-cmdline',
      does: 'the next kernel, as this one was started',
    },
    { line: 'tideover kexec load /boot/vmlinuz --append root=/dev/vda1 --dry-run', does: 'the plan, without loading' },
  ],
  run: (io, { flags, args }) => loadKernelFile(io, args[0] as string, flags),
});

const exec = command({
  name: 'exec',
  summary: 'Start the kernel that is loaded',
  description: [
    'With systemd this is systemctl kexec, which stops the services first. Without, disks are synced and file systems ' +
      'made read-only, and the kernel is started. Before either, preserved memory is held where it is, and compared with what it ' +
      'was when the kernel was loaded.',
  ],
  flags: { now },
  exits: { 3: 'Nothing is loaded, a privilege is missing, or preserved memory has changed since; nothing was done.' },
  run: (io, { flags }) => startNext(io, flags.now),
});

const unload = command({
  name: 'unload',
  summary: 'Drop the kernel that is loaded',
  flags: { panic: { long: 'panic', summary: 'the one that is loaded for a panic' } },
  run: (_, { flags }) => drop(flags.panic ? 'crash' : 'reboot'),
});

const jumpFlags = {
  initrd: loadFlags.initrd,
  append: loadFlags.append,
  reuse: loadFlags.reuse,
  region: { long: 'region', value: 'FROM-TO', summary: 'memory to live in, as 0x10000000-0x15ffffff' },
  back: { long: 'back', summary: 'go back to the kernel that jumped to this one' },
} as const satisfies Flags;

const jump = command({
  name: 'jump',
  summary: 'Jump into a second kernel, and come back when it jumps back',
  description: [
    'All programs stand still while the second kernel runs in a region of its own, which is the memory that crashkernel= ' +
      'reserved, unless --region names another. In the second kernel, jump --back ends it and goes on here. The kernel must ' +
      'be built with CONFIG_KEXEC_JUMP.',
    'With --json: {"jumped", "seconds"}: how long the second kernel ran.',
  ],
  arguments: [{ name: 'KERNEL', summary: 'bzImage (vmlinuz) or vmlinux', optional: true }],
  flags: jumpFlags,
  exits: { 3: 'A privilege, a kernel feature or a region is missing; nothing was loaded.' },
  examples: [
    { line: 'tideover kexec jump /boot/vmlinuz --initrd second.img --append console=ttyS0', does: 'there and back' },
    { line: 'tideover kexec jump --back', does: 'in the second kernel: back' },
  ],
  run: (_, { flags, args }) => jumpTo(args[0] as string | undefined, flags),
});

const statusCommand = command({
  name: 'status',
  summary: 'Show whether a kernel is loaded',
  description: ['With --json: {"loaded", "crashLoaded", "crashSize"}, the size in bytes.'],
  run: () => showStatus(),
});

const purgatory = command({
  name: 'purgatory',
  summary: 'Write the purgatory for another boot loader',
  description: [
    'The machine code that checks a loaded kernel and enters it, position independent, with an empty parameter block for ' +
      'the loader to fill: docs/spec/purgatory.md.',
    'With --json: {"file", "size"} in bytes.',
  ],
  flags: { output: { long: 'output', short: 'o', value: 'FILE', summary: 'where to write it' } },
  examples: [
    { line: 'tideover kexec purgatory -o purgatory.bin', does: 'the code, to be loaded with two kernels at boot' },
  ],
  run: (_, { flags }) => writePurgatory(flags.output),
});

export const kexec: Command = command({
  name: 'kexec',
  group: 'This machine',
  summary: 'Start another kernel from this one',
  description: ["The options of kexec-tools are taken too: -l, -p, -e, -u, -S, with load's options beside -l and -p."],
  commands: [load, exec, unload, statusCommand, jump, purgatory],
  arguments: [{ name: 'KERNEL', summary: 'with -l and -p: bzImage (vmlinuz) or vmlinux', optional: true }],
  flags: {
    load: { long: 'load', short: 'l', summary: 'as kexec load KERNEL' },
    loadPanic: {
      long: 'load-panic',
      short: 'p',
      summary: 'load a capture kernel into the memory of crashkernel=, for a panic; with -u: drop it',
    },
    exec: { long: 'exec', short: 'e', summary: 'as kexec exec' },
    unload: { long: 'unload', short: 'u', summary: 'as kexec unload' },
    status: { long: 'status', short: 'S', summary: 'as kexec status' },
    now,
    ...loadFlags,
  },
  async run(io, { flags, args }) {
    const kernel = args[0] as string | undefined;
    const wanted = oneOf(flags);
    if (wanted === 'load' || wanted === 'loadPanic') {
      if (kernel === undefined) throw new UsageError('KERNEL is missing');
      return wanted === 'load' ? loadKernelFile(io, kernel, flags) : loadCaptureKernel(io, kernel, flags);
    }
    if (kernel !== undefined) throw new UsageError(`'${kernel}' is no command of kexec; try 'tideover kexec --help'`);
    if (wanted === undefined) throw new UsageError("what to do is missing; try 'tideover kexec --help'");
    if (wanted === 'exec') return startNext(io, flags.now);
    return wanted === 'unload' ? drop(flags.loadPanic ? 'crash' : 'reboot') : showStatus();
  },
});

/** What to do, of kexec-tools' options: one, or -u beside -p. */
function oneOf(flags: Readonly<Record<'load' | 'loadPanic' | 'exec' | 'unload' | 'status', boolean>>) {
  const given = (['unload', 'load', 'loadPanic', 'exec', 'status'] as const).filter((name) => flags[name]);
  const [first, ...more] = given;
  if (first === 'unload' && more.join() === 'loadPanic') return first;
  if (more.length > 0) throw new UsageError('one of -l, -p, -e, -u and -S, or -p with -u');
  return first;
}

type LoadFlags = FlagValues<typeof loadFlags>;

async function loadKernelFile(io: Io, kernel: string, flags: LoadFlags): Promise<Output> {
  const { loadKernel, planKernel } = await import('../../kexec/kexec.ts');
  const [memMin, memMax] = [physicalAddress('--mem-min', flags.memMin), physicalAddress('--mem-max', flags.memMax)];
  const [given, by] = [await commandLine(flags), systemCall(flags)];
  const preserved = await preservedFor(kernel, given, flags);
  const files = { kernel, initrds: flags.initrd, commandLine: await withLocation(given, preserved.parameters) };
  const wishes = {
    ...(memMin !== undefined && { memMin }),
    ...(memMax !== undefined && { memMax }),
    ...(flags.resetVga && { resetVga: true }),
    ...(flags.resetPic && { resetPic: true }),
    // With kexec_file_load the map stays as this kernel got it; there is nothing in it to keep.
    ...(!flags.fileSyscall && { reserve: preserved.reserve }),
  };
  const loading = (flags.dryRun ? planKernel : loadKernel)(files, wishes, by);
  if (!flags.dryRun) preserved.remember();
  io.info(`${flags.dryRun ? 'would load' : 'loaded'} ${kernel} by ${loading.systemCall} (${loading.reason})`);
  const { nodes, type } = preserved;
  if (nodes > 0) io.info(`${count(nodes, 'node')} of preserved memory will be there, as ${type} memory`);
  return {
    json: { ...loadingJson(loading, files), preserved: { nodes, type } },
    text: (view) => showLoading(loading, files.commandLine, view),
  };
}

async function loadCaptureKernel(io: Io, kernel: string, flags: LoadFlags): Promise<Output> {
  const { loadCaptureKernel: loadIt, planCaptureKernel: planIt } = await import('../../kexec/kexec.ts');
  const { locationForCapture } = await import('../../update/preserved.ts');
  const location = flags.dropPreserved ? [] : locationForCapture();
  const files = {
    kernel,
    initrds: flags.initrd,
    commandLine: await withLocation(await commandLine(flags), location),
  };
  const loading = (flags.dryRun ? planIt : loadIt)(files);
  io.info(`${flags.dryRun ? 'would load' : 'loaded'} ${kernel} for a panic`);
  return { json: loadingJson(loading, files), text: (view) => showLoading(loading, files.commandLine, view) };
}

async function jumpTo(kernel: string | undefined, flags: FlagValues<typeof jumpFlags>): Promise<Output> {
  const { jumpBackHere, jumpIntoKernel } = await import('../../kexec/kexec.ts');
  if (flags.back) jumpBackHere();
  if (kernel === undefined) throw new UsageError('KERNEL is missing, or --back');
  const { parseRange } = await import('../../mem/range.ts');
  const region = flags.region === undefined ? undefined : parseRange(flags.region);
  if (flags.region !== undefined && region === undefined) {
    throw new UsageError(`--region ${flags.region}: not a range, like 0x10000000-0x15ffffff`);
  }
  const files = { kernel, initrds: flags.initrd, commandLine: await commandLine(flags) };
  const { freezeFileSystems } = await import('../../hibernate/filesystems.ts');
  const { seconds } = jumpIntoKernel(files, region, freezeFileSystems);
  return { json: { jumped: true, seconds }, text: () => [`back after ${seconds.toFixed(1)} s`] };
}

/** What of preserved memory the next kernel gets. */
async function preservedFor(kernel: string, commandLine: string, flags: LoadFlags): Promise<Preserved> {
  const { nothingPreserved, preservedFor: find, preserveAs } = await import('../../update/preserved.ts');
  if (flags.dropPreserved) return nothingPreserved();
  const { readKernel } = await import('../../kexec/kernelfile.ts');
  const as = preserveAs.find((each) => each === flags.preserveAs);
  if (flags.preserveAs !== undefined && as === undefined) {
    throw new UsageError(`--preserve-as ${flags.preserveAs}: it is ${preserveAs.join(' or ')}`);
  }
  const [release] = readKernel(kernel).version.split(' ');
  const preserved = find(as, { release: release!, commandLine });
  if (flags.fileSyscall && preserved.nodes > 0) {
    throw new UnsupportedError({
      what: `keeping ${count(preserved.nodes, 'node')} of preserved memory`,
      why: 'with kexec_file_load the kernel lays out the memory by itself',
      remedy: 'leave out --kexec-file-syscall; or give the nodes up with --drop-preserved',
    });
  }
  return preserved;
}

async function withLocation(commandLine: string, location: readonly string[]): Promise<string> {
  return (await import('../../update/preserved.ts')).withLocation(commandLine, location);
}

async function commandLine({
  append,
  commandLine,
  reuse,
}: Pick<LoadFlags, 'append' | 'reuse'> & Partial<LoadFlags>): Promise<string> {
  if (append !== undefined && commandLine !== undefined)
    throw new UsageError('--append and --command-line are the same');
  const given = append ?? commandLine ?? '';
  if (!reuse) return given;
  const { reuseCommandLine } = await import('../../kexec/commandline.ts');
  const { readProcText } = await import('../../sys/proc.ts');
  return reuseCommandLine(readProcText('/proc/cmdline').trim(), given);
}

function physicalAddress(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw new UsageError(`${flag} ${text}: not an address, like 0x1000000`);
  return value;
}

function systemCall({ fileSyscall, ownSyscall }: LoadFlags): SystemCall | undefined {
  if (fileSyscall && ownSyscall) throw new UsageError('--kexec-file-syscall and --kexec-syscall exclude each other');
  return fileSyscall ? 'kexec_file_load' : ownSyscall ? 'kexec_load' : undefined;
}

function loadingJson(
  { systemCall, reason, plan }: Loading,
  { kernel, commandLine }: { kernel: string; commandLine: string },
) {
  if (plan === undefined) return { systemCall, reason, kernel: { file: kernel }, commandLine };
  const { file, format, version } = plan.image;
  return {
    systemCall,
    reason,
    kernel: { file, format, version },
    commandLine: plan.commandLine,
    segments: plan.segments.map(({ name, start, size, bytes }) => ({ name, start, size, bytes: bytes.length })),
    e820: plan.e820,
    entry: plan.entry,
  };
}

function showLoading({ plan }: Loading, commandLine: string, view: View): string[] {
  const line = `command line: ${printableLine(plan?.commandLine ?? commandLine)}`;
  if (plan === undefined) return [line];
  const range = (start: number, end: number) => [address(start), address(end)];
  return [
    `${plan.image.format}: ${printableLine(plan.image.version)}`,
    line,
    '',
    ...table(
      [{ title: 'Segment' }, { title: 'From' }, { title: 'To' }, { title: 'Bytes', align: 'right' }],
      plan.segments.map(({ name, start, size, bytes }) => [name, ...range(start, start + size), String(bytes.length)]),
      view,
    ),
    '',
    ...table(
      [{ title: 'e820 from' }, { title: 'To' }, { title: 'Type', align: 'right' }],
      plan.e820.map(({ start, end, type }) => [...range(start, end), String(type)]),
      view,
    ),
  ];
}

async function startNext(io: Io, atOnce: boolean): Promise<Output> {
  const { restart } = await import('../../kexec/restart.ts');
  const { sealInPlace } = await import('../../update/standstill.ts');
  const { unseal } = await import('../../update/state.ts');
  const { demandNoneInterrupted } = await import('../../update/abort.ts');
  demandNoneInterrupted();
  try {
    restart({ now: atOnce, warn: io.warn, lastly: sealInPlace });
  } catch (error) {
    unseal();
    throw error;
  }
  return { json: { started: true }, text: () => ['systemd is stopping the services; then the next kernel starts'] };
}

async function drop(kind: 'reboot' | 'crash'): Promise<Output> {
  const { unload } = await import('../../kexec/load.ts');
  unload(kind);
  if (kind === 'reboot') (await import('../../update/state.ts')).rememberLoaded(undefined);
  return { json: { loaded: false }, text: () => [] };
}

async function writePurgatory(file: string | undefined): Promise<Output> {
  if (file === undefined) throw new UsageError('-o FILE is missing');
  const { purgatory: code } = await import('../../asm/purgatory.ts');
  const { writeFileSync } = await import('node:fs');
  const bytes = code({});
  writeFileSync(file, bytes);
  return { json: { file, size: bytes.length }, text: () => [`${bytes.length} bytes in ${file}`] };
}

async function showStatus(): Promise<Output> {
  const { status } = await import('../../kexec/load.ts');
  const now = status();
  return { json: now, text: () => statusLines(now) };
}

function statusLines({ loaded, crashLoaded, crashSize }: KexecStatus): string[] {
  return [
    loaded ? 'a kernel is loaded' : 'no kernel is loaded',
    crashLoaded ? 'a capture kernel is loaded' : 'no capture kernel is loaded',
    `${crashSize / 2 ** 20} MiB are reserved for a capture kernel`,
  ];
}

function address(value: number): string {
  return `0x${value.toString(16)}`;
}
