/** What the documents tell people to type is what the command line takes. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Command } from '../../../src/cli/command.ts';
import { globalFlags } from '../../../src/cli/globals.ts';
import { tree } from '../../../src/cli/tree.ts';

const project = new URL('../../..', import.meta.url);
const documents = ['README.md', 'CONTRIBUTING.md', ...markdownIn('docs'), ...markdownIn('docs/adr')];

function markdownIn(folder: string): string[] {
  return (
    readdirSync(new URL(folder, project))
      // That is made of the commands.
      .filter((name) => name.endsWith('.md') && name !== 'cli.md')
      .map((name) => `${folder}/${name}`)
  );
}

/** Words behind each `tideover` that begins a line of a block, or a piece of code in a sentence. */
function commandsIn(text: string): string[][] {
  const blocks = [...text.matchAll(/^```\w*\n([\s\S]*?)^```/gm)].flatMap(([, block]) => block!.split('\n'));
  const pieces = [...text.replaceAll(/^```[\s\S]*?^```/gm, '').matchAll(/`([^`]+)`/g)].map(([, piece]) => piece!);
  return [...blocks, ...pieces].flatMap((line) => {
    const [, words] = /^(?:sudo )?tideover (.*)/s.exec(line.trim()) ?? [];
    // Up to a comment, another command or a placeholder.
    return words === undefined
      ? []
      : [
          words
            .split(/\s#|\\?[|;&<)]/)[0]!
            .trim()
            .split(/\s+/),
        ];
  });
}

function flagsOf(command: Command): Set<string> {
  const flags = [...Object.values(globalFlags), ...Object.values(command.flags ?? {})];
  const short = flags.flatMap((flag) => ('short' in flag && flag.short ? [`-${flag.short}`] : []));
  return new Set([
    '--help',
    '-h',
    '--version',
    ...flags.flatMap(({ long }) => [`--${long}`, `--no-${long}`]),
    ...short,
  ]);
}

function wrongIn(words: readonly string[]): string | undefined {
  let command = tree;
  let i = 0;
  for (; i < words.length; i++) {
    const next = command.commands?.find(({ name, aliases = [] }) => [name, ...aliases].includes(words[i]!));
    if (next === undefined) break;
    command = next;
  }
  if (i === 0 && !words[0]!.startsWith('-')) return 'no such command';
  const known = flagsOf(command);
  for (const word of words.slice(i)) {
    if (word === '--') return undefined;
    // A letter may have its value behind it; a lone dash is a file.
    const flag = word.startsWith('--') ? word.split('=')[0]! : word.slice(0, 2);
    if (/^-./.test(word) && !known.has(flag)) return `no flag ${flag}`;
  }
  return undefined;
}

for (const document of documents) {
  test(`the commands in ${document} exist, with their flags`, () => {
    for (const words of commandsIn(readFileSync(new URL(document, project), 'utf8'))) {
      assert.equal(wrongIn(words), undefined, `tideover ${words.join(' ')}`);
    }
  });
}

test('a command or flag that does not exist is seen', () => {
  const text =
    'Run `tideover chekpoint -t 1`, or\n```\nsudo tideover restore --nothing   # as before\ntideover restore -D x\n```\n';
  assert.deepEqual(commandsIn(text).map(wrongIn), ['no flag --nothing', undefined, 'no such command']);
});
