/** Whether a thread waits until a child has executed a program or ended: vfork(2). */
import { CLONE_VFORK, clone_args } from '../abi/sched.ts';
import { NR } from '../abi/unistd.ts';
import { readProcText } from '../sys/proc.ts';
import { readMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';

let scratch: Region | undefined;

/** By the call in which it is blocked, and for clone(2) its flags. @throws what reading of one does that has ended */
export function inVfork(pid: number, tid: number): boolean {
  const [call, first] = readProcText(`/proc/${pid}/task/${tid}/syscall`).trim().split(' ').map(Number);
  if (call === NR.vfork) return true;
  if (call === NR.clone) return (first! & CLONE_VFORK) !== 0;
  if (call !== NR.clone3) return false;
  scratch ??= new Region(4096);
  if (readMemory(pid, first!, scratch.address, clone_args.size) < 8) return false;
  return (Number(scratch.view.getBigUint64(clone_args.offsets.flags, true)) & CLONE_VFORK) !== 0;
}
