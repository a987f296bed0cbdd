/** Resource limits: prlimit(2). */
import { RLIMIT_RTTIME, rlimit64 } from '../abi/resource.ts';
import { NR } from '../abi/unistd.ts';
import type { rlimit_entry } from '../image/messages/task.ts';
import type { Value } from '../image/proto.ts';
import type { Remote } from './remote.ts';

type Limit = Value<typeof rlimit_entry>;

/** Asks within the process: asking about another one of another user takes CAP_SYS_RESOURCE. */
export function saveLimits(remote: Remote): () => Limit[] {
  const rooms = Array.from({ length: RLIMIT_RTTIME + 1 }, (_, resource) => {
    const room = remote.room(rlimit64.size);
    remote.call(NR.prlimit64, 0, resource, 0, room.address);
    return room;
  });
  return () =>
    rooms.map(({ bytes }) => {
      const { rlim_cur, rlim_max } = rlimit64.read(bytes);
      return { cur: rlim_cur, max: rlim_max };
    });
}

/**
 * Sets what differs from the limits that the process has now. Raising a hard one takes CAP_SYS_RESOURCE, so those that are
 * right already are left alone.
 */
export function restoreLimits(remote: Remote, limits: readonly Limit[], now: readonly Limit[]): void {
  for (const [resource, { cur, max }] of limits.entries()) {
    if (now[resource]?.cur === cur && now[resource]?.max === max) continue;
    remote.call(NR.prlimit64, 0, resource, remote.put(rlimit64.write({ rlim_cur: cur, rlim_max: max })), 0);
  }
}
