/** The purgatory's check: is what lies in memory what was loaded? */

import type { Item } from './assemble.ts';
import {
  add,
  and,
  call,
  cmp,
  cpuid,
  jb,
  je,
  jmp,
  jne,
  lea,
  mov,
  pop,
  push,
  repe,
  ret,
  sub,
  xor,
} from './instructions.ts';
import {
  dword,
  eax,
  ebx,
  ecx,
  type Label,
  label,
  mem,
  qword,
  r12,
  r12d,
  r13,
  r14,
  r14d,
  rax,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
} from './operands.ts';
import { purgatory_parameters, purgatory_region } from './parameters.ts';

/** cpuid leaf 7, ebx; leaf 1, ecx: SDM Vol. 2, CPUID. */
const SHA = 1 << 29;
const SSSE3_AND_SSE4_1 = (1 << 9) | (1 << 19);

/** `choose()`: the address of the faster block function that this processor has. */
export function chooseSha256(entry: Item, plain: Label, shaNi: Label): Item[] {
  const isPlain = label('choose_plain');
  return [
    entry,
    push(rbx),
    xor(eax, eax),
    cpuid(),
    cmp(eax, 7),
    jb(isPlain),
    mov(eax, 7),
    xor(ecx, ecx),
    cpuid(),
    and(ebx, SHA),
    je(isPlain),
    mov(eax, 1),
    cpuid(),
    and(ecx, SSSE3_AND_SSE4_1),
    cmp(ecx, SSSE3_AND_SSE4_1),
    jne(isPlain),
    lea(rax, mem({ rip: shaNi })),
    pop(rbx),
    ret(),
    isPlain,
    lea(rax, mem({ rip: plain })),
    pop(rbx),
    ret(),
  ];
}

/** `verify(parameters: rdi, blocks: rsi)`: the index of the first region whose digest differs, or -1. */
export function verifyRegions(entry: Item, sha256: Label): Item[] {
  const [next, bad, good] = ['verify_next', 'verify_bad', 'verify_good'].map((name) => label(name));
  const { offsets } = purgatory_parameters;
  const region = purgatory_region.offsets;
  return [
    entry,
    ...[push(rbx), push(r12), push(r13), push(r14)],
    sub(rsp, 40),
    mov(r13, rsi),
    mov(r14d, dword({ base: rdi, disp: offsets.region_count })),
    lea(rbx, mem({ base: rdi, disp: offsets.regions })),
    xor(r12d, r12d),
    next!,
    cmp(r12, r14),
    je(good!),
    mov(rdi, rsp),
    mov(rsi, qword({ base: rbx, disp: region.start })),
    mov(rdx, qword({ base: rbx, disp: region.size })),
    mov(rcx, r13),
    call(sha256),
    mov(rdi, rsp),
    lea(rsi, mem({ base: rbx, disp: region.sha256 })),
    mov(ecx, 32),
    repe.cmpsb(),
    jne(bad!),
    add(rbx, purgatory_region.size),
    add(r12, 1),
    jmp(next!),
    good!,
    mov(r12, -1),
    bad!,
    mov(rax, r12),
    add(rsp, 40),
    ...[pop(r14), pop(r13), pop(r12), pop(rbx)],
    ret(),
  ];
}
