import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';

export const test = command({
  name: 'test',
  group: 'The capture kernel',
  summary: 'Crash this machine, to see whether it is saved',
  description: ['It asks first. Disks are synced; programs are not told. What is not saved is lost.'],
  flags: { yes: { long: 'yes', summary: 'do not ask' } },
  exits: { 3: 'No capture kernel is loaded; nothing was done.' },
  async run(io, { flags }) {
    const { status } = await import('../../../kexec/load.ts');
    const { UnsupportedError } = await import('../../../errors.ts');
    if (!status().crashLoaded) {
      throw new UnsupportedError({
        what: 'a test crash',
        why: 'no capture kernel is loaded',
        remedy: 'load one: tideover crash arm',
      });
    }
    if (!flags.yes) {
      if (!process.stdin.isTTY)
        throw new UsageError('this is no terminal to ask at; --yes crashes the machine without');
      const { createInterface } = await import('node:readline/promises');
      const terminal = createInterface({ input: process.stdin, output: process.stderr });
      const answer = await terminal.question('Crash this machine now? Type its name to say yes: ', {
        signal: io.signal,
      });
      terminal.close();
      const { hostname } = await import('node:os');
      if (answer.trim() !== hostname()) throw new UsageError('that is not its name; nothing was done');
    }
    const { sync } = await import('../../../sys/mount.ts');
    const { writeFileSync } = await import('node:fs');
    sync({});
    writeFileSync('/proc/sysrq-trigger', 'c');
    return { json: null, text: () => ['the kernel has not crashed'] };
  },
});
