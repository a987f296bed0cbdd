/**
 * The xsave area of a thread (Intel SDM volume 1, chapter 13, standard format; what PTRACE_GETREGSET hands out for
 * NT_X86_XSTATE) and CRIU's form of it, a list for each state component.
 *
 *     0    fxsave: x87, MMX, SSE     512
 *     512  header: XSTATE_BV, ...    64
 *     ...  components, each where CPUID leaf 0xD says: the places differ from CPU to CPU
 *
 * AMX (tiles) has no place in CRIU's images: an area with it in use is refused, never cut.
 */
import { viewOf } from '../abi/struct.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import type { user_x86_fpregs_entry, user_x86_xsave_entry } from './messages/machine.ts';
import type { Value } from './proto.ts';

export type FpregsEntry = Value<typeof user_x86_fpregs_entry>;
type XsaveEntry = Value<typeof user_x86_xsave_entry>;

/** Where a CPU keeps the components: the number of the XCR0 bit, and the byte in the area. */
export interface XsaveLayout {
  /** Of the area with all components, in bytes. */
  readonly size: number;
  readonly offsets: ReadonlyMap<number, number>;
}

interface Component {
  readonly bit: number;
  readonly field: 'ymmh_space' | 'bndreg_state' | 'bndcsr_state' | 'opmask_reg' | 'zmm_upper' | 'hi16_zmm' | 'pkru';
  /** Bytes of an element of the list, and elements. */
  readonly width: 4 | 8;
  readonly count: number;
  /** The list of one that is all zeros; nobody changes it. */
  readonly zeros: readonly number[] | readonly bigint[];
}

const COMPONENTS: readonly Component[] = (
  [
    { bit: 2, field: 'ymmh_space', width: 4, count: 64 },
    { bit: 3, field: 'bndreg_state', width: 8, count: 8 },
    // Two registers, and what fills 64 bytes up, as CPUID counts them.
    { bit: 4, field: 'bndcsr_state', width: 8, count: 8 },
    { bit: 5, field: 'opmask_reg', width: 8, count: 8 },
    { bit: 6, field: 'zmm_upper', width: 8, count: 64 },
    { bit: 7, field: 'hi16_zmm', width: 8, count: 128 },
    { bit: 9, field: 'pkru', width: 4, count: 2 },
  ] as const
).map((each) => {
  const zeros = each.width === 4 ? new Array<number>(each.count).fill(0) : new Array<bigint>(each.count).fill(0n);
  return { ...each, zeros };
});

/** Where it says which components are in use: XSTATE_BV. */
export const HEADER = 512;
/** Of what fxsave writes and of the header: every area begins so. */
export const LEGACY_SIZE = 576;

/** The layout of Intel's CPUs with AVX-512, MPX and protection keys; gdb expects it in core files. */
export const INTEL_LAYOUT: XsaveLayout = {
  size: 2696,
  offsets: new Map([
    [2, 576],
    [3, 960],
    [4, 1024],
    [5, 1088],
    [6, 1152],
    [7, 1664],
    [9, 2688],
  ]),
};

/**
 * The registers of an xsave area. Components that the layout lacks are empty lists.
 *
 * @throws UnsupportedError where a component is in use that CRIU's images have no place for
 */
export function fpregsOf(area: Uint8Array, layout: XsaveLayout): FpregsEntry {
  const view = viewOf(area);
  const xstate_bv = view.getBigUint64(HEADER, true);
  demandKnown(xstate_bv);
  const used = Number(xstate_bv);
  const xsave: XsaveEntry = {
    xstate_bv,
    ymmh_space: [],
    bndreg_state: [],
    bndcsr_state: [],
    opmask_reg: [],
    zmm_upper: [],
    hi16_zmm: [],
    pkru: [],
  };
  for (const { bit, field, width, count, zeros } of COMPONENTS) {
    const at = layout.offsets.get(bit);
    if (at === undefined || at + width * count > area.length) continue;
    // A thread has 1.5 KiB of registers that it never used. PKRU the kernel keeps elsewhere.
    const isZero = (used & (1 << bit)) === 0 && field !== 'pkru';
    const list = isZero ? zeros : width === 4 ? words(view, at, count) : quads(view, at, count);
    (xsave as Record<Component['field'], unknown>)[field] = list;
  }
  return {
    cwd: view.getUint16(0, true),
    swd: view.getUint16(2, true),
    twd: view.getUint16(4, true),
    fop: view.getUint16(6, true),
    rip: view.getBigUint64(8, true),
    rdp: view.getBigUint64(16, true),
    mxcsr: view.getUint32(24, true),
    mxcsr_mask: view.getUint32(28, true),
    st_space: words(view, 32, 32),
    xmm_space: words(view, 160, 64),
    padding: [],
    xsave,
  };
}

function words(view: DataView, at: number, count: number): number[] {
  const list = new Array<number>(count);
  for (let i = 0; i < count; i++) list[i] = view.getUint32(at + 4 * i, true);
  return list;
}

/** As most are 0, for these no BigInt is made. */
function quads(view: DataView, at: number, count: number): bigint[] {
  const list = new Array<bigint>(count).fill(0n);
  for (let i = 0; i < count; i++) {
    const [lo, hi] = [view.getUint32(at + 8 * i, true), view.getUint32(at + 8 * i + 4, true)];
    if (lo !== 0 || hi !== 0) list[i] = (BigInt(hi) << 32n) | BigInt(lo);
  }
  return list;
}

/**
 * The xsave area of registers, by the layout of the CPU that shall load it.
 *
 * @throws FormatError where a list has not its length, UnsupportedError where a component in use has no place there
 */
export function areaOf(fpregs: FpregsEntry, layout: XsaveLayout, file: string): Uint8Array {
  const area = new Uint8Array(Math.max(layout.size, LEGACY_SIZE));
  const view = viewOf(area);
  const list = (field: string, values: readonly (number | bigint)[], width: 4 | 8, count: number, at: number) => {
    if (values.length !== count) {
      throw new FormatError({ file, field, expected: `${count} elements`, found: `${values.length}` });
    }
    for (let i = 0; i < count; i++) {
      if (width === 4) view.setUint32(at + 4 * i, values[i] as number, true);
      else view.setBigUint64(at + 8 * i, values[i] as bigint, true);
    }
  };
  view.setUint16(0, fpregs.cwd, true);
  view.setUint16(2, fpregs.swd, true);
  view.setUint16(4, fpregs.twd, true);
  view.setUint16(6, fpregs.fop, true);
  view.setBigUint64(8, fpregs.rip, true);
  view.setBigUint64(16, fpregs.rdp, true);
  view.setUint32(24, fpregs.mxcsr, true);
  view.setUint32(28, fpregs.mxcsr_mask, true);
  list('st_space', fpregs.st_space, 4, 32, 32);
  list('xmm_space', fpregs.xmm_space, 4, 64, 160);
  // Without the extended part the x87 and SSE states are what there is.
  const used = fpregs.xsave?.xstate_bv ?? 3n;
  demandKnown(used);
  view.setBigUint64(HEADER, used, true);
  for (const { bit, field, width, count } of fpregs.xsave === undefined ? [] : COMPONENTS) {
    const values = fpregs.xsave![field];
    const at = layout.offsets.get(bit);
    const isUsed = ((used >> BigInt(bit)) & 1n) === 1n;
    if (isUsed && at === undefined) {
      throw new UnsupportedError({
        what: `registers in ${file}`,
        why: `they have ${field} (XCR0 bit ${bit}) in use, and this CPU has none`,
        remedy: 'restore on a machine with the same CPU features',
      });
    }
    if (at !== undefined && (isUsed || values.length > 0)) list(field, values, width, count, at);
  }
  return area;
}

/** x87, SSE, and the components. */
const KNOWN = COMPONENTS.reduce((mask, { bit }) => mask | (1n << BigInt(bit)), 3n);

function demandKnown(used: bigint): void {
  const other = used & ~KNOWN;
  if (other === 0n) return;
  throw new UnsupportedError({
    what: `registers of XCR0 bits 0x${other.toString(16)}`,
    why: 'they are in use, and CRIU images have no place for them',
    remedy: 'checkpoint while the program does not use them (bits 17 and 18 are AMX)',
  });
}
