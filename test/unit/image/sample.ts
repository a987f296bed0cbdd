/** An image made by hand: two processes with three threads, shared memory, a deleted file, a pipe with data in it. */
import { ImageWriter, writeEntries } from '../../../src/image/file.ts';
import type { ImageInfo } from '../../../src/image/info.ts';
import {
  PE_PRESENT,
  VMA_ANON_PRIVATE,
  VMA_ANON_SHARED,
  VMA_AREA_REGULAR,
  VMA_AREA_STACK,
  VMA_AREA_VSYSCALL,
  VMA_FILE_PRIVATE,
} from '../../../src/image/messages/memory.ts';
import { PagemapWriter } from '../../../src/image/pagemap.ts';
import { PAGE_SIZE } from '../../../src/image/pages.ts';
import { type ImageDraft, MemoryStore } from '../../../src/image/store.ts';
import type { CoreEntry, FileEntry, IdsEntry, MmEntry } from '../../../src/image/tree.ts';
import { fileName, images, pagesFile } from '../../../src/image/types.ts';

export const info: ImageInfo = {
  format: 1,
  tideover: '0.1.0',
  created: '2026-11-21T04:00:00.000Z',
  kernel: { release: '6.18.0', version: '#1 SMP' },
  machine: 'x86_64',
  pageSize: 4096,
  cpu: { vendor: 'AuthenticAMD', model: 'a CPU', features: ['sse2', 'avx'] },
};

export const CODE = 0x400000;
export const STACK = 0x7ffd_0000_0000;
export const SHARED = 0x7f00_0000_0000;
export const ARGS = 'sample\0--with\0arguments\0';

/** One page of a byte each, so that pages can be told apart. */
export const page = (fill: number) => new Uint8Array(PAGE_SIZE).fill(fill);

const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
const ids = (task: number): IdsEntry => ({ vm_id: task, files_id: task, fs_id: task, sighand_id: task });

export function core(tid: number, isLeader: boolean): CoreEntry {
  return {
    mtype: 'X86_64',
    thread_info: {
      clear_tid_addr: 0x7f0000000a10n,
      gpregs: {
        r15: 15n,
        r14: 14n,
        r13: 13n,
        r12: 12n,
        bp: 0n,
        bx: 2n ** 64n - 1n,
        r11: 0x246n,
        r10: 0n,
        r9: 0n,
        r8: 0n,
        ax: 0xfffffffffffffdfcn,
        cx: 0n,
        dx: 0n,
        si: 0n,
        di: 0n,
        orig_ax: 230n,
        ip: BigInt(CODE),
        cs: 0x33n,
        flags: 0x246n,
        sp: BigInt(STACK + 0x100),
        ss: 0x2bn,
        fs_base: BigInt(tid),
        gs_base: 0n,
        ds: 0n,
        es: 0n,
        fs: 0n,
        gs: 0n,
        mode: 'NATIVE',
      },
      fpregs: {
        cwd: 0x37f,
        swd: 0,
        twd: 0,
        fop: 0,
        rip: 0n,
        rdp: 0n,
        mxcsr: 0x1f80,
        mxcsr_mask: 0x2ffff,
        st_space: new Array(32).fill(0),
        xmm_space: Array.from({ length: 64 }, (_, i) => i),
        padding: [],
        xsave: {
          xstate_bv: 7n,
          ymmh_space: Array.from({ length: 64 }, (_, i) => i + 100),
          bndreg_state: [],
          bndcsr_state: [],
          opmask_reg: [],
          zmm_upper: [],
          hi16_zmm: [],
          pkru: [],
        },
      },
      tls: [],
    },
    ...(isLeader && {
      tc: {
        task_state: 1,
        exit_code: 0,
        personality: 0,
        flags: 0x400000,
        blk_sigset: 2n ** 63n,
        comm: 'sample',
        sigactions: [],
        cgroups: [],
      },
    }),
    thread_core: {
      futex_rla: 0n,
      futex_rla_len: 24,
      sched_nice: -5,
      sched_policy: 0,
      creds: {
        uid: 1000,
        gid: 1000,
        euid: 1000,
        egid: 1000,
        suid: 1000,
        sgid: 1000,
        fsuid: 1000,
        fsgid: 1000,
        cap_inh: [],
        cap_prm: [0, 0],
        cap_eff: [0, 0],
        cap_bnd: [0xffffffff, 0x1ff],
        secbits: 0,
        groups: [4, 27],
        cap_amb: [],
      },
      comm: isLeader ? 'sample' : 'worker',
    },
  };
}

const vma = (start: number, pages: number, status: number, shmid = 0, flags = 0x22) => ({
  start,
  end: start + pages * PAGE_SIZE,
  pgoff: 0,
  shmid,
  prot: 3,
  flags,
  status: VMA_AREA_REGULAR | status,
  fd: -1,
});

export const mm: MmEntry = {
  mm_start_code: CODE,
  mm_end_code: CODE + 0x1000,
  mm_start_data: CODE + 0x2000,
  mm_end_data: CODE + 0x3000,
  mm_start_stack: STACK,
  mm_start_brk: 0x500000,
  mm_brk: 0x500000,
  mm_arg_start: STACK + 0x200,
  mm_arg_end: STACK + 0x200 + ARGS.length,
  mm_env_start: STACK + 0x300,
  mm_env_end: STACK + 0x300,
  exe_file_id: 1,
  mm_saved_auxv: [6n, 4096n, 0n, 0n],
  vmas: [
    vma(CODE, 4, VMA_FILE_PRIVATE, 1, 2),
    vma(SHARED, 8, VMA_ANON_SHARED, 77, 0x21),
    vma(STACK, 16, VMA_ANON_PRIVATE | VMA_AREA_STACK),
    { ...vma(0, 1, VMA_AREA_VSYSCALL), start: 0xffffffffff600000, end: 0xffffffffff601000 },
  ],
  aios: [],
};

const reg = (id: number, name: string): FileEntry => ({
  type: 'REG',
  id,
  reg: { id, flags: 0o100000, pos: 0, fown, name, build_id: [] },
});

export const files: FileEntry[] = [
  reg(1, '/usr/bin/sample'),
  reg(2, '/tmp/not UTF-8: \udcff'),
  reg(3, '/'),
  { type: 'PIPE', id: 4, pipe: { id: 4, pipe_id: 9, flags: 0, fown } },
  { type: 'PIPE', id: 5, pipe: { id: 5, pipe_id: 9, flags: 1, fown } },
  reg(6, '/tmp/gone'),
];

/** Writes everything but commits nothing. */
export function writeSample(draft: ImageDraft): void {
  const root = { root_ids: ids(1), fdinfo_per_id: true, ns_per_id: true };
  writeEntries(draft.create('inventory.img'), images.INVENTORY, [{ img_version: 2, ...root }]);
  const pids = [100, 102];
  writeEntries(draft.create('pstree.img'), images.PSTREE, [
    { pid: 100, ppid: 0, pgid: 100, sid: 100, threads: [100, 101] },
    { pid: 102, ppid: 100, pgid: 100, sid: 100, threads: [102] },
  ]);
  for (const tid of [100, 101, 102]) {
    writeEntries(draft.create(fileName(images.CORE, tid)), images.CORE, [core(tid, tid !== 101)]);
  }
  for (const pid of pids) {
    writeEntries(draft.create(fileName(images.IDS, pid)), images.IDS, [ids(pid - 99)]);
    writeEntries(draft.create(fileName(images.MM, pid)), images.MM, [mm]);
    writeEntries(draft.create(fileName(images.FS, pid)), images.FS, [{ cwd_id: 3, root_id: 3, umask: 0o22 }]);
    writeEntries(draft.create(fileName(images.FDINFO, pid - 99)), images.FDINFO, [
      { id: 2, flags: 0, type: 'REG', fd: 0 },
      { id: 4, flags: 1, type: 'PIPE', fd: 3 },
      { id: 5, flags: 0, type: 'PIPE', fd: 4 },
      { id: 6, flags: 0, type: 'REG', fd: 5 },
    ]);
    const pagemap = new PagemapWriter(draft.create(fileName(images.PAGEMAP, pid)), pid);
    pagemap.run(CODE + PAGE_SIZE, 1, PE_PRESENT);
    pagemap.run(STACK, 2, PE_PRESENT);
    pagemap.close();
  }
  const shared = new PagemapWriter(draft.create(fileName(images.PAGEMAP, 'shmem-77')), 1);
  shared.run(0, 1, PE_PRESENT);
  shared.close();
  writeEntries(draft.create('files.img'), images.FILES, files);
  writeEntries(draft.create('remap-fpath.img'), images.REMAP_FPATH, [
    { orig_id: 6, remap_id: 26, remap_type: 'GHOST' },
  ]);
  const ghost = new ImageWriter(draft.create(fileName(images.GHOST_FILE, 26)), images.GHOST_FILE);
  ghost.head({ uid: 0, gid: 0, mode: 0o100644, ino: 2n ** 60n, chunks: true, size: 10_000 });
  ghost.entry({ len: 5, off: 4096 }, Buffer.from('ghost'));
  ghost.close();
  const pipes = new ImageWriter(draft.create('pipes-data.img'), images.PIPES_DATA);
  pipes.entry({ pipe_id: 9, bytes: 6, size: 65536 }, Buffer.from('flight'));
  pipes.close();
  const shm = draft.create(pagesFile(1), PAGE_SIZE);
  shm.write(page(7));
  shm.close();
  for (const pid of pids) {
    const stack = Buffer.alloc(2 * PAGE_SIZE, pid);
    stack.write(ARGS, 0x200, 'latin1');
    const sink = draft.create(pagesFile(pid), 3 * PAGE_SIZE);
    sink.write(page(pid + 100));
    sink.write(stack);
    sink.close();
  }
}

export function sample(): MemoryStore {
  const store = new MemoryStore();
  const draft = store.draft(info);
  writeSample(draft);
  draft.commit();
  return store;
}
