import { command } from '../../command.ts';

export const back = command({
  name: 'back',
  summary: 'Start the old kernel again, when the next one has panicked: the only program of its capture kernel',
  description: [
    'tideover update arms that kernel where crashkernel= is on the command line of the next one; see docs/update.md.',
  ],
  flags: {},
  exits: { 3: 'This is no capture kernel, or the old kernel cannot be started.' },
  async run(io) {
    const { goBack } = await import('../../../update/goback.ts');
    await goBack((line) => io.info(`tideover: ${line}`));
    return { json: {}, text: () => [] };
  },
});
