/**
 * Operands of x86-64 instructions: registers, memory, labels, immediates. Intel SDM Vol. 1, 3.4 (registers) and
 * 3.7 (operand addressing).
 *
 *     mov(rdi, qword({ base: rbx, disp: 8 }))
 *     mov(al, byte({ base: rdx, index: rax, scale: 4 }))
 *     lea(rax, mem({ rip: table }))
 *     and(eax, 15)
 */

export type Width = 8 | 16 | 32 | 64;

/** A general-purpose register of `width` bits. `number` is the four bits of its encoding. */
export interface Gpr<W extends Width = Width> {
  readonly file: 'gpr';
  readonly width: W;
  readonly number: number;
  readonly name: string;
}

export interface Xmm {
  readonly file: 'xmm';
  readonly width: 128;
  readonly number: number;
  readonly name: string;
}

export interface SegmentRegister {
  readonly file: 'segment';
  readonly width: 16;
  readonly number: number;
  readonly name: string;
}

export interface ControlRegister {
  readonly file: 'control';
  readonly width: 64;
  readonly number: number;
  readonly name: string;
}

export type Register = Gpr | Xmm | SegmentRegister | ControlRegister;

/** A place in the code. Standing among the instructions it is put there, standing as an operand it refers to there. */
export interface Label {
  readonly file: 'label';
  readonly name: string;
}

/** A label with the length of the jump to it prescribed. */
export interface Target {
  readonly file: 'target';
  readonly label: Label;
  readonly distance: 'short' | 'near';
}

/** An effective address: base + index * scale + disp, or a label relative to the instruction pointer. */
export type Address =
  | {
      readonly base?: Gpr<64> | Gpr<32>;
      readonly index?: Gpr<64> | Gpr<32>;
      readonly scale?: 1 | 2 | 4 | 8;
      readonly disp?: number;
    }
  | { readonly rip: Label; readonly disp?: number };

/** Memory at an address; `width` in bits, 0 where the instruction or its other operand tells. */
export interface Memory<W extends number = number> {
  readonly file: 'memory';
  readonly width: W;
  readonly address: Address;
}

/** Numbers as far as they are exact, bigints for 64-bit values beyond. */
export type Immediate = number | bigint;

export type Operand = Register | Memory | Label | Target | Immediate;

export function label(name: string): Label {
  return { file: 'label', name };
}

/** A jump of two bytes, to at most 127 bytes away. */
export function short(to: Label): Target {
  return { file: 'target', label: to, distance: 'short' };
}

/** A jump with a displacement of 32 bits, however near. */
export function near(to: Label): Target {
  return { file: 'target', label: to, distance: 'near' };
}

export const mem = (address: Address) => memory(0, address);
export const byte = (address: Address) => memory(8, address);
export const word = (address: Address) => memory(16, address);
export const dword = (address: Address) => memory(32, address);
export const qword = (address: Address) => memory(64, address);
export const xmmword = (address: Address) => memory(128, address);

function memory<W extends number>(width: W, address: Address): Memory<W> {
  return { file: 'memory', width, address };
}

function gpr<W extends Width>(width: W, number: number, name: string): Gpr<W> {
  return { file: 'gpr', width, number, name };
}

function xmm(number: number): Xmm {
  return { file: 'xmm', width: 128, number, name: `xmm${number}` };
}

function segment(number: number, name: string): SegmentRegister {
  return { file: 'segment', width: 16, number, name };
}

function control(number: number): ControlRegister {
  return { file: 'control', width: 64, number, name: `cr${number}` };
}

// Vol. 2, table 2-2 and table 3-1. The high byte registers ah, ch, dh and bh are left out: they exclude a REX prefix.

export const [rax, eax, ax, al] = [gpr(64, 0, 'rax'), gpr(32, 0, 'eax'), gpr(16, 0, 'ax'), gpr(8, 0, 'al')];
export const [rcx, ecx, cx, cl] = [gpr(64, 1, 'rcx'), gpr(32, 1, 'ecx'), gpr(16, 1, 'cx'), gpr(8, 1, 'cl')];
export const [rdx, edx, dx, dl] = [gpr(64, 2, 'rdx'), gpr(32, 2, 'edx'), gpr(16, 2, 'dx'), gpr(8, 2, 'dl')];
export const [rbx, ebx, bx, bl] = [gpr(64, 3, 'rbx'), gpr(32, 3, 'ebx'), gpr(16, 3, 'bx'), gpr(8, 3, 'bl')];
export const [rsp, esp, sp, spl] = [gpr(64, 4, 'rsp'), gpr(32, 4, 'esp'), gpr(16, 4, 'sp'), gpr(8, 4, 'spl')];
export const [rbp, ebp, bp, bpl] = [gpr(64, 5, 'rbp'), gpr(32, 5, 'ebp'), gpr(16, 5, 'bp'), gpr(8, 5, 'bpl')];
export const [rsi, esi, si, sil] = [gpr(64, 6, 'rsi'), gpr(32, 6, 'esi'), gpr(16, 6, 'si'), gpr(8, 6, 'sil')];
export const [rdi, edi, di, dil] = [gpr(64, 7, 'rdi'), gpr(32, 7, 'edi'), gpr(16, 7, 'di'), gpr(8, 7, 'dil')];
export const [r8, r8d, r8w, r8b] = [gpr(64, 8, 'r8'), gpr(32, 8, 'r8d'), gpr(16, 8, 'r8w'), gpr(8, 8, 'r8b')];
export const [r9, r9d, r9w, r9b] = [gpr(64, 9, 'r9'), gpr(32, 9, 'r9d'), gpr(16, 9, 'r9w'), gpr(8, 9, 'r9b')];
export const [r10, r10d, r10w, r10b] = [
  gpr(64, 10, 'r10'),
  gpr(32, 10, 'r10d'),
  gpr(16, 10, 'r10w'),
  gpr(8, 10, 'r10b'),
];
export const [r11, r11d, r11w, r11b] = [
  gpr(64, 11, 'r11'),
  gpr(32, 11, 'r11d'),
  gpr(16, 11, 'r11w'),
  gpr(8, 11, 'r11b'),
];
export const [r12, r12d, r12w, r12b] = [
  gpr(64, 12, 'r12'),
  gpr(32, 12, 'r12d'),
  gpr(16, 12, 'r12w'),
  gpr(8, 12, 'r12b'),
];
export const [r13, r13d, r13w, r13b] = [
  gpr(64, 13, 'r13'),
  gpr(32, 13, 'r13d'),
  gpr(16, 13, 'r13w'),
  gpr(8, 13, 'r13b'),
];
export const [r14, r14d, r14w, r14b] = [
  gpr(64, 14, 'r14'),
  gpr(32, 14, 'r14d'),
  gpr(16, 14, 'r14w'),
  gpr(8, 14, 'r14b'),
];
export const [r15, r15d, r15w, r15b] = [
  gpr(64, 15, 'r15'),
  gpr(32, 15, 'r15d'),
  gpr(16, 15, 'r15w'),
  gpr(8, 15, 'r15b'),
];

export const [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7] = [
  xmm(0),
  xmm(1),
  xmm(2),
  xmm(3),
  xmm(4),
  xmm(5),
  xmm(6),
  xmm(7),
];
export const [xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15] = [
  xmm(8),
  xmm(9),
  xmm(10),
  xmm(11),
  xmm(12),
  xmm(13),
  xmm(14),
  xmm(15),
];

export const [es, ss, ds, fs, gs] = [
  segment(0, 'es'),
  segment(2, 'ss'),
  segment(3, 'ds'),
  segment(4, 'fs'),
  segment(5, 'gs'),
];
export const [cr0, cr3, cr4] = [control(0), control(3), control(4)];

const sizes: Record<number, string> = { 0: '', 8: 'byte ', 16: 'word ', 32: 'dword ', 64: 'qword ', 128: 'xmmword ' };

/** An operand as an assembler listing shows it, for error messages. */
export function show(operand: Operand): string {
  if (typeof operand === 'number' || typeof operand === 'bigint') return hex(operand);
  if (operand.file === 'label') return operand.name;
  if (operand.file === 'target') return `${operand.distance} ${operand.label.name}`;
  if (operand.file !== 'memory') return operand.name;
  const { address } = operand;
  const terms: string[] = [];
  if ('rip' in address) terms.push('rip', address.rip.name);
  else {
    if (address.base) terms.push(address.base.name);
    if (address.index) terms.push(`${address.index.name}*${address.scale ?? 1}`);
  }
  if (address.disp !== undefined || terms.length === 0) terms.push(hex(address.disp ?? 0));
  return `${sizes[operand.width]}[${terms.join('+')}]`;
}

function hex(value: Immediate): string {
  return value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}
