/**
 * An IPC namespace that a tree has for itself: ipc_namespaces(7). All that is in it is kept, whoever uses it: limits, message queues with
 * what waits in them, shared memory that nobody has attached, semaphores. This thread is in it.
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { Errno } from '../abi/errno.ts';
import { AT_FDCWD } from '../abi/fcntl.ts';
import * as abi from '../abi/ipc.ts';
import { viewOf } from '../abi/struct.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { isRecord, readBlob, records } from '../image/file.ts';
import { ipc_msg, ipc_msg_entry, type ipc_var_entry } from '../image/messages/ipc.ts';
import type { Value } from '../image/proto.ts';
import type { Source } from '../image/store.ts';
import { attributes, close } from '../sys/files.ts';
import { mountNew } from '../sys/mount.ts';
import { readProcText } from '../sys/proc.ts';
import { listSysv, msgctl, msgget, msgrcv, msgsnd, shmat, shmdt } from '../sys/sysvipc.ts';
import type { Saving } from './saving.ts';
import { describeSysv, owner, saveSegment } from './sysv.ts';

export type Limits = Value<typeof ipc_var_entry>;
export interface Queue {
  readonly entry: Value<typeof ipc_msg_entry>;
  readonly messages: readonly { readonly entry: Value<typeof ipc_msg>; readonly bytes: Uint8Array }[];
}

/** What an IPC namespace has beside shared memory and semaphores, for which sysv.ts is there. */
export interface IpcNamespace {
  readonly limits: Limits;
  readonly queues: readonly Queue[];
}

/** @throws UnsupportedError where there is a message queue of POSIX */
export function saveIpc(saving: Saving): IpcNamespace {
  refusePosixQueues();
  for (const { shmid, nattch } of listSysv('shm')) if (nattch === 0) saveUnattached(saving, shmid!);
  return { limits: saveLimits(), queues: saving.stopped ? listSysv('msg').map(({ msqid }) => saveQueue(msqid!)) : [] };
}

/** They are files of a file system that only shows those of the namespace of whoever mounts it: mq_overview(7). */
function refusePosixQueues(): void {
  let fd: number;
  try {
    fd = mountNew('mqueue');
  } catch (error) {
    if (error instanceof SyscallError && error.errno === Errno.ENODEV) return;
    throw error;
  }
  try {
    const [name] = readdirSync(`/proc/self/fd/${fd}`);
    if (name === undefined) return;
    throw new UnsupportedError({
      what: `message queue /${name}`,
      why: 'those of POSIX, and what waits in them, cannot be saved yet',
      remedy: 'let the program take it away (mq_unlink(3))',
    });
  } finally {
    close({ fd });
  }
}

/** Attached here for a moment, it can be read as those of processes are. */
function saveUnattached(saving: Saving, shmid: number): void {
  const shmaddr = shmat({ shmid, shmaddr: 0, shmflg: abi.SHM_RDONLY });
  try {
    const { size } = listSysv('shm').find((each) => each.shmid === shmid)!;
    const end = shmaddr + Math.ceil(size! / 4096) * 4096;
    const link = `/proc/self/map_files/${shmaddr.toString(16)}-${end.toString(16)}`;
    const { stx_ino } = attributes(AT_FDCWD, link);
    saveSegment(saving, { inode: stx_ino }, link);
  } finally {
    shmdt({ shmaddr });
  }
}

const NUMBERS = {
  ...{ msg_ctlmax: 'kernel/msgmax', msg_ctlmnb: 'kernel/msgmnb', msg_ctlmni: 'kernel/msgmni' },
  ...{ auto_msgmni: 'kernel/auto_msgmni', shm_ctlmni: 'kernel/shmmni', shm_rmid_forced: 'kernel/shm_rmid_forced' },
  ...{ mq_queues_max: 'fs/mqueue/queues_max', mq_msg_max: 'fs/mqueue/msg_max' },
  ...{ mq_msgsize_max: 'fs/mqueue/msgsize_max', mq_msg_default: 'fs/mqueue/msg_default' },
  ...{ mq_msgsize_default: 'fs/mqueue/msgsize_default' },
} as const;
const LARGE = { shm_ctlmax: 'kernel/shmmax', shm_ctlall: 'kernel/shmall' } as const;

function saveLimits(): Limits {
  const numbers = Object.entries(NUMBERS).map(([name, file]) => [name, Number(sysctl(file))]);
  const large = Object.entries(LARGE).map(([name, file]) => [name, BigInt(sysctl(file))]);
  return {
    sem_ctls: sysctl('kernel/sem').split('\t').map(Number),
    ...(Object.fromEntries(numbers) as Record<keyof typeof NUMBERS, number>),
    ...(Object.fromEntries(large) as Record<keyof typeof LARGE, bigint>),
  };
}

function sysctl(file: string): string {
  return readProcText(`/proc/sys/${file}`).trim();
}

/** Those that differ here are written. */
export function restoreIpcLimits(limits: Limits): void {
  const set = (file: string, value: string) => {
    if (sysctl(file) !== value) writeFileSync(`/proc/sys/${file}`, value);
  };
  set('kernel/sem', limits.sem_ctls.join('\t'));
  for (const [name, file] of Object.entries({ ...NUMBERS, ...LARGE })) {
    const value = limits[name as keyof typeof NUMBERS | keyof typeof LARGE];
    if (value !== undefined) set(file, `${value}`);
  }
}

const TYPE = 8;

function saveQueue(msqid: number): Queue {
  const stat = new Uint8Array(abi.msqid64_ds.size);
  msgctl({ msqid, cmd: abi.IPC_STAT, buf: stat });
  const { msg_qnum, msg_qbytes } = abi.msqid64_ds.read(stat);
  const object = listSysv('msg').find((each) => each.msqid === msqid)!;
  const messages = Array.from({ length: msg_qnum }, (_, i) => {
    const buffer = new Uint8Array(TYPE + Math.max(1, object.cbytes!));
    const args = { msqid, msgp: buffer, msgsz: buffer.length - TYPE, msgtyp: i };
    const msize = msgrcv({ ...args, msgflg: abi.MSG_COPY | abi.IPC_NOWAIT });
    const mtype = viewOf(buffer).getBigUint64(0, true);
    return { entry: { mtype, msize }, bytes: buffer.slice(TYPE, TYPE + msize) };
  });
  return { entry: { desc: describeSysv(object, msqid), qbytes: msg_qbytes, qnum: msg_qnum }, messages };
}

/** Makes message queues with their ids in a namespace that has none. */
export function restoreQueues(source: Source): void {
  let msqid = -1;
  for (const record of records(source)) {
    if (isRecord(record, ipc_msg_entry)) msqid = makeQueue(record.value);
    else if (isRecord(record, ipc_msg)) {
      const { mtype, msize } = record.value;
      const buffer = new Uint8Array(TYPE + msize);
      viewOf(buffer).setBigUint64(0, mtype, true);
      buffer.set(readBlob(source, record).subarray(0, msize), TYPE);
      msgsnd({ msqid, msgp: buffer, msgsz: msize, msgflg: abi.IPC_NOWAIT });
    }
  }
}

function makeQueue({ desc, qbytes }: Queue['entry']): number {
  writeFileSync('/proc/sys/kernel/msg_next_id', `${desc.id}`);
  const msqid = msgget({ key: desc.key | 0, msgflg: abi.IPC_CREAT | abi.IPC_EXCL | (desc.mode & 0o777) });
  const set = new Uint8Array(abi.msqid64_ds.size);
  set.set(owner(desc));
  viewOf(set).setBigUint64(abi.msqid64_ds.offsets.msg_qbytes, BigInt(qbytes), true);
  msgctl({ msqid, cmd: abi.IPC_SET, buf: set });
  return msqid;
}
