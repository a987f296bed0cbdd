/** What makes processes go on in the next kernel, and brings their memory. */
import type { Command } from '../command.ts';
import { bring, resume } from '../commands/update/resume.ts';

export { main } from '../app.ts';
export const program: Command = {
  name: 'tideover',
  summary: '',
  commands: [{ name: 'update', summary: '', commands: [resume, bring] }],
};
