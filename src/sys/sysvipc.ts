/** System V IPC: sysvipc(7), and what /proc/sysvipc lists of the namespace that this process is in. */
import * as abi from '../abi/ipc.ts';
import { readProcText } from './proc.ts';
import { address, flags, hex, input, int, output, syscall, word } from './syscall.ts';

/** @returns the id @throws SyscallError EEXIST (with IPC_EXCL: the key is taken), ENOENT, ENOSPC, EINVAL (another size) */
export const shmget = syscall('shmget', 29, { key: int, size: int, shmflg: hex });
/** @returns where it is */
export const shmat = syscall('shmat', 30, { shmid: int, shmaddr: address, shmflg: flags(abi, /^SHM_RDONLY/) });
export const shmdt = syscall('shmdt', 67, { shmaddr: address });
export const shmctl = syscall('shmctl', 31, { shmid: int, cmd: int, buf: word });
export const semget = syscall('semget', 64, { key: int, nsems: int, semflg: hex });
/** @param arg a number, or memory for what the command reads or fills */
export const semctl = syscall('semctl', 66, { semid: int, semnum: int, cmd: int, arg: output });

/** @returns the id */
export const msgget = syscall('msgget', 68, { key: int, msgflg: hex });
/** @param msgp 8 bytes of type, and the text @param msgsz of the text alone */
export const msgsnd = syscall('msgsnd', 69, { msqid: int, msgp: input, msgsz: int, msgflg: hex });
/** @returns length of the text @throws SyscallError ENOMSG, E2BIG (longer than msgsz), ENOSYS (MSG_COPY is not in this kernel) */
export const msgrcv = syscall('msgrcv', 70, { msqid: int, msgp: output, msgsz: int, msgtyp: int, msgflg: hex });
export const msgctl = syscall('msgctl', 71, { msqid: int, cmd: int, buf: output });

/** A line of /proc/sysvipc/shm or sem: `key`, `perms` (octal), and the other columns as numbers by their names. */
export type SysvObject = Readonly<Record<string, number>>;

/** @returns none where the kernel has no System V IPC */
export function listSysv(kind: 'shm' | 'sem' | 'msg'): SysvObject[] {
  let text: string;
  try {
    text = readProcText(`/proc/sysvipc/${kind}`);
  } catch {
    return [];
  }
  const [head, ...lines] = text.trimEnd().split('\n');
  const names = head!.trim().split(/\s+/);
  return lines.map((line) => {
    const values = line.trim().split(/\s+/);
    return Object.fromEntries(names.map((name, i) => [name, Number.parseInt(values[i]!, name === 'perms' ? 8 : 10)]));
  });
}
