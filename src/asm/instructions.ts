/**
 * The instructions that tideover's machine code is written with, by opcode map (Intel SDM Vol. 2, tables; each
 * instruction's own page is in chapters 3 to 5). form.ts explains the notation.
 */
import { instruction } from './form.ts';

// --- one-byte opcodes, table A-2 -----------------------------------------------------------------------------------

export const add = arithmetic('add', 0);
export const or = arithmetic('or', 1);
export const and = arithmetic('and', 4);
export const sub = arithmetic('sub', 5);
export const xor = arithmetic('xor', 6);
export const cmp = arithmetic('cmp', 7);

/** Group 1, table A-6: the number is a column of the map's first rows and the opcode extension. */
function arithmetic(name: string, number: number) {
  const opcode = (column: number) => (number * 8 + column).toString(16).padStart(2, '0');
  return instruction(
    name,
    [opcode(0), 'Eb', 'Gb'],
    [opcode(1), 'Ev', 'Gv'],
    [opcode(2), 'Gb', 'Eb'],
    [opcode(3), 'Gv', 'Ev'],
    [`80 /${number}`, 'Eb', 'Ib'],
    [`83 /${number}`, 'Ev', 'Ibs'],
    [`81 /${number}`, 'Ev', 'Iz'],
  );
}

export const test = instruction(
  'test',
  ['84', 'Eb', 'Gb'],
  ['85', 'Ev', 'Gv'],
  ['F6 /0', 'Eb', 'Ib'],
  ['F7 /0', 'Ev', 'Iz'],
);

export const mov = instruction(
  'mov',
  ['88', 'Eb', 'Gb'],
  ['89', 'Ev', 'Gv'],
  ['8A', 'Gb', 'Eb'],
  ['8B', 'Gv', 'Ev'],
  ['8E', 'Sw', 'Rd'],
  ['B0', 'Zb', 'Ib'],
  ['B8', 'Zd', 'Id'],
  ['C6 /0', 'Eb', 'Ib'],
  ['C7 /0', 'Ev', 'Iz'],
  ['REX.W B8', 'Zq', 'Iq'],
  ['0F 20', 'Rn', 'Cn'],
  ['0F 22', 'Cn', 'Rn'],
);

export const lea = instruction('lea', ['8D', 'Gy', 'M']);
export const push = instruction('push', ['50', 'Zn'], ['6A', 'Ibs']);
export const pop = instruction('pop', ['58', 'Zn']);

export const inc = instruction('inc', ['FE /0', 'Eb'], ['FF /0', 'Ev']);
export const dec = instruction('dec', ['FE /1', 'Eb'], ['FF /1', 'Ev']);

export const rol = shift('rol', 0);
export const ror = shift('ror', 1);
export const shl = shift('shl', 4);
export const shr = shift('shr', 5);

/** Group 2, table A-6. */
function shift(name: string, number: number) {
  return instruction(
    name,
    [`D0 /${number}`, 'Eb', '1'],
    [`D1 /${number}`, 'Ev', '1'],
    [`C0 /${number}`, 'Eb', 'Ib'],
    [`C1 /${number}`, 'Ev', 'Ib'],
    [`D2 /${number}`, 'Eb', 'CL'],
    [`D3 /${number}`, 'Ev', 'CL'],
  );
}

export const jmp = instruction('jmp', ['EB', 'Jb'], ['E9', 'Jz'], ['FF /4', 'En']);
export const call = instruction('call', ['E8', 'Jz'], ['FF /2', 'En']);
export const ret = instruction('ret', ['C3']);
/** Far return with 64-bit operands: pops rip, then cs. */
export const retfq = instruction('retfq', ['REX.W CB']);
/** Far jump through a 32-bit offset and a selector in memory: the way from 64-bit code into a 32-bit segment. */
export const jmpFar = instruction('jmp far', ['FF /5', 'M']);
/** Counts rcx (32-bit code: ecx) down and jumps while it is not zero. */
export const loop = instruction('loop', ['E2', 'Jb']);
/** Breakpoint trap, one byte. */
export const int3 = instruction('int3', ['CC']);

export const je = conditional('je', 0x4);
export const jne = conditional('jne', 0x5);
export const jz = conditional('jz', 0x4);
export const jnz = conditional('jnz', 0x5);
export const jb = conditional('jb', 0x2);
export const jae = conditional('jae', 0x3);
export const jbe = conditional('jbe', 0x6);
export const ja = conditional('ja', 0x7);
export const js = conditional('js', 0x8);
export const jns = conditional('jns', 0x9);
export const jl = conditional('jl', 0xc);
export const jge = conditional('jge', 0xd);
export const jle = conditional('jle', 0xe);
export const jg = conditional('jg', 0xf);

/** Rows 7 of table A-2 and 8 of table A-3; condition codes as in Vol. 1, appendix B. */
function conditional(name: string, condition: number) {
  const digit = condition.toString(16);
  return instruction(name, [`7${digit}`, 'Jb'], [`0F 8${digit}`, 'Jz']);
}

/** From [rsi] to [rdi], to al, from al: each moves its pointers on by the operand's size. */
export const movsb = instruction('movsb', ['A4']);
export const movsq = instruction('movsq', ['REX.W A5']);
export const lodsb = instruction('lodsb', ['AC']);
export const stosb = instruction('stosb', ['AA']);

/** Repeats rcx times. */
export const rep = {
  movsb: instruction('rep movsb', ['F3 A4']),
  movsq: instruction('rep movsq', ['F3 REX.W A5']),
  stosb: instruction('rep stosb', ['F3 AA']),
  stosq: instruction('rep stosq', ['F3 REX.W AB']),
};

/** Repeats rcx times while equal. */
export const repe = { cmpsb: instruction('repe cmpsb', ['F3 A6']) };

/** Port input. JavaScript reserves the word `in`. */
export const inb = instruction('in', ['E4', 'AL', 'Ib'], ['EC', 'AL', 'DX']);
export const out = instruction('out', ['E6', 'Ib', 'AL'], ['EE', 'DX', 'AL'], ['66 EF', 'DX', 'AX']);

export const hlt = instruction('hlt', ['F4']);
export const cli = instruction('cli', ['FA']);
export const sti = instruction('sti', ['FB']);
export const cld = instruction('cld', ['FC']);

// --- two-byte opcodes, 0F: table A-3 -------------------------------------------------------------------------------

export const lgdt = instruction('lgdt', ['0F 01 /2', 'M']);
export const lidt = instruction('lidt', ['0F 01 /3', 'M']);
export const syscall = instruction('syscall', ['0F 05']);
export const wrmsr = instruction('wrmsr', ['0F 30']);
export const rdmsr = instruction('rdmsr', ['0F 32']);
export const cpuid = instruction('cpuid', ['0F A2']);
export const movzx = instruction('movzx', ['0F B6', 'Gv', 'Eb'], ['0F B7', 'Gy', 'Ew']);
export const bswap = instruction('bswap', ['0F C8', 'Zy']);

export const movdqa = instruction('movdqa', ['66 0F 6F', 'Vdq', 'Wdq'], ['66 0F 7F', 'Wdq', 'Vdq']);
export const movdqu = instruction('movdqu', ['F3 0F 6F', 'Vdq', 'Wdq'], ['F3 0F 7F', 'Wdq', 'Vdq']);
export const pshufd = instruction('pshufd', ['66 0F 70', 'Vdq', 'Wdq', 'Ib']);
export const paddd = instruction('paddd', ['66 0F FE', 'Vdq', 'Wdq']);

// --- three-byte opcodes, 0F 38 and 0F 3A: tables A-4 and A-5 -------------------------------------------------------

export const pshufb = instruction('pshufb', ['66 0F 38 00', 'Vdq', 'Wdq']);
/** Two rounds of SHA-256; the two sums of message and constant are taken from xmm0. */
export const sha256rnds2 = instruction('sha256rnds2', ['0F 38 CB', 'Vdq', 'Wdq']);
export const sha256msg1 = instruction('sha256msg1', ['0F 38 CC', 'Vdq', 'Wdq']);
export const sha256msg2 = instruction('sha256msg2', ['0F 38 CD', 'Vdq', 'Wdq']);
export const pblendw = instruction('pblendw', ['66 0F 3A 0E', 'Vdq', 'Wdq', 'Ib']);
export const palignr = instruction('palignr', ['66 0F 3A 0F', 'Vdq', 'Wdq', 'Ib']);
