import { command } from '../../command.ts';

export const disarm = command({
  name: 'disarm',
  group: 'The capture kernel',
  summary: 'Drop the capture kernel',
  description: ['With --json: {"armed": false}.'],
  async run() {
    (await import('../../../capture/arm.ts')).disarm();
    return { json: { armed: false }, text: () => [] };
  },
});
