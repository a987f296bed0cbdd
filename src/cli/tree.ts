/** All commands of tideover. */
import type { Command } from './command.ts';
import { attach } from './commands/attach.ts';
import { check } from './commands/check.ts';
import { checkpoint } from './commands/checkpoint.ts';
import { crash } from './commands/crash.ts';
import { hibernate, krestore, resume } from './commands/hibernate.ts';
import { imageCommand } from './commands/image.ts';
import { keep } from './commands/keep.ts';
import { kexec } from './commands/kexec.ts';
import { lazyPages } from './commands/lazypages.ts';
import { pageServer } from './commands/pageserver.ts';
import { pkram } from './commands/pkram.ts';
import { predump } from './commands/predump.ts';
import { restore } from './commands/restore.ts';
import { run } from './commands/run.ts';
import { update } from './commands/update.ts';

export const tree: Command = {
  name: 'tideover',
  summary: "Keeps a Linux machine's state alive over a kernel change, a power-off and a kernel crash",
  commands: [
    check,
    checkpoint,
    predump,
    pageServer,
    restore,
    lazyPages,
    imageCommand,
    run,
    attach,
    keep,
    update,
    kexec,
    pkram,
    hibernate,
    resume,
    krestore,
    crash,
  ],
  examples: [{ line: 'tideover check', does: 'what this machine can do, and why not' }],
};
