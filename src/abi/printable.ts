/** Text of others - names of processes and files, logs of kernels - without what could steer a terminal or turn its reader around. */

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
  // Most have none, and a sequence begins with one.
  if (text.search(CONTROLS) < 0) return text;
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
