/** Calling a C function for each of many pages: one call from JavaScript, which takes longer than a page does. */
import { assemble } from './assemble.ts';
import { add, call, dec, jnz, jz, mov, pop, push, ret, test, xor } from './instructions.ts';
import { dword, eax, edi, edx, label, r12, r13, rbp, rbx, rcx, rdi, rdx, rsi } from './operands.ts';

const PAGE = 4096;

/**
 * A C function (pages, how many, place for 32 bits of each, f) that leaves there what f(0, page, 4096) returns. f is a C
 * function as crc32() of zlib is.
 */
export function eachPageCode(): Uint8Array {
  const [next, end] = [label('next'), label('end')];
  return assemble(
    push(rbx),
    push(rbp),
    push(r12),
    push(r13),
    // The fifth: the stack is to be at a multiple of 16 where a function is called.
    push(rdx),
    mov(rbx, rdi),
    mov(rbp, rsi),
    mov(r12, rdx),
    mov(r13, rcx),
    test(rbp, rbp),
    jz(end),
    next,
    xor(edi, edi),
    mov(rsi, rbx),
    mov(edx, PAGE),
    call(r13),
    mov(dword({ base: r12 }), eax),
    add(rbx, PAGE),
    add(r12, 4),
    dec(rbp),
    jnz(next),
    end,
    pop(rdx),
    pop(r13),
    pop(r12),
    pop(rbp),
    pop(rbx),
    ret(),
  ).bytes;
}
