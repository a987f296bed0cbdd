import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { byteSize } from '../../progress.ts';

export const arm = command({
  name: 'arm',
  group: 'The capture kernel',
  summary: 'Load a capture kernel, which saves a dump when this one dies',
  description: [
    'What is not said here comes from /etc/tideover/crash.conf, with the keys of kdump.conf(5). Several targets are tried one after the ' +
      'other. In each the capture kernel makes a folder HOST-DATE with the log (vmcore-dmesg.txt), why it died (why.txt) and the dump ' +
      '(vmcore); to ssh: and http: the dump goes as a stream, which tideover crash reads too.',
    'To a block device without a file system they go as a tar archive from its first byte on: tar -xf /dev/X brings them, and ' +
      'tideover crash reads the dump where it is. What was on the device is lost, so it must be zeros or an earlier dump.',
    'Memory for it is set aside when this kernel starts: crashkernel=192M on its command line, 224M where a target is a server.',
    'After --then boot the kernel is started again by kexec, on the memory map that the machine had, and finds what memory preserves ' +
      '(tideover pkram) as it was when the capture kernel was loaded.',
    'With --json: {"kernel", "release", "targets", "reserved", "free", "notes"}; "reserved" and "free" are in bytes.',
  ],
  flags: {
    target: {
      long: 'target',
      value: 'WHERE',
      repeat: true,
      summary: 'DIR, nfs:HOST:/DIR, ssh:USER@HOST:DIR, http(s)://HOST/PATH or a block device; several for fallbacks',
    },
    level: { long: 'level', short: 'd', value: 'N', summary: "what is left out, as makedumpfile's -d [31]" },
    compress: { long: 'compress', value: 'HOW', summary: 'zstd, lzo, zlib or snappy [zstd]' },
    action: { long: 'then', value: 'WHAT', summary: 'what follows: reboot, poweroff, halt, shell or boot [reboot]' },
    kernel: { long: 'kernel', value: 'FILE', summary: "bzImage or vmlinux [the running kernel's]" },
    append: { long: 'append', value: 'WORDS', summary: "added to the capture kernel's command line" },
    config: { long: 'config', value: 'FILE', summary: 'in place of /etc/tideover/crash.conf' },
  },
  exits: {
    3:
      'No memory is reserved or too little, a target cannot be reached from the capture kernel, a module or program is missing, or ' +
      'lockdown forbids it; nothing was loaded.',
    5: 'A line of crash.conf is wrong.',
  },
  examples: [
    { line: 'tideover crash arm', does: 'as crash.conf says, or to /var/crash' },
    {
      line: 'tideover crash arm --target nfs:storage:/crash --target /var/crash',
      does: 'to the server, and to the disk if it does not answer',
    },
  ],
  async run(io, { flags }) {
    const { arm: load } = await import('../../../capture/arm.ts');
    const { parseSettings, readSettings } = await import('../../../capture/settings.ts');
    const { locationForCapture } = await import('../../../update/preserved.ts');
    if (flags.config !== undefined && !(await import('node:fs')).existsSync(flags.config)) {
      throw new UsageError(`--config ${flags.config}: there is no such file`);
    }
    const given = {
      level: flags.level,
      compress: flags.compress,
      final_action: flags.action,
      kernel: flags.kernel,
      append: flags.append,
    };
    const lines = Object.entries(given).flatMap(([key, value]) => (value === undefined ? [] : [`${key} ${value}`]));
    const own = parseSettings(lines.join('\n'), 'the command line');
    const asked = Object.fromEntries(
      Object.entries({
        level: flags.level === undefined ? undefined : own.level,
        compress: flags.compress === undefined ? undefined : own.compress,
        finalAction: flags.action === undefined ? undefined : own.finalAction,
        kernel: own.kernel,
        append: flags.append === undefined ? undefined : own.append,
        targets: flags.target.length === 0 ? undefined : flags.target,
      }).filter(([, value]) => value !== undefined),
    );
    const armed = await load({ ...readSettings(flags.config), ...asked }, locationForCapture());
    for (const note of armed.notes) io.warn(note);
    io.info(`armed: kernel ${armed.release} will save to ${armed.targets.join(', or to ')}`);
    return {
      json: armed,
      text: () => [`${byteSize(armed.free)} of ${byteSize(armed.reserved)} are left for it to run in`],
    };
  },
});
