import { UnsupportedError } from '../../errors.ts';
import { command } from '../command.ts';

/** Of the log, in bytes. */
const BACK = 8192;

export const attach = command({
  name: 'attach',
  group: 'Processes',
  summary: 'See what a workload writes, and type into its terminal',
  description: [
    'The end of its output is shown and what comes. What is typed goes into its terminal if it has one (tideover run --terminal), with ' +
      'the size of this window. Ctrl-\\ leaves it, or Ctrl-C where it has no terminal, and so does the end of input; it goes on.',
  ],
  arguments: [{ name: 'NAME', summary: 'of the workload' }],
  exits: { 0: 'It was left, or has ended.', 3: 'It does not run.' },
  examples: [
    { line: 'tideover attach work', does: 'come back to the shell that was begun with tideover run -t work -- bash' },
  ],
  async run(io, { args }) {
    const name = args[0] as string;
    const { findWorkload } = await import('../../update/workload.ts');
    const workload = findWorkload(name);
    if (workload?.pid === undefined) {
      const why = workload === undefined ? 'nothing was started under this name' : 'it does not run';
      throw new UnsupportedError({
        what: `workload ${name}`,
        why,
        remedy: `start it: tideover run ${name} -- COMMAND`,
      });
    }
    const { session } = await import('../workload/session.ts');
    const { pid, state } = workload;
    if (state.terminal === undefined) io.info(`${name} has no terminal; Ctrl-C leaves it`);
    const { log, terminal } = state;
    const { kind } = await session(io, { name, pid, log, terminal, child: false, from: -BACK });
    io.info(kind === 'ended' ? `${name} has ended` : `${name} goes on`);
    return { json: { name, pid, ended: kind === 'ended' }, text: () => [] };
  },
});
