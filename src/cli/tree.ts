/** All commands of tideover. */
import type { Command, Flags } from './command.ts';
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

/** On every command, before it and after it. */
export const globalFlags = {
  json: { long: 'json', summary: 'print the result, or the error, as one JSON document on stdout' },
  verbose: {
    long: 'verbose',
    short: 'v',
    repeat: true,
    summary: 'say more on stderr; -vv (or -v2) adds details and the stacks of errors',
  },
  quiet: { long: 'quiet', short: 'q', summary: 'say nothing on stderr but warnings and errors' },
  color: {
    long: 'color',
    value: 'WHEN',
    choices: ['auto', 'always', 'never'],
    summary: 'colour: auto is on a terminal, and not if NO_COLOR is set',
  },
} as const satisfies Flags;

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
