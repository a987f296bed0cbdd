/** What the kernels run that save and restore a machine. */
import type { Command } from '../command.ts';
import { remote } from '../commands/hibernate/remote.ts';
import { stage } from '../commands/hibernate/stage.ts';

export { main } from '../app.ts';
export const program: Command = {
  name: 'tideover',
  summary: '',
  commands: [{ name: 'hibernate', summary: '', commands: [stage, remote] }],
};
