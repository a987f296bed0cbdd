/**
 * Names that the kernel keeps - paths, command names, mount points - are bytes, mostly UTF-8 but nothing demands it. As
 * a string each byte that is not part of valid UTF-8 becomes one code unit, U+DC00 plus the byte, which no valid
 * text contains; back it becomes that byte again. Python calls this surrogateescape (PEP 383). So every name has exactly one
 * string, and names compare and pass through JSON unharmed. Node's own fs functions cannot take a name with such bytes in it;
 * src/sys/files.ts can.
 */
import { isUtf8 } from 'node:buffer';

/** Bytes, without a terminating NUL, as text. */
export function textOf(bytes: Uint8Array): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isUtf8(bytes)) return buffer.toString('utf8');
  let text = '';
  for (let at = 0; at < buffer.length; ) {
    const length = sequenceLength(buffer, at);
    text += length > 0 ? buffer.toString('utf8', at, at + length) : String.fromCharCode(0xdc00 + buffer[at]!);
    at += length > 0 ? length : 1;
  }
  return text;
}

/** The bytes of text from textOf(), without a terminating NUL. */
export function bytesOf(text: string): Uint8Array {
  if (text.isWellFormed()) return Buffer.from(text, 'utf8');
  const bytes: number[] = [];
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (code >= 0xdc80 && code <= 0xdcff) bytes.push(code - 0xdc00);
    else bytes.push(...Buffer.from(character, 'utf8'));
  }
  return Uint8Array.from(bytes);
}

/** Length of the valid UTF-8 sequence at `at`, or 0. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const lead = bytes[at]!;
  const length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  return at + length <= bytes.length && isUtf8(bytes.subarray(at, at + length)) ? length : 0;
}
