/**
 * What CRIU writes in another way than tideover, brought into the way in which ours have it:
 *
 * - Shared anonymous memory is a memfd there, named as /proc/PID/maps shows such memory.
 * - All mappings of a file refer to one entry of it, and have the mode it was opened with for themselves.
 */
import { O_ACCMODE } from '../abi/fcntl.ts';
import { MAP_ANONYMOUS } from '../abi/mman.ts';
import { VMA_ANON_SHARED, VMA_AREA_MEMFD, VMA_FILE_PRIVATE, VMA_FILE_SHARED } from './messages/memory.ts';
import type { VmaEntry } from './pages.ts';
import type { FileEntry, ImageTree } from './tree.ts';

const ANONYMOUS = '/dev/zero';
const OF_FILE = VMA_FILE_PRIVATE | VMA_FILE_SHARED;

/** An image of ours stays as it is. */
export function inOwnForm(tree: ImageTree): ImageTree {
  if (tree.info !== undefined) return tree;
  const files = new Map(tree.files);
  const memfds = new Map(tree.memfds);
  const held = new Set(
    tree.tasks.flatMap(({ descriptors }) => descriptors.map(({ id }) => files.get(id)?.memfd?.inode_id)),
  );
  // A program may call a memfd of its own so: it has a descriptor of it.
  for (const [inode, { name }] of tree.memfds) if (name === ANONYMOUS && !held.has(inode)) memfds.delete(inode);

  let last = 0;
  for (const id of files.keys()) last = Math.max(last, id);
  const reopened = new Map<string, number>();
  const withMode = (id: number, file: FileEntry, mode: number): number => {
    const key = `${id} ${mode}`;
    const known = reopened.get(key);
    if (known !== undefined) return known;
    const fresh = ++last;
    const opened = <T extends { flags: number }>(entry: T): T => ({
      ...entry,
      flags: (entry.flags & ~O_ACCMODE) | mode,
    });
    const { reg, memfd } = file;
    files.set(fresh, { ...file, id: fresh, ...(reg && { reg: opened(reg) }), ...(memfd && { memfd: opened(memfd) }) });
    reopened.set(key, fresh);
    return fresh;
  };
  const adopt = (vma: VmaEntry): VmaEntry => {
    if ((vma.status & OF_FILE) === 0) return vma;
    const file = files.get(vma.shmid);
    const inode = file?.memfd?.inode_id;
    if (inode !== undefined && tree.memfds.has(inode) && !memfds.has(inode)) {
      const status = (vma.status & ~(OF_FILE | VMA_AREA_MEMFD)) | VMA_ANON_SHARED;
      return { ...vma, status, flags: vma.flags | MAP_ANONYMOUS, shmid: tree.memfds.get(inode)!.shmid };
    }
    const flags = file?.reg?.flags ?? file?.memfd?.flags;
    if (file === undefined || flags === undefined || vma.fdflags === undefined) return vma;
    const mode = vma.fdflags & O_ACCMODE;
    return (flags & O_ACCMODE) === mode ? vma : { ...vma, shmid: withMode(vma.shmid, file, mode) };
  };
  const tasks = tree.tasks.map((task) =>
    task.mm === undefined ? task : { ...task, mm: { ...task.mm, vmas: task.mm.vmas.map(adopt) } },
  );
  return { ...tree, tasks, files, memfds };
}
