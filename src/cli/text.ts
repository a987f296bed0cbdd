/** Text for a terminal: made harmless, measured, wrapped. */

/** Sequences that start with ESC or a C1 control: CSI, OSC and other strings up to their end, two-byte ones (ECMA-48). */
const SEQUENCES =
  /(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]/g;

/** C0 but tab and newline, DEL, C1; and what turns the direction of the text around (Unicode TR9, TR36). */
export const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/**
 * Takes out of a text all that could steer a terminal: names of processes and files, logs of kernels and messages of
 * others go through here before they are shown. Escape sequences vanish, other controls become visible as \xNN.
 */
export function printable(text: string): string {
  return text.replace(SEQUENCES, '').replace(CONTROLS, (control) => {
    const code = control.charCodeAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16)}`;
  });
}

/** The same, on one line. */
export function printableLine(text: string): string {
  return printable(text)
    .replace(/\s*\n\s*/g, ' ')
    .replaceAll('\t', ' ');
}

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
