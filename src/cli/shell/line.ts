/** A line of the shell: words, and where what is printed goes. */
import { UsageError } from '../exit.ts';

export interface Line {
  readonly words: readonly string[];
  /** `| COMMAND`, which sh(1) understands, or `> FILE` and `>> FILE`. */
  readonly to?:
    | { readonly kind: 'pipe'; readonly command: string }
    | { readonly kind: 'file'; readonly path: string; readonly append: boolean };
}

/**
 * Words are parted by spaces; what stands in quotes is one, as it is. A `#` at the start of the line makes it a remark.
 *
 * @throws UsageError for a quote without an end, and where nothing stands behind a `|` or `>`
 */
export function parseLine(text: string): Line {
  const words: string[] = [];
  let word: string | undefined;
  for (let at = 0; at < text.length; at++) {
    const character = text[at]!;
    if (character === "'" || character === '"') {
      const end = text.indexOf(character, at + 1);
      if (end < 0) throw new UsageError(`a ${character} has no end`);
      word = (word ?? '') + text.slice(at + 1, end);
      at = end;
    } else if (character === '|' || character === '>' || /\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
      if (character === '|') return { words, to: pipe(text.slice(at + 1)) };
      if (character === '>') return { words, to: file(text.slice(at + 1)) };
    } else if (character === '#' && word === undefined && words.length === 0) return { words };
    else word = (word ?? '') + character;
  }
  return { words: word === undefined ? words : [...words, word] };
}

function pipe(text: string): NonNullable<Line['to']> {
  const command = text.trim();
  if (command === '') throw new UsageError("no command stands behind the '|'");
  return { kind: 'pipe', command };
}

function file(text: string): NonNullable<Line['to']> {
  const append = text.startsWith('>');
  const { words, to } = parseLine(append ? text.slice(1) : text);
  const [path] = words;
  if (path === undefined || words.length > 1 || to !== undefined) throw new UsageError("one file stands behind a '>'");
  return { kind: 'file', path, append };
}
