/** Powering the machine off with all that runs on it, and going on after the next boot. */
import { PartialError, UnsupportedError } from '../../errors.ts';
import type { HelperFiles } from '../../hibernate/helper.ts';
import type { BoundPlace } from '../../hibernate/place.ts';
import { type Command, command, type Flags, type FlagValues } from '../command.ts';
import { UsageError } from '../exit.ts';
import { byteSize } from '../progress.ts';
import { printableLine } from '../text.ts';
import { remote } from './hibernate/remote.ts';
import { stage } from './hibernate/stage.ts';

/** As kdump.conf(5) has it. */
const SSH_KEY = '/root/.ssh/kdump_id_rsa';

const helperFlags = {
  kernel: {
    long: 'kernel',
    value: 'FILE',
    summary: 'the kernel that saves, or restores: a bzImage; by default the one that runs, of /boot',
  },
  initrd: {
    long: 'initrd',
    value: 'FILE',
    repeat: true,
    summary: 'its initramfs, which runs tideover hibernate stage; several are joined; by default one is made',
  },
  system: { long: 'system', value: 'FILE', summary: 'squashfs with Node and tideover for the initramfs that is made' },
  append: { long: 'append', value: 'TEXT', summary: 'its command line' },
  sshKey: {
    long: 'ssh-key',
    value: 'FILE',
    summary: 'for ssh: a key without a passphrase [/root/.ssh/kdump_id_rsa]',
  },
} as const satisfies Flags;

const check = command({
  name: 'check',
  summary: 'Say whether this machine can hibernate, and what is missing',
  description: ['With --json: {"possible", "requirements": [{"what", "answer", "reason", "remedy"?}]}.'],
  flags: { to: { long: 'to', value: 'PLACE', summary: 'where images go: is there room?' } },
  exits: { 3: 'Something is missing; it is named.' },
  async run(_, { flags }) {
    const { hibernationRequirements } = await import('../../hibernate/setup.ts');
    const requirements = hibernationRequirements(flags.to).map(({ what, answer }) => ({ what, ...answer }));
    const missing = requirements.some(({ answer }) => answer === 'no');
    return {
      json: { possible: !missing, requirements },
      text: () =>
        requirements.map(({ what, answer, reason, remedy }) =>
          printableLine(`${answer.padEnd(8)}${what}: ${reason}${remedy === undefined ? '' : `; ${remedy}`}`),
        ),
      exit: missing ? 3 : 0,
    };
  },
});

const setup = command({
  name: 'setup',
  summary: 'Prepare this machine: the initramfs gets what brings an image back',
  description: [
    'Copies the kernel, its initramfs and its system to /var/lib/tideover/hibernate and writes a hook and a script for ' +
      'initramfs-tools, which look for an image before file systems are mounted; a service of systemd, ' +
      'tideover-hibernate.service, which hibernates; and where no memory is reserved, the parameter for GRUB. Says what is ' +
      "left to do. noresume on the kernel's command line passes an image over.",
    'With --json: {"written": [paths], "todo": [texts]}.',
  ],
  flags: {
    to: { long: 'to', value: 'PLACE', summary: 'where images go' },
    kernel: helperFlags.kernel,
    system: helperFlags.system,
  },
  exits: { 3: 'initramfs-tools, mksquashfs or a module of the kernel is missing.' },
  async run(_, { flags: { to, kernel, system } }) {
    if (to === undefined) throw new UsageError('--to is missing: where images go');
    const { isServer } = await import('../../hibernate/server.ts');
    if (isServer(to)) {
      throw new UnsupportedError({
        what: `looking for an image at ${to} when the machine boots`,
        why: 'the initramfs has no network',
        remedy: `run tideover resume --from ${to} from an initramfs of your own that has one, before file systems are mounted`,
      });
    }
    const { realpathSync } = await import('node:fs');
    const { join } = await import('node:path');
    const { setUp } = await import('../../hibernate/setup.ts');
    const program = join(realpathSync(process.argv[1]!), '../../bin/tideover');
    const parts = { ...(kernel !== undefined && { kernel }), ...(system !== undefined && { system }) };
    const { written, todo } = setUp(to, program, parts);
    return {
      json: { written, todo },
      text: () => [
        ...written.map((path) => `written: ${path}`),
        ...todo.map((text) => printableLine(`to do: ${text}`)),
      ],
    };
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
    'A file is written on its disk and not through its file system, which stands still: it must have all its blocks (dd ' +
      'if=/dev/zero of=FILE), and tideover hibernate setup must have seen it where it lies.',
    'If saving fails, the machine goes on, and the reason is told here. With --test it goes on after saving. The image is a ' +
      'dump which all tideover crash commands read, and crash(8) too.',
    'With --json: {"outcome": "tested" or "resumed", "bytes", "seconds"}, of the image and of writing or restoring it.',
  ],
  commands: [check, setup, stage, remote],
  flags: {
    to: {
      long: 'to',
      value: 'PLACE',
      summary:
        'where the image goes: a disk; a file on one, which is as large already; nfs:HOST:/FILE, ssh:USER@HOST:FILE, ' +
        'http(s)://HOST/PATH',
    },
    compress: { long: 'compress', value: 'HOW', choices: ['zstd', 'lzo', 'none'], summary: 'how pages are compressed' },
    test: { long: 'test', summary: 'go on after saving' },
    reboot: { long: 'reboot', summary: 'restart after saving' },
    poweroff: { long: 'poweroff', summary: 'switch off after saving; the default' },
    dropCaches: { long: 'drop-caches', summary: 'give up the page cache first, for a smaller image' },
    force: { long: 'force', summary: 'try also where the image seems to be larger than its place' },
    region: { long: 'region', value: 'FROM-TO', summary: 'memory for the second kernel, as 0x10000000-0x1fffffff' },
    ...helperFlags,
  },
  exits: {
    1: 'The machine could not be saved, and goes on. The reason is named: no room, a disk error.',
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
    const word = await run({
      helper: helperOf(flags),
      to: flags.to,
      sshKey: flags.sshKey ?? SSH_KEY,
      compression: flags.compress,
      ending: how === 'test' ? 'return' : how,
      dropCaches: flags.dropCaches,
      force: flags.force,
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
    from: {
      long: 'from',
      value: 'PLACE',
      summary: 'where the image is: a disk, or a server as for hibernate --to',
    },
    place: {
      long: 'place',
      value: 'FILE',
      summary:
        'the disk, or file on one, that tideover hibernate setup was given, as it has written it down; without --from and ' +
        '--place, all disks are looked at',
    },
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
    const from = flags.from ?? (flags.place === undefined ? undefined : await placeIn(flags.place));
    const why = await run(helperOf(flags), from, seconds, flags.sshKey ?? SSH_KEY);
    return { json: { resumed: false, why }, text: () => [`nothing to resume: ${why}`] };
  },
});

export const krestore: Command = command({
  name: 'krestore',
  group: 'This machine',
  summary: "Put a machine's memory back and go on with it: the last step of tideover resume by hand",
  description: [
    'For a kernel that lives in memory which the machine did not use, and does not use any other. Does not return.',
  ],
  arguments: [{ name: 'IMAGE', summary: 'disk or file with the image, or a copy of /proc/vmcore' }],
  flags: {
    entry: { long: 'entry', value: 'ADDR', summary: 'the jump-back entry, of kexec_jump_back_entry=; an image has it' },
  },
  exits: { 3: 'The image was used before, or this kernel uses its memory.', 5: 'It is damaged.' },
  async run(_, { flags, args }) {
    const entry = flags.entry === undefined ? undefined : Number(flags.entry);
    if (entry !== undefined && (!Number.isSafeInteger(entry) || entry <= 0)) {
      throw new UsageError(`--entry ${flags.entry}: not an address, like 0x8f4f12d`);
    }
    const { restoreAlone } = await import('../../hibernate/stage.ts');
    return restoreAlone(args[0] as string, entry);
  },
});

async function placeIn(file: string): Promise<BoundPlace> {
  const { readFileSync } = await import('node:fs');
  return JSON.parse(readFileSync(file, 'utf8')) as BoundPlace;
}

function helperOf({ kernel, initrd, system, append }: FlagValues<typeof helperFlags>): HelperFiles {
  return { kernel, initrds: initrd, system, append };
}
