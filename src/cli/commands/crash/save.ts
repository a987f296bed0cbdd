import { command } from '../../command.ts';

export const save = command({
  name: 'save',
  group: 'The capture kernel',
  summary: 'Save what is left of the kernel that died: the first program of a capture kernel',
  description: [
    'The log first, then why the kernel died, then the dump, to the first of the places that takes it all. crash arm has left its orders ' +
      'in /etc/tideover/crash.json. As the first program of a capture kernel it then ends the machine as it was told.',
    'With --json: {"where", "files", "failures"}.',
  ],
  flags: { orders: { long: 'orders', value: 'FILE', summary: 'in place of /etc/tideover/crash.json' } },
  exits: {
    1: 'Nothing, or not all, could be saved; what was is named.',
    3: 'This is no capture kernel: there is no /proc/vmcore.',
  },
  async run(io, { flags }) {
    const { runSave } = await import('../../../capture/end.ts');
    const { bootNext } = await import('../../../update/afterpanic.ts');
    const saved = await runSave(flags.orders, (line) => io.info(`tideover: ${line}`), bootNext);
    return {
      json: saved,
      text: () => [...saved.files],
      ...(saved.where === undefined && { exit: 1 as const }),
    };
  },
});
