/**
 * Instruction forms, in the notation of the manual's opcode maps, and how operands are matched and encoded:
 * Intel SDM Vol. 2, chapter 2 (instruction format), 3.1.1.1 (opcode column) and appendix A.2 (operand codes).
 *
 *     export const mov = instruction('mov', ['88', 'Eb', 'Gb'], ['89', 'Ev', 'Gv'], ..., ['0F 22', 'Cn', 'Rn']);
 *
 * The opcode column: prefixes 66, F2, F3, then REX.W, opcode bytes in hex, and /0 to /7 for an opcode extension in ModRM's reg field.
 * An operand is a letter for where it is encoded and one or two for its size. The letters (A.2.1):
 *
 *     C  control register in reg     J  distance of a jump        S  segment register in reg
 *     E  register or memory in r/m   M  memory in r/m             V  xmm register in reg
 *     G  register in reg             R  register in r/m           W  xmm register or memory in r/m
 *     I  immediate                                                Z  register in the opcode byte's low three bits
 *
 * The sizes (A.2.2): b, w, d, q, dq for 8 to 128 bits; v for 16, 32 or 64 by operand size (66 prefix or REX.W), y the same
 * without 16, z an immediate of 16 or 32 bits for it; and two of our own: bs, a byte sign-extended to the operand size; n, the
 * width of the mode without a prefix (d64 and f64 in the manual). AL, AX, CL, DX and 1 are themselves.
 */
import { type Bits, modRm, REX } from './modrm.ts';
import {
  type ControlRegister,
  type Gpr,
  type Immediate,
  type Label,
  type Memory,
  type Operand,
  type SegmentRegister,
  show,
  type Target,
  type Xmm,
} from './operands.ts';

/** What each operand code accepts, where the operand size is V. Memory of width 0 takes the size from elsewhere. */
interface OperandTypes<V extends 16 | 32 | 64> {
  Eb: Gpr<8> | Memory<8 | 0>;
  Ew: Gpr<16> | Memory<16 | 0>;
  Ev: Gpr<V> | Memory<V | 0>;
  En: Gpr<64> | Gpr<32> | Memory<64 | 32 | 0>;
  Gb: Gpr<8>;
  Gv: Gpr<V>;
  Gy: Gpr<Exclude<V, 16>>;
  Zb: Gpr<8>;
  Zd: Gpr<32>;
  Zq: Gpr<64>;
  Zy: Gpr<Exclude<V, 16>>;
  Zn: Gpr<64> | Gpr<32>;
  Rd: Gpr<32>;
  Rn: Gpr<64> | Gpr<32>;
  Cn: ControlRegister;
  Sw: SegmentRegister;
  M: Memory;
  Vdq: Xmm;
  Wdq: Xmm | Memory<128 | 0>;
  Ib: Immediate;
  Ibs: Immediate;
  Id: Immediate;
  Iq: Immediate;
  Iz: Immediate;
  Jb: Label | Target;
  Jz: Label | Target;
  AL: Gpr<8>;
  CL: Gpr<8>;
  AX: Gpr<16>;
  DX: Gpr<16>;
  1: 1;
}

export type Code = `${keyof OperandTypes<16>}`;
export type Form = readonly [opcode: string, ...operands: Code[]];

type Typed<Codes extends readonly unknown[], V extends 16 | 32 | 64> = {
  [I in keyof Codes]: OperandTypes<V>[Codes[I] extends '1' ? 1 : Codes[I] & keyof OperandTypes<V>];
};
type Tail<F extends Form> = F extends readonly [string, ...infer Codes] ? Codes : never;
/** One parameter list per form and operand size, so that the compiler checks operands as the encoder does. */
type ParametersOf<F extends Form> = F extends Form
  ? Typed<Tail<F>, 16> | Typed<Tail<F>, 32> | Typed<Tail<F>, 64>
  : never;

/** One form at one operand size. */
export interface Encoding {
  readonly form: Form;
  readonly prefixes: readonly number[];
  readonly rexW: boolean;
  readonly opcode: readonly number[];
  /** Opcode extension in ModRM's reg field. */
  readonly extension: number | undefined;
  readonly slots: readonly Slot[];
  /** The only mode that has it, where it is one. */
  readonly bits: Bits | undefined;
}

interface Slot {
  readonly code: Code;
  /** Where it is encoded: the code's letter. */
  readonly letter: string;
  /** Of the operand, in bits. */
  readonly width: number;
  /** Of the field for an immediate or a distance, in bits. */
  readonly field: number;
}

/** An instruction with its operands. */
export interface Instruction {
  readonly file: 'instruction';
  readonly name: string;
  readonly operands: readonly Operand[];
  readonly encoding: Encoding;
  /** The longer form of a jump whose length the assembler may choose. */
  readonly near: Encoding | undefined;
}

export interface Mnemonic<F extends Form> {
  /** @throws TypeError where no form takes these operands, or where their size is not told */
  (...operands: ParametersOf<F>): Instruction;
  readonly forms: readonly Form[];
}

/** Declares an instruction by its forms. Where several take the operands, the first one is used. */
export function instruction<const F extends readonly Form[]>(name: string, ...forms: F): Mnemonic<F[number]> {
  let encodings: Encoding[] | undefined;
  const make = (...operands: readonly Operand[]): Instruction => {
    encodings ??= forms.flatMap(expand);
    const fitting = encodings.filter((encoding) => takes(encoding, operands));
    const [encoding] = fitting;
    if (encoding === undefined) {
      const known = forms.map(([, ...codes]) => codes.join(',') || 'none').join(' | ');
      throw new TypeError(`${listing(name, operands)}: no encoding takes these operands; it has: ${known}`);
    }
    for (const [i, operand] of operands.entries()) {
      const sizes = new Set(fitting.map(({ slots }) => slots[i]!.width));
      if (isMemory(operand) && operand.width === 0 && sizes.size > 1 && encoding.bits === undefined) {
        throw new TypeError(`${listing(name, operands)}: how large? byte(), word(), dword() or qword() tell`);
      }
    }
    const near = encoding.slots[0]?.code === 'Jb' ? fitting[1] : undefined;
    return { file: 'instruction', name, operands, encoding, near };
  };
  return Object.assign(make as (...operands: ParametersOf<F[number]>) => Instruction, { forms });
}

/** `mov rax, qword [rbx]` */
export function listing(name: string, operands: readonly Operand[]): string {
  return [name, operands.map(show).join(', ')].join(' ').trimEnd();
}

// --- from the notation to encodings --------------------------------------------------------------------------------

const widths: Record<string, number> = { b: 8, w: 16, d: 32, q: 64, dq: 128, bs: 8, '': 0 };
const themselves: Record<string, { readonly name: string; readonly width: number }> = {
  AL: { name: 'al', width: 8 },
  CL: { name: 'cl', width: 8 },
  AX: { name: 'ax', width: 16 },
  DX: { name: 'dx', width: 16 },
};

/** A form at each of its operand sizes. */
function expand(form: Form): Encoding[] {
  const [opcode, ...codes] = form;
  const sizes = new Set(codes.map((code) => (code in themselves ? '' : code.slice(1))));
  if (sizes.has('n')) return [64, 32].map((width) => encodingOf(form, opcode, codes, width, width as Bits));
  if (sizes.has('v')) return [32, 64, 16].map((width) => encodingOf(form, opcode, codes, width, undefined));
  if (sizes.has('y')) return [32, 64].map((width) => encodingOf(form, opcode, codes, width, undefined));
  return [encodingOf(form, opcode, codes, 0, undefined)];
}

function encodingOf(
  form: Form,
  text: string,
  codes: readonly Code[],
  operand: number,
  bits: Bits | undefined,
): Encoding {
  const tokens = text.split(' ');
  const prefixes: number[] = bits === undefined && operand === 16 ? [0x66] : [];
  while (tokens.length > 1 && /^(66|F2|F3)$/.test(tokens[0]!)) prefixes.push(Number.parseInt(tokens.shift()!, 16));
  const rexW = tokens[0] === 'REX.W' || (bits === undefined && operand === 64);
  if (tokens[0] === 'REX.W') tokens.shift();
  const digit = tokens.at(-1)!.startsWith('/') ? Number(tokens.pop()!.slice(1)) : undefined;
  const opcode = tokens.map((token) => Number.parseInt(token, 16));
  const slots = codes.map((code) => slotOf(code, operand));
  return { form, prefixes, rexW, opcode, extension: digit, slots, bits };
}

function slotOf(code: Code, operand: number): Slot {
  if (code === '1') return { code, letter: code, width: 0, field: 0 };
  if (code in themselves) return { code, letter: code, width: themselves[code]!.width, field: 0 };
  const [letter, size] = [code[0]!, code.slice(1)];
  const own = widths[size];
  if (letter === 'J') return { code, letter, width: 0, field: size === 'b' ? 8 : 32 };
  if (letter !== 'I') return { code, letter, width: own ?? operand, field: 0 };
  const field = own ?? Math.min(operand, 32);
  // A byte alone is sign-extended to the width of what it is pushed as.
  return { code, letter, width: size === 'bs' ? operand || 64 : size === 'z' ? operand : field, field };
}

// --- matching ------------------------------------------------------------------------------------------------------

function takes(encoding: Encoding, operands: readonly Operand[]): boolean {
  return encoding.slots.length === operands.length && encoding.slots.every((slot, i) => accepts(slot, operands[i]!));
}

function accepts(slot: Slot, operand: Operand): boolean {
  if (slot.letter === '1') return operand === 1;
  if (slot.letter === 'I') return isImmediate(operand) && fits(operand, slot);
  if (isImmediate(operand)) return false;
  if (operand.file === 'label') return slot.letter === 'J';
  if (operand.file === 'target') return slot.letter === 'J' && (slot.field === 8) === (operand.distance === 'short');
  if (operand.file === 'memory') {
    if (slot.letter === 'M') return true;
    return 'EW'.includes(slot.letter) && (operand.width === 0 || operand.width === slot.width);
  }
  switch (slot.letter) {
    case 'E':
    case 'G':
    case 'R':
    case 'Z':
      return operand.file === 'gpr' && operand.width === slot.width;
    case 'V':
    case 'W':
      return operand.file === 'xmm';
    case 'S':
      return operand.file === 'segment';
    case 'C':
      return operand.file === 'control';
    default:
      return operand.name === themselves[slot.letter]?.name;
  }
}

function isImmediate(operand: Operand): operand is Immediate {
  return typeof operand === 'number' || typeof operand === 'bigint';
}

function isMemory(operand: Operand): operand is Memory {
  return !isImmediate(operand) && operand.file === 'memory';
}

/** Signed or unsigned, a number of the operand's width must come out of the field sign-extended. */
function fits(value: Immediate, slot: Slot): boolean {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) return false;
  const wide = BigInt(value);
  if (BigInt.asUintN(slot.width, wide) !== wide && BigInt.asIntN(slot.width, wide) !== wide) return false;
  const signed = BigInt.asIntN(slot.width, wide);
  return BigInt.asIntN(slot.field, signed) === signed;
}

// --- encoding ------------------------------------------------------------------------------------------------------

/** Bytes of one instruction, and the field in them that waits for the place of a label. */
export interface Encoded {
  readonly bytes: number[];
  /** Receives label + addend - end of the instruction. */
  readonly fixup?: { readonly at: number; readonly size: 1 | 4; readonly label: Label; readonly addend: number };
}

/** Encodes with one of the instruction's forms. @throws RangeError where this mode or the address has no encoding */
export function encode({ name, operands }: Instruction, encoding: Encoding, bits: Bits): Encoded {
  try {
    return encodeOperands(operands, encoding, bits);
  } catch (error) {
    if (error instanceof RangeError) throw new RangeError(`${listing(name, operands)}: ${error.message}`);
    throw error;
  }
}

function encodeOperands(operands: readonly Operand[], encoding: Encoding, bits: Bits): Encoded {
  if (encoding.bits !== undefined && encoding.bits !== bits) {
    throw new RangeError(`${bits}-bit code does not have it with ${encoding.bits}-bit operands`);
  }
  let reg = encoding.extension;
  let rm: Gpr | Xmm | Memory | undefined;
  let rex = encoding.rexW ? REX.W : 0;
  const opcode = [...encoding.opcode];
  const tail: number[] = [];
  let jump: { label: Label; size: 1 | 4 } | undefined;

  for (const [i, { letter, field }] of encoding.slots.entries()) {
    const operand = operands[i]!;
    if (isImmediate(operand)) {
      if (letter === 'I') tail.push(...littleEndian(operand, field / 8));
      continue;
    }
    if (operand.file === 'label' || operand.file === 'target') {
      jump = { label: operand.file === 'label' ? operand : operand.label, size: field === 8 ? 1 : 4 };
      tail.push(...littleEndian(0, jump.size));
      continue;
    }
    // spl, bpl, sil and dil are ah, ch, dh and bh without a REX prefix: Vol. 2, 2.2.1.2
    if (operand.file === 'gpr' && operand.width === 8 && operand.number >= 4) rex |= REX.prefix;
    if ('EMRW'.includes(letter)) rm = operand as Gpr | Xmm | Memory;
    else if ('GVSC'.includes(letter)) reg = (operand as Gpr).number;
    else if (letter === 'Z') {
      const { number } = operand as Gpr;
      opcode.push(opcode.pop()! | (number & 7));
      if (number >= 8) rex |= REX.B;
    }
  }

  const modrm = rm && modRm(reg!, rm, bits);
  rex |= modrm?.rex ?? 0;
  if (rex !== 0 && bits === 32) throw new RangeError('32-bit code has no REX prefix for it');
  const bytes = [
    ...(modrm?.addressSize ? [0x67] : []),
    ...encoding.prefixes,
    ...(rex !== 0 ? [REX.prefix | rex] : []),
    ...opcode,
    ...(modrm?.bytes ?? []),
    ...tail,
  ];
  if (jump) return { bytes, fixup: { at: bytes.length - jump.size, size: jump.size, label: jump.label, addend: 0 } };
  if (modrm?.rip) return { bytes, fixup: { at: bytes.length - tail.length - 4, size: 4, ...modrm.rip } };
  return { bytes };
}

function littleEndian(value: Immediate, size: number): number[] {
  const wide = BigInt(value);
  return Array.from({ length: size }, (_, i) => Number((wide >> BigInt(8 * i)) & 0xffn));
}
