/**
 * Making a process that becomes another program: clone3(2), and in the child a batch of calls (batch.ts), the last of which is to be
 * execve(2). JavaScript cannot go on in a child, where it has one thread instead of ten; this code needs nothing of it.
 */
import { NR } from '../abi/unistd.ts';
import { assemble } from './assemble.ts';
import { performRecords } from './batch.ts';
import { NOT_EXECUTED } from './init.ts';
import { jz, mov, pop, push, ret, syscall, test } from './instructions.ts';
import { eax, edi, label, r12, r13, rax, rbx, rcx, rdx } from './operands.ts';

/** A C function (clone_args, its size, first record, number of records) that returns the child's id or -errno. */
export function spawnCode(): Uint8Array {
  const child = label('child');
  return assemble(
    push(rbx),
    push(r12),
    push(r13),
    mov(rbx, rdx),
    mov(r12, rcx),
    mov(eax, NR.clone3),
    syscall(),
    test(rax, rax),
    jz(child),
    pop(r13),
    pop(r12),
    pop(rbx),
    ret(),

    child,
    performRecords(),
    mov(edi, NOT_EXECUTED),
    mov(eax, NR.exit_group),
    syscall(),
  ).bytes;
}
