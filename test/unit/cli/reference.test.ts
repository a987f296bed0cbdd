import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { type Command, command } from '../../../src/cli/command.ts';
import { exitCodes } from '../../../src/cli/exit.ts';
import { globalFlags } from '../../../src/cli/globals.ts';
import { reference } from '../../../src/cli/reference.ts';
import { tree } from '../../../src/cli/tree.ts';

test('docs/cli.md is what the command tree says; else run: node scripts/docs.ts', () => {
  const written = readFileSync(new URL('../../../docs/cli.md', import.meta.url), 'utf8');
  assert.equal(written, reference(tree, globalFlags));
});

test('the reference has every command, flag, argument and exit code', () => {
  const run = async () => ({ json: null, text: () => [] });
  const nested: Command = {
    name: 'tideover',
    summary: 'S',
    commands: [
      {
        name: 'kexec',
        summary: 'Another kernel',
        commands: [
          command({
            name: 'load',
            aliases: ['l'],
            summary: 'Load it',
            arguments: [
              { name: 'KERNEL', summary: 'the image' },
              { name: 'INITRD', summary: 'a|b', optional: true, variadic: true },
            ],
            flags: { append: { long: 'append', short: 'a', value: 'TEXT', summary: 'its command line' } },
            exits: { 3: 'No CAP_SYS_BOOT.' },
            examples: [{ line: 'tideover kexec load k', does: 'load k' }],
            run,
          }),
        ],
      },
    ],
  };
  const text = reference(nested, globalFlags);
  for (const part of [
    '## kexec\n',
    '## kexec load\n',
    'tideover kexec load [options] <KERNEL> [INITRD...]',
    'Also called `l`.',
    '| `KERNEL` | the image |',
    '| `INITRD` | a\\|b |',
    '| `-a`, `--append TEXT` | its command line |',
    '| 3 | No CAP_SYS_BOOT. |',
    '# load k\ntideover kexec load k',
    '| `-v`, `--verbose` |',
  ]) {
    assert.ok(text.includes(part), part);
  }
  for (const [code, meaning] of Object.entries(exitCodes)) assert.ok(text.includes(`| ${code} | ${meaning} |`));
});
