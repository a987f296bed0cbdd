/** What is loaded before it is known which command is wanted: their declarations, and nothing that does the work. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import type { Command } from '../../../src/cli/command.ts';
import { tree } from '../../../src/cli/tree.ts';

const src = join(import.meta.dirname, '../../../src');
/** Few lines each, which import nothing. */
const small = new Set(['process/files/external.ts']);

/** Files that are loaded with one: not those of which only types are imported, or that are imported when they are needed. */
function loadedBy(file: string): string[] {
  const code = readFileSync(file, 'utf8').replace(/\/\*[\s\S]*?\*\//g, '');
  return [...code.matchAll(/^(?:import|export) (?!type )([^;'()]*?) ?(?:from )?'(\.[^']+)';$/gm)].flatMap(
    ([, names = '', path]) => {
      const listed = /^\{([\s\S]*)\}$/
        .exec(names.trim())?.[1]
        ?.split(',')
        .map((name) => name.trim());
      const onlyTypes = listed?.filter((name) => name !== '').every((name) => name.startsWith('type ')) ?? false;
      return onlyTypes ? [] : [join(dirname(file), path!)];
    },
  );
}

test('a command loads what it works with when it is run', () => {
  const loaded = new Map<string, string>();
  const look = (file: string, by: string) => {
    if (loaded.has(file)) return;
    loaded.set(file, by);
    for (const next of loadedBy(file)) look(next, file);
  };
  for (const program of readdirSync(join(src, 'cli/programs'))) look(join(src, 'cli/programs', program), '');
  const names = [...loaded].map(([file, by]) => [relative(src, file), relative(src, by)] as const);
  assert.ok(names.some(([name]) => name === 'cli/commands/crash/dmesg.ts'));
  assert.ok(names.some(([name]) => name === 'errors.ts'));
  const working = names.filter(([name]) => /^(?!cli\/|abi\/|mem\/|image\/count)\w+\//.test(name) && !small.has(name));
  assert.deepEqual(working, []);
});

test('a command that is a program of its own answers as within the whole program', async () => {
  for (const [words, { main, program }] of [
    [['crash', 'dmesg'], await import('../../../src/cli/programs/dmesg.ts')],
    [['checkpoint'], await import('../../../src/cli/programs/checkpoint.ts')],
    [['restore'], await import('../../../src/cli/programs/restore.ts')],
  ] as const) {
    for (const more of [['--help'], ['--hlep'], [], ['--no-json', '--json', '--no-quiet', 'a', 'b', 'c']]) {
      const answer = async (of: Command) => {
        const said = { stdout: '', stderr: '' };
        const sink = (name: keyof typeof said) => ({ write: (text: string) => (said[name] += text) });
        const exit = await main([...words, ...more], { stdout: sink('stdout'), stderr: sink('stderr'), env: {} }, of);
        return { exit, ...said };
      };
      assert.deepEqual(await answer(program), await answer(tree), [...words, ...more].join(' '));
    }
  }
});
