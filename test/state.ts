/**
 * docs/state.md and the tests that prove it: each of its rows names tests, which must be there, and must have passed when all
 * integration tests have run.
 *
 *     R: tree, orphans, U: ring      tests of restore.test.ts whose title or program is `tree` or `orphans`, one of unharmed.test.ts
 *     freezer.test.ts                all tests of a file
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = new URL('..', import.meta.url).pathname;
const FOLDER = 'test/integration/process';
const FILES: Readonly<Record<string, string>> = {
  R: 'restore',
  U: 'unharmed',
  T: 'terminals',
  N: 'namespaces',
  S: 'sockets',
};
export const VERDICTS = ['kept', 'refused', 'neutral', 'neither', 'brought'] as const;

export interface Row {
  readonly what: string;
  readonly verdict: string;
  /** Each a file and a word of it; none of a row that no test proves. */
  readonly tests: readonly { readonly file: string; readonly word: string }[];
}

/** The rows of all tables. */
export function rows(text = readFileSync(join(root, 'docs/state.md'), 'utf8')): Row[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| what'))
    .map((line) => {
      const [what, verdict, , tests] = line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim());
      return { what: what!, verdict: verdict ?? '', tests: parse(tests ?? '') };
    });
}

function parse(cell: string): Row['tests'] {
  let file = '';
  return cell
    .replace(/\(.*?\)/g, '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map((part) => {
      if (/^[\w-]+\.test\.ts$/.test(part)) return { file: `${FOLDER}/${part}`, word: 'all' };
      const [, letter, word] = /^(?:([A-Z]): )?(.*)$/.exec(part)!;
      if (letter !== undefined) file = `${FOLDER}/${FILES[letter] ?? letter}.test.ts`;
      return { file, word: word! };
    });
}

/** A test as it stands in a file; where its title is made of parts, what is between them may be anything. */
interface Declared {
  readonly title: RegExp;
  readonly made: boolean;
  readonly body: string;
}

function declared(file: string): Declared[] {
  const text = readFileSync(join(root, file), 'utf8');
  return text
    .split(/^ *test\(\s*/m)
    .slice(1)
    .flatMap((body) => {
      const title = /^(['"`])(.*?)\1,/s.exec(body)?.[2];
      if (title === undefined) return [];
      const parts = title.split(/\$\{.*?\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
      return [{ title: new RegExp(`^${parts.join('.*')}$`), made: parts.length > 1, body }];
    });
}

/**
 * Why the table is not what the tests say.
 *
 * @param passed titles of tests that have passed, by file; without it only that there are such tests is looked at
 */
export function unproved(passed?: ReadonlyMap<string, ReadonlySet<string>>, table = rows()): string[] {
  return table.flatMap(({ what, tests }) =>
    tests.flatMap(({ file, word }) => {
      const ran = [...(passed?.get(file) ?? [])];
      const proves = declared(file).some(({ title, made, body }) => {
        const named = word === 'all' || body.includes(`'${word}'`) || (!made && body.slice(0, 200).includes(word));
        if (passed === undefined) return named || (made && readFileSync(join(root, file), 'utf8').includes(word));
        return ran.some((each) => title.test(each) && (named || each.includes(word)));
      });
      return proves
        ? []
        : [`${what}: no test '${word}' of ${file} ${passed === undefined ? 'is there' : 'has passed'}`];
    }),
  );
}

/** How many kinds of state there are of each verdict, in a line for the document. */
export function summary(table = rows()): string {
  const counts = VERDICTS.map((verdict) => {
    const all = table.filter((row) => row.verdict === verdict);
    const without = all.filter(({ tests }) => tests.length === 0).length;
    return `${all.length} ${verdict}${without === 0 ? '' : ` (${without} without a test of their own)`}`;
  });
  return `In numbers: ${counts.join(', ')}.`;
}
