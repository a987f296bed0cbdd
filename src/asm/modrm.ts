/**
 * ModRM, SIB, displacement and the REX bits that belong to them: Intel SDM Vol. 2, 2.1.3 to 2.1.5 and 2.2.1.
 *
 *      7 6 5   3 2   0      7   6 5     3 2    0
 *     +---+-----+-----+    +-----+-------+------+   +----------------+
 *     |mod| reg | r/m |    |scale| index | base |   | disp8 / disp32 |
 *     +---+-----+-----+    +-----+-------+------+   +----------------+
 *           +R    +B               +X       +B      REX prefix: the fourth bit of each register number
 */
import { type Address, type Gpr, type Label, type Memory, show, type Xmm } from './operands.ts';

/** REX is 0100WRXB: Vol. 2, table 2-4. */
export const REX = { B: 1, X: 2, R: 4, W: 8, prefix: 0x40 } as const;

/** Code for 64-bit mode or for protected mode, where there is no REX. */
export type Bits = 64 | 32;

export interface ModRm {
  readonly bytes: number[];
  /** R, X and B as far as they are needed. */
  readonly rex: number;
  /** True where the address needs the address-size prefix, 67H. */
  readonly addressSize: boolean;
  /** A label whose distance goes into the last four bytes. */
  readonly rip?: { readonly label: Label; readonly addend: number };
}

/** r/m and base values that mean something else than their register: Vol. 2, table 2-2 and 2-3. */
const SIB_FOLLOWS = 0b100;
const NO_INDEX = 0b100;
const NO_BASE = 0b101;

/**
 * @param reg register number or opcode extension for the reg field
 * @param rm the operand of the r/m field
 * @throws RangeError where the address cannot be expressed
 */
export function modRm(reg: number, rm: Gpr | Xmm | Memory, bits: Bits): ModRm {
  const r = reg >= 8 ? REX.R : 0;
  const regBits = (reg & 7) << 3;
  if (rm.file !== 'memory') {
    return { bytes: [0xc0 | regBits | (rm.number & 7)], rex: r | (rm.number >= 8 ? REX.B : 0), addressSize: false };
  }
  const { address } = rm;
  const disp = displacement(rm);
  if ('rip' in address) {
    if (bits === 32) throw new RangeError(`${show(rm)}: 32-bit code has no addresses relative to rip`);
    const rip = { label: address.rip, addend: disp };
    return { bytes: [regBits | NO_BASE, 0, 0, 0, 0], rex: r, addressSize: false, rip };
  }
  const { base, index } = address;
  const rex = r | (index && index.number >= 8 ? REX.X : 0) | (base && base.number >= 8 ? REX.B : 0);
  const addressSize = addressWidth(rm, address, bits) !== bits;

  if (base === undefined) {
    // Without base a disp32 always follows. In 64-bit mode the form without SIB is the one relative to rip.
    const indexBits = index === undefined ? NO_INDEX : index.number & 7;
    const sib = (scaleBits(rm, address) << 6) | (indexBits << 3) | NO_BASE;
    const head = index === undefined && bits === 32 ? [regBits | NO_BASE] : [regBits | SIB_FOLLOWS, sib];
    return { bytes: [...head, ...le32(disp)], rex, addressSize };
  }
  // mod 00 with base 101 (rbp, r13) means no base: there a displacement of zero is written out.
  const mod = disp === 0 && (base.number & 7) !== NO_BASE ? 0 : disp >= -128 && disp < 128 ? 1 : 2;
  const tail = mod === 0 ? [] : mod === 1 ? [disp & 0xff] : le32(disp);
  if (index === undefined && (base.number & 7) !== SIB_FOLLOWS) {
    return { bytes: [(mod << 6) | regBits | (base.number & 7), ...tail], rex, addressSize };
  }
  const indexBits = index === undefined ? NO_INDEX : index.number & 7;
  const sib = (scaleBits(rm, address) << 6) | (indexBits << 3) | (base.number & 7);
  return { bytes: [(mod << 6) | regBits | SIB_FOLLOWS, sib, ...tail], rex, addressSize };
}

type Indexed = Exclude<Address, { readonly rip: Label }>;

function addressWidth(rm: Memory, { base, index }: Indexed, bits: Bits): number {
  if (index?.number === 4) throw new RangeError(`${show(rm)}: ${index.name} cannot be an index`);
  if (base && index && base.width !== index.width) {
    throw new RangeError(`${show(rm)}: base and index must have the same width`);
  }
  const width = (base ?? index)?.width ?? bits;
  if (width > bits) throw new RangeError(`${show(rm)}: 32-bit code has no 64-bit addresses`);
  return width;
}

function scaleBits(rm: Memory, { scale = 1 }: Indexed): number {
  const encoded = [1, 2, 4, 8].indexOf(scale);
  if (encoded < 0) throw new RangeError(`${show(rm)}: the scale must be 1, 2, 4 or 8`);
  return encoded;
}

function displacement(rm: Memory): number {
  const disp = rm.address.disp ?? 0;
  if ((disp | 0) !== disp) throw new RangeError(`${show(rm)}: the displacement must be a signed 32-bit number`);
  return disp;
}

function le32(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, (value >> 24) & 0xff];
}
