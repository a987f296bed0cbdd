/** Where this processor keeps the components of its extended state (src/image/xsave.ts), asked of cpuid. */
import { assemble } from '../asm/assemble.ts';
import { cpuid, mov, pop, push, ret } from '../asm/instructions.ts';
import { eax, ebx, ecx, edi, esi, rbx } from '../asm/operands.ts';
import type { XsaveLayout } from '../image/xsave.ts';
import { mapCode } from '../sys/region.ts';

/** (leaf, subleaf) to ebx. Leaf 0Dh, subleaf n: the offset of component n. Intel SDM Vol. 2, CPUID. */
const CODE = [push(rbx), mov(eax, edi), mov(ecx, esi), cpuid(), mov(eax, ebx), pop(rbx), ret()];
const LEAF = 0xd;
const COMPONENTS = [2, 3, 4, 5, 6, 7, 9];

/** In a virtual machine cpuid takes as long as ten system calls. */
const layouts = new Map<string, XsaveLayout>();
let ask: ((leaf: number, subleaf: number) => number) | undefined;

/** @param size of the area, as ptrace(2) hands it out @param enabled components, a bit for each */
export function xsaveLayout(size: number, enabled: bigint): XsaveLayout {
  const key = `${size} ${enabled}`;
  let layout = layouts.get(key);
  if (layout === undefined) {
    ask ??= mapCode(assemble(CODE).bytes, 2).call;
    const has = COMPONENTS.filter((bit) => (enabled & (1n << BigInt(bit))) !== 0n);
    layout = { size, offsets: new Map(has.map((bit) => [bit, ask!(LEAF, bit) >>> 0])) };
    layouts.set(key, layout);
  }
  return layout;
}
