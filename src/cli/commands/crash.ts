/** Crash dumps: each command has a file in crash/. They read anybody's dump, unprivileged. */
import { type Command, command } from '../command.ts';

export const crash: Command = command({
  name: 'crash',
  group: 'Crash dumps',
  summary: 'Read, filter and convert dumps of crashed kernels, and understand them',
  commands: [],
});
