/** What a capture kernel runs: it saves, it looks into the dump, or it goes back to the old kernel of an update. */
import type { Command } from '../command.ts';
import { filter } from '../commands/crash/filter.ts';
import { save } from '../commands/crash/save.ts';
import { why } from '../commands/crash/why.ts';
import { back } from '../commands/update/back.ts';

export { main } from '../app.ts';
export const program: Command = {
  name: 'tideover',
  summary: '',
  commands: [
    { name: 'crash', summary: '', commands: [save, why, filter] },
    { name: 'update', summary: '', commands: [back] },
  ],
};
