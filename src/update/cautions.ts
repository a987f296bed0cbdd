/** What of a tree can be saved, and may yet not go on under another kernel. */
import { treeOf } from '../process/freeze.ts';
import { isGone } from '../process/gone.ts';
import { descriptorLink, listDescriptors } from '../sys/fdinfo.ts';
import type { KeptTree } from './record.ts';

/** For people, as lines. */
export function cautionsOf({ name, pid }: Pick<KeptTree, 'name' | 'pid'>): string[] {
  const rings = treeOf(pid).filter(hasRing).length;
  if (rings === 0) return [];
  const of = rings === 1 ? 'a process has' : `${rings} processes have`;
  return [
    `${name}: ${of} an io_uring ring: it goes on if nothing is under way in it when the tree is stopped; and where the next kernel lays ` +
      'rings out otherwise (before and since Linux 6.6), only with a program whose pointers into it are found',
  ];
}

function hasRing(pid: number): boolean {
  try {
    return listDescriptors(pid).some((fd) => descriptorLink(pid, fd) === 'anon_inode:[io_uring]');
  } catch (error) {
    if (isGone(error)) return false;
    throw error;
  }
}
