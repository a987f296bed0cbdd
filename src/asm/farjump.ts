/** A jump to anywhere that changes no register: `jmp qword [rip + 0]` with the address behind it. */
import { db, dq } from './assemble.ts';

const JUMP_TO_NEXT = [0xff, 0x25, 0, 0, 0, 0];

export function farJump(target: bigint) {
  return [db(Uint8Array.from(JUMP_TO_NEXT)), dq(target)] as const;
}
