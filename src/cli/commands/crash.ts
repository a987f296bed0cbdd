/** Crash dumps: each command has a file in crash/. They read anybody's dump, unprivileged. */
import { type Command, command } from '../command.ts';
import { bt } from './crash/bt.ts';
import { convert } from './crash/convert.ts';
import { dmesg } from './crash/dmesg.ts';
import { filter } from './crash/filter.ts';
import { ps } from './crash/ps.ts';

export const crash: Command = command({
  name: 'crash',
  group: 'Crash dumps',
  summary: 'Read, filter and convert dumps of crashed kernels, and understand them',
  commands: [ps, bt, dmesg, filter, convert],
});
