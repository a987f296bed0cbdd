/**
 * Ending a tree, or leaving it stopped, takes as many calls as it has processes. If we end between the first and the last of them,
 * those that were not reached yet would go on without the others: somebody stands by who gives all of them the signal then.
 */
import { POLLIN } from '../abi/poll.ts';
import { NR } from '../abi/unistd.ts';
import { treeOf } from './freeze.ts';
import { copies, polled, standBy, type TurningGuard, turning } from './guard.ts';

export class AllOrNone implements Disposable {
  readonly #signal: number;
  #guarded: ReadonlySet<number>;
  #guard: TurningGuard;

  /** To be made while the tree still runs: it takes a millisecond. @param signal SIGKILL or SIGSTOP */
  constructor(root: number, signal: number) {
    this.#signal = signal;
    this.#guarded = new Set(treeOf(root));
    this.#guard = guard(this.#guarded, signal);
  }

  /** From now on all get the signal, also if we end. @param pids all of the tree, which is stopped */
  turn(pids: readonly number[]): void {
    if (pids.length !== this.#guarded.size || !pids.every((pid) => this.#guarded.has(pid))) {
      // It was another tree then.
      this.#guard.end();
      this.#guarded = new Set(pids);
      this.#guard = guard(this.#guarded, this.#signal);
    }
    this.#guard.turn();
  }

  /** To be called when all have the signal, or are to go on. */
  [Symbol.dispose](): void {
    this.#guard.end();
  }
}

function guard(pids: ReadonlySet<number>, signal: number): TurningGuard {
  return turning((turned) =>
    standBy(2 * pids.size + 4, {
      open: (remote, us) => [
        ...copies([turned])(remote, us),
        ...[...pids].map((each) => remote.attempt(NR.pidfd_open, each, 0)),
      ],
      act(remote, [event, ...pidfds]) {
        const toEnd = polled(remote, event!, signal, POLLIN);
        for (const pidfd of pidfds) {
          // One of those that run may have ended.
          if (pidfd >= 0) remote.passResult(toEnd, remote.attempt(NR.pidfd_send_signal, pidfd, 0, 0, 0), 1);
        }
      },
    }),
  );
}
