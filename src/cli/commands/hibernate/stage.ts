/** What the kernels that save and restore a machine do. */
import { command } from '../../command.ts';

export const stage = command({
  name: 'stage',
  summary: 'In the initramfs of a kernel that was started for it: save or restore',
  description: [
    'Does what /tideover/order.json says, which tideover hibernate and tideover resume put there, and never returns: the ' +
      'machine is switched off, goes on, or boots.',
  ],
  async run() {
    const { readOrder } = await import('../../../hibernate/order.ts');
    const { obey } = await import('../../../hibernate/stage.ts');
    return obey(readOrder());
  },
});
