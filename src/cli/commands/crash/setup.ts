import { command } from '../../command.ts';

export const setup = command({
  name: 'setup',
  group: 'The capture kernel',
  summary: 'Arm at each start from now on',
  description: [
    'Writes a service of systemd (tideover-crash.service), a rule of udev that arms again when processors or memory come and go, a hook ' +
      'for new packages of the running kernel, and /etc/tideover/crash.conf if there is none. Memory has to be set aside on the ' +
      "kernel's command line: crashkernel=192M.",
    'With --json: {"written"} or {"removed"}, a list of paths.',
  ],
  flags: { remove: { long: 'remove', summary: 'take it back; crash.conf stays' } },
  async run(io, { flags }) {
    const { realpathSync } = await import('node:fs');
    const { join } = await import('node:path');
    const { setUp } = await import('../../../capture/setup.ts');
    const program = join(realpathSync(process.argv[1]!), '../../bin/tideover');
    const paths = setUp(program, { remove: flags.remove });
    if (
      !/(^|\s)crashkernel=/.test((await import('../../../sys/proc.ts')).readProcText('/proc/cmdline')) &&
      !flags.remove
    ) {
      io.warn('no memory is set aside: put crashkernel=192M on the command line of the kernel');
    }
    return { json: flags.remove ? { removed: paths } : { written: paths }, text: () => paths };
  },
});
