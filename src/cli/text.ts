/** Text for a terminal: made harmless, measured, wrapped. */
export { CONTROLS, printable, printableLine } from '../abi/printable.ts';

/** East Asian Wide and Fullwidth blocks, and emoji (Unicode TR11). */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;
const ZERO = /\p{Mn}|\p{Me}|[\u200b-\u200d]/u;
const ASCII = /^[\x20-\x7e]*$/;

/** Columns that a printable text takes. */
export function displayWidth(text: string): number {
  if (ASCII.test(text)) return text.length;
  let width = 0;
  for (const character of text) width += ZERO.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
  return width;
}

/** At most `width` columns of a text, with an ellipsis where something is cut. */
export function truncate(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  return `${head(text, width - 1)}…`;
}

/** Breaks a text into lines of at most `width` columns, between words where it can; newlines stay. */
export function wrap(text: string, width: number): string[] {
  return text.split('\n').flatMap((line) => wrapLine(line, Math.max(1, width)));
}

function wrapLine(line: string, width: number): string[] {
  const lines: string[] = [];
  let current = '';
  for (let word of line.split(' ')) {
    if (current !== '' && displayWidth(current) + 1 + displayWidth(word) <= width) {
      current += ` ${word}`;
      continue;
    }
    if (current !== '') lines.push(current);
    while (displayWidth(word) > width) {
      const part = head(word, width) || [...word][0]!;
      lines.push(part);
      word = word.slice(part.length);
    }
    current = word;
  }
  return [...lines, current];
}

function head(text: string, width: number): string {
  let end = 0;
  let used = 0;
  for (const character of text) {
    used += displayWidth(character);
    if (used > width) break;
    end += character.length;
  }
  return text.slice(0, end);
}
