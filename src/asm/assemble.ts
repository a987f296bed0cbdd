/**
 * From instructions, labels and data to bytes that run at any address.
 *
 *     const again = label('again');
 *     const { bytes } = assemble(
 *       xor(eax, eax),
 *       again,
 *       add(rax, rdi),
 *       dec(rdi),
 *       jnz(again),
 *       ret(),
 *     );
 *
 * What a function returns as a list stands among the items as it is, so a macro is a function with labels of its own.
 */
import { type Encoded, encode, type Instruction, listing } from './form.ts';
import type { Bits } from './modrm.ts';
import type { Immediate, Label } from './operands.ts';

/** Bytes among the code. */
export interface Data {
  readonly file: 'data';
  readonly bytes: Uint8Array;
}

/** Fills up to the next multiple of `to` bytes from the start of the code. */
export interface Align {
  readonly file: 'align';
  readonly to: number;
}

/** Items that run in 32-bit protected mode. */
export interface Code32 {
  readonly file: 'code32';
  readonly items: readonly Item[];
}

export type Item = Instruction | Label | Data | Align | Code32 | readonly Item[];

export interface Assembled {
  readonly bytes: Uint8Array;
  /** Where a label stands, in bytes from the start. */
  offsetOf(label: Label): number;
}

/** Bytes, text in UTF-8 (with no NUL of its own) or both in turn: NASM's `db 'text', 0`. */
export function db(...values: readonly (number | string | Uint8Array)[]): Data {
  const parts = values.map((value) => (typeof value === 'number' ? little(1, [value]) : Buffer.from(value)));
  return data(Buffer.concat(parts));
}

export const dw = (...values: readonly Immediate[]) => data(little(2, values));
export const dd = (...values: readonly Immediate[]) => data(little(4, values));
export const dq = (...values: readonly Immediate[]) => data(little(8, values));

/** Zeros. @param size in bytes */
export const resb = (size: number) => data(new Uint8Array(size));

/** Alignment is relative to the start of the code, which itself must lie aligned. Running into the filling traps. */
export function align(to: number): Align {
  return { file: 'align', to };
}

export function code32(...items: readonly Item[]): Code32 {
  return { file: 'code32', items };
}

/**
 * Lays the items out one after the other. A jump to a plain label is short where that reaches.
 *
 * @throws RangeError where a jump does not reach, a label is missing or stands twice, or this mode has no such instruction
 */
export function assemble(...items: readonly Item[]): Assembled {
  const pieces: Piece[] = [];
  collect(items, 64, pieces);
  const offsets = layOut(pieces);
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.size, 0)).fill(INT3);
  for (const piece of pieces) {
    if (piece.bytes !== undefined) bytes.set(piece.bytes, piece.at);
    if (piece.fixup === undefined) continue;
    const value = distance(piece, offsets);
    if (!reaches(value, piece.fixup.size)) {
      throw new RangeError(`${piece.text}: ${value} bytes away, more than ${piece.fixup.size * 8} bits reach`);
    }
    for (let i = 0; i < piece.fixup.size; i++) bytes[piece.at + piece.fixup.at + i] = value >> (8 * i);
  }
  return { bytes, offsetOf: (label) => place(offsets, label) };
}

const INT3 = 0xcc;

/** An item with its place. */
interface Piece {
  at: number;
  size: number;
  bytes: ArrayLike<number> | undefined;
  fixup: Encoded['fixup'];
  /** What a short jump becomes that does not reach. */
  near: Encoded | undefined;
  readonly text: string;
  readonly label: Label | undefined;
  readonly align: number;
}

function collect(items: readonly Item[], bits: Bits, into: Piece[]): void {
  const blank = {
    at: 0,
    size: 0,
    bytes: undefined,
    fixup: undefined,
    near: undefined,
    text: '',
    label: undefined,
    align: 1,
  };
  for (const item of items) {
    if (!('file' in item)) collect(item, bits, into);
    else if (item.file === 'code32') collect(item.items, 32, into);
    else if (item.file === 'label') into.push({ ...blank, label: item });
    else if (item.file === 'align') into.push({ ...blank, align: item.to });
    else if (item.file === 'data') into.push({ ...blank, bytes: item.bytes, size: item.bytes.length });
    else {
      const { bytes, fixup } = encode(item, item.encoding, bits);
      const near = item.near && encode(item, item.near, bits);
      const text = listing(item.name, item.operands);
      into.push({ ...blank, bytes, fixup, near, text, size: bytes.length });
    }
  }
}

/** Starts with every jump short and lengthens those that do not reach until all do: none ever becomes short again. */
function layOut(pieces: readonly Piece[]): ReadonlyMap<Label, number> {
  for (;;) {
    const offsets = new Map<Label, number>();
    let at = 0;
    for (const piece of pieces) {
      piece.at = at;
      if (piece.align > 1) piece.size = -at & (piece.align - 1);
      if (piece.label !== undefined) {
        if (offsets.has(piece.label)) throw new RangeError(`label ${piece.label.name} stands twice`);
        offsets.set(piece.label, at);
      }
      at += piece.size;
    }
    let settled = true;
    for (const piece of pieces) {
      if (piece.near === undefined || reaches(distance(piece, offsets), piece.fixup!.size)) continue;
      piece.bytes = piece.near.bytes;
      piece.fixup = piece.near.fixup;
      piece.size = piece.near.bytes.length;
      piece.near = undefined;
      settled = false;
    }
    if (settled) return offsets;
  }
}

/** Distances count from the end of the instruction: Vol. 2, 2.2.1.6 and JMP. */
function distance(piece: Piece, offsets: ReadonlyMap<Label, number>): number {
  return place(offsets, piece.fixup!.label) + piece.fixup!.addend - (piece.at + piece.size);
}

function reaches(value: number, size: 1 | 4): boolean {
  return size === 1 ? value >= -128 && value < 128 : (value | 0) === value;
}

function place(offsets: ReadonlyMap<Label, number>, label: Label): number {
  const at = offsets.get(label);
  if (at === undefined) throw new RangeError(`label ${label.name} stands nowhere in this code`);
  return at;
}

function data(bytes: Uint8Array): Data {
  return { file: 'data', bytes };
}

function little(size: number, values: readonly Immediate[]): Uint8Array {
  const bytes = new Uint8Array(size * values.length);
  for (const [i, value] of values.entries()) {
    const wide = BigInt(value);
    if (BigInt.asUintN(8 * size, wide) !== wide && BigInt.asIntN(8 * size, wide) !== wide) {
      throw new RangeError(`${value} does not fit ${8 * size} bits`);
    }
    for (let j = 0; j < size; j++) bytes[i * size + j] = Number((wide >> BigInt(8 * j)) & 0xffn);
  }
  return bytes;
}
