import type { Flags } from './command.ts';

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
