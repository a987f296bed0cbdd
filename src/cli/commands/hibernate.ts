/** Powering the machine off with all that runs on it, and going on after the next boot. */
import { PartialError } from '../../errors.ts';
import type { HelperKernel } from '../../hibernate/hibernate.ts';
import { type Command, command, type Flags, type FlagValues } from '../command.ts';
import { UsageError } from '../exit.ts';
import { byteSize } from '../progress.ts';

const helperFlags = {
  kernel: { long: 'kernel', value: 'FILE', summary: 'the kernel that saves, or restores: a bzImage' },
  initrd: {
    long: 'initrd',
    value: 'FILE',
    repeat: true,
    summary: 'its initramfs, which runs tideover hibernate stage; several are joined',
  },
  append: { long: 'append', value: 'TEXT', summary: 'its command line' },
} as const satisfies Flags;

const stage = command({
  name: 'stage',
  summary: 'In the initramfs of a kernel that was started for it: save or restore',
  description: [
    'Does what /tideover/order.json says, which tideover hibernate and tideover resume put there, and never returns: the ' +
      'machine is switched off, goes on, or boots.',
  ],
  async run() {
    const { readOrder } = await import('../../hibernate/order.ts');
    const { obey } = await import('../../hibernate/stage.ts');
    return obey(readOrder());
  },
});

export const hibernate: Command = command({
  name: 'hibernate',
  group: 'This machine',
  summary: 'Power the machine off with all that runs on it, to go on after the next boot',
  description: [
    'A second kernel, in memory that crashkernel= has reserved, writes the whole memory of the machine to a disk and ' +
      'switches it off: the programs, the page cache and the kernel itself. tideover resume, in the initramfs of the next ' +
      'boot, brings it back. What is on the disk before is lost. The kernel must be built with CONFIG_KEXEC_JUMP.',
    'If saving fails, the machine goes on, and the reason is told here. With --test it goes on after saving. The image is a ' +
      'dump which all tideover crash commands read, and crash(8) too.',
    'With --json: {"outcome": "tested" or "resumed", "bytes", "seconds"}, of the image and of writing or restoring it.',
  ],
  commands: [stage],
  flags: {
    to: { long: 'to', value: 'BLOCKDEV', summary: 'where the image goes' },
    compress: { long: 'compress', value: 'HOW', choices: ['lzo', 'zstd', 'none'], summary: 'how pages are compressed' },
    test: { long: 'test', summary: 'go on after saving' },
    reboot: { long: 'reboot', summary: 'restart after saving' },
    poweroff: { long: 'poweroff', summary: 'switch off after saving; the default' },
    dropCaches: { long: 'drop-caches', summary: 'give up the page cache first, for a smaller image' },
    region: { long: 'region', value: 'FROM-TO', summary: 'memory for the second kernel, as 0x10000000-0x1fffffff' },
    ...helperFlags,
  },
  exits: {
    1: 'The machine could not be saved, and goes on. The reason is named.',
    3: 'A privilege, a kernel feature or the reserved memory is missing; nothing was done.',
    4: 'The machine went on, and nothing says how.',
  },
  examples: [
    { line: 'tideover hibernate --to /dev/sda3', does: 'save and switch off' },
    { line: 'tideover hibernate --to /dev/sda3 --test', does: 'save, and go on at once' },
  ],
  async run(io, { flags }) {
    if (flags.to === undefined) throw new UsageError('--to is missing: where the image goes');
    const chosen = (['test', 'reboot', 'poweroff'] as const).filter((name) => flags[name]);
    if (chosen.length > 1) throw new UsageError(`--${chosen.join(' and --')} exclude each other`);
    const [how = 'poweroff'] = chosen;
    const { parseRange } = await import('../../mem/range.ts');
    const region = flags.region === undefined ? undefined : parseRange(flags.region);
    if (flags.region !== undefined && region === undefined) {
      throw new UsageError(`--region ${flags.region}: not a range, like 0x10000000-0x1fffffff`);
    }
    const { hibernate: run } = await import('../../hibernate/hibernate.ts');
    const word = run({
      helper: helperOf(flags),
      to: flags.to,
      compression: flags.compress,
      ending: how === 'test' ? 'return' : how,
      dropCaches: flags.dropCaches,
      ...(region !== undefined && { region }),
    });
    if (word === undefined) {
      throw new PartialError('hibernating', 'the machine goes on, and the other kernel left no word');
    }
    if (word.outcome === 'failed') {
      const { NotSavedError } = await import('../../hibernate/mailbox.ts');
      throw new NotSavedError(`the machine was not saved, and goes on: ${word.reason}`);
    }
    const { outcome, bytes = 0, seconds = 0 } = word;
    io.info(outcome === 'resumed' ? 'the machine was resumed' : 'the machine was saved, and goes on');
    const line = `${outcome}: ${byteSize(bytes)} in ${seconds.toFixed(1)} s`;
    return { json: { outcome, bytes, seconds }, text: () => [line] };
  },
});

export const resume: Command = command({
  name: 'resume',
  group: 'This machine',
  summary: 'Go on with a machine that was hibernated, in place of this boot',
  description: [
    'Is run by the initramfs before file systems are mounted: a file system that the machine has mounted must not be touched ' +
      'by this boot. Does not return if there is an image and it fits: memory map, processor, and all of it but the pages ' +
      'checked here, each page while it is restored. An image is marked used before the machine goes on, and never taken again.',
  ],
  flags: {
    from: { long: 'from', value: 'BLOCKDEV', summary: 'where the image is; without it, all disks are looked at' },
    wait: { long: 'wait', value: 'SECONDS', summary: 'how long to wait for a disk with an image; by default 0' },
    ...helperFlags,
  },
  exits: {
    0: 'There is nothing to resume: go on booting.',
    3: 'The image does not fit this machine, or the kernel cannot load another; the image stays.',
    5: 'The image is damaged.',
  },
  async run(_, { flags }) {
    const seconds = Number(flags.wait ?? 0);
    if (!Number.isInteger(seconds) || seconds < 0)
      throw new UsageError(`--wait: '${flags.wait}' is no number of seconds`);
    const { resume: run } = await import('../../hibernate/resume.ts');
    const why = run(helperOf(flags), flags.from, seconds);
    return { json: { resumed: false, why }, text: () => [`nothing to resume: ${why}`] };
  },
});

function helperOf({ kernel, initrd, append }: FlagValues<typeof helperFlags>): HelperKernel {
  if (kernel === undefined) throw new UsageError('--kernel is missing');
  return { kernel, initrds: initrd, commandLine: append ?? '' };
}
