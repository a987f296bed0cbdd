/** Processes as descriptors: pidfd_open(2). Of processes of the tree, and of some that are gone. */
import { O_EXCL, O_NONBLOCK } from '../../abi/fcntl.ts';
import { PIDFD_NONBLOCK, PIDFD_THREAD } from '../../abi/pidfd.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../../abi/sched.ts';
import { SIGKILL } from '../../abi/signal.ts';
import { __WALL } from '../../abi/wait.ts';
import { UnsupportedError } from '../../errors.ts';
import { clone3 } from '../../sys/clone.ts';
import { kill, pidfd_open, wait4 } from '../../sys/process.ts';
import { withChildrenIn } from '../namespaces.ts';
import type { Saving } from '../saving.ts';
import { type FileKind, infoLine, restoreOwner, saveOwner } from './file.ts';

export const pidfd: FileKind = {
  type: 'PIDFD',

  matches: ({ link }) => link === 'anon_inode:[pidfd]',

  save(file, saving) {
    const of = Number(infoLine(file, 'Pid'));
    saving.pidfds.push({ pid: file.pid, fd: file.fd, of });
    // Of one that is gone there is no id any more.
    const nspid = of > 0 ? Number(infoLine(file, 'NSpid').split('\t').at(-1)) : of;
    // Two that are of one process have one inode, also when it is gone (pidfs, Linux 6.9).
    return {
      pidfd: {
        id: file.id,
        ino: Number(file.stat.stx_ino & 0xffff_ffffn),
        flags: file.flags,
        nspid,
        fown: saveOwner(file),
      },
    };
  },

  restore(entry, restoring) {
    const { ino, flags, nspid, fown } = entry.pidfd!;
    const pid =
      nspid > 0
        ? restoring.here(nspid)
        : restoring.once(`gone process ${ino}`, () =>
            withChildrenIn(restoring.here(restoring.tree.tasks[0]!.pid), () =>
              shortLived((end) => restoring.atEnd(end)),
            ),
          );
    const of = (flags & O_EXCL) === 0 ? 0 : PIDFD_THREAD;
    const fd = pidfd_open({ pid, flags: of | ((flags & O_NONBLOCK) === 0 ? 0 : PIDFD_NONBLOCK) });
    restoreOwner(restoring, fd, fown);
    return fd;
  },
};

/** @param tree process ids @throws UnsupportedError for a process that is none of them: another one may have its id then */
export function checkPidfds({ pidfds }: Saving, tree: ReadonlySet<number>): void {
  for (const { pid, fd, of } of pidfds) {
    if (of <= 0 || tree.has(of)) continue;
    throw new UnsupportedError({
      ...{ pid, fd, what: 'anon_inode:[pidfd]' },
      why: `it is of process or thread ${of}, which is not in the tree`,
      remedy: 'save a tree that has both',
    });
  }
}

/** A process that is gone when the restore is done. @returns its id */
function shortLived(atEnd: (end: () => void) => void): number {
  const { pid } = clone3({ flags: CLONE_VM + CLONE_CLEAR_SIGHAND, exit_signal: 0, pdeath_sig: SIGKILL });
  atEnd(() => {
    kill({ pid, sig: SIGKILL });
    wait4.attempt({ pid, wstatus: 0, options: __WALL, rusage: 0 });
  });
  return pid;
}
