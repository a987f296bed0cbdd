/**
 * Making a process or a thread that performs a batch of calls (batch.ts): clone3(2), and the batch in the child. JavaScript cannot go on
 * there: in a process it has one thread instead of ten, in a thread nothing of what it needs. This code needs nothing, not even
 * a stack; so a thread is to be made with all signals blocked.
 */
import { NR } from '../abi/unistd.ts';
import { assemble, type Item } from './assemble.ts';
import { performRecords } from './batch.ts';
import { NOT_EXECUTED } from './init.ts';
import { jz, mov, pop, push, ret, syscall, test } from './instructions.ts';
import { eax, edi, label, r12, r13, rax, rbx, rcx, rdx } from './operands.ts';

/**
 * A process whose last call is to be execve(2).
 * A C function (clone_args, its size, first record, number of records) that returns the child's id or -errno.
 */
export function spawnCode(): Uint8Array {
  return cloneCode(mov(edi, NOT_EXECUTED), mov(eax, NR.exit_group), syscall());
}

/** A thread of this process; CLONE_CHILD_CLEARTID tells when all its calls are done. As spawnCode() */
export function threadCode(): Uint8Array {
  return cloneCode(mov(edi, 0), mov(eax, NR.exit), syscall());
}

/** @param end what the child does when all is done */
function cloneCode(...end: readonly Item[]): Uint8Array {
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
    end,
  ).bytes;
}
