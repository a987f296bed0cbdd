/**
 * The image files of a checkpoint: name, magic, and which messages stand in each. The keys are the names that `crit`
 * shows; names and magics are those of CRIU v4.2. A file begins with the common magic and its own one (the inventory with
 * its own one only); then come entries, each a 32-bit size, a message and what belongs to it as raw bytes.
 */
import * as descriptors from './messages/descriptors.ts';
import * as files from './messages/files.ts';
import * as inventory from './messages/inventory.ts';
import * as ioUring from './messages/io_uring.ts';
import * as ipc from './messages/ipc.ts';
import * as machine from './messages/machine.ts';
import * as memory from './messages/memory.ts';
import * as namespaces from './messages/namespaces.ts';
import * as network from './messages/network.ts';
import * as sockets from './messages/sockets.ts';
import * as task from './messages/task.ts';
import * as tracking from './messages/tracking.ts';
import * as tty from './messages/tty.ts';
import type { Message } from './proto.ts';

export const IMG_COMMON_MAGIC = 0x54564319;
/** Of the files that belong to a run and not to the state: statistics, irmap-cache. */
export const IMG_SERVICE_MAGIC = 0x55105940;

/** A message and the raw bytes behind it. */
export interface Part<V> {
  readonly message: Message<V>;
  /** Number of raw bytes that follow; `rest` is what the file has left. */
  blob?(value: V, rest: number): number;
  /** They are filled up to a multiple of this. */
  readonly pad?: number;
}

export interface ImageType<E = unknown, H = unknown, I = unknown> {
  /** As crit names it. */
  readonly name: string;
  readonly magic: number;
  /** File name with `%u`, `%x` or `%s` where it has a number or word. */
  readonly file: string;
  readonly entry: Part<E>;
  /** Where the first message is another one. */
  readonly head?: Part<H>;
  /** Messages that follow each entry, `count` of them. */
  readonly inner?: { readonly part: Part<I>; count(entry: E): number };
}

interface Extras<E, H, I> {
  blob?(value: E, rest: number): number;
  pad?: number;
  head?: Part<H>;
  inner?: { readonly part: Part<I>; count(entry: E): number };
}

function type<E, H = never, I = never>(
  name: string,
  magic: number,
  file: string,
  message: Message<E>,
  { blob, pad, head, inner }: Extras<E, H, I> = {},
): ImageType<E, H, I> {
  const entry = { message, ...(blob && { blob }), ...(pad && { pad }) };
  return { name, magic, file, entry, ...(head && { head }), ...(inner && { inner }) };
}

export const images = {
  INVENTORY: type('INVENTORY', 0x58313116, 'inventory.img', inventory.inventory_entry),
  PSTREE: type('PSTREE', 0x50273030, 'pstree.img', task.pstree_entry),
  CORE: type('CORE', 0x55053847, 'core-%u.img', task.core_entry),
  IDS: type('IDS', 0x54432030, 'ids-%u.img', task.task_kobj_ids_entry),
  MM: type('MM', 0x57492820, 'mm-%u.img', memory.mm_entry),
  PAGEMAP: type('PAGEMAP', 0x56084025, 'pagemap-%s.img', memory.pagemap_entry, {
    head: { message: memory.pagemap_head },
  }),
  FILES: type('FILES', 0x56303138, 'files.img', files.file_entry),
  FDINFO: type('FDINFO', 0x56213732, 'fdinfo-%u.img', files.fdinfo_entry),
  FS: type('FS', 0x51403912, 'fs-%u.img', files.fs_entry),
  REMAP_FPATH: type('REMAP_FPATH', 0x59133954, 'remap-fpath.img', files.remap_file_path_entry),
  GHOST_FILE: type('GHOST_FILE', 0x52583605, 'ghost-file-%x.img', files.ghost_chunk_entry, {
    head: { message: files.ghost_file_entry, blob: (entry, rest) => (entry.chunks ? 0 : rest) },
    blob: (entry) => entry.len,
  }),
  PIPES_DATA: type('PIPES_DATA', 0x56453709, 'pipes-data.img', descriptors.pipe_data_entry, {
    blob: (entry) => entry.bytes,
  }),
  FIFO_DATA: type('FIFO_DATA', 0x59333054, 'fifo-data.img', descriptors.pipe_data_entry, {
    blob: (entry) => entry.bytes,
  }),
  SK_QUEUES: type('SK_QUEUES', 0x56264026, 'sk-queues.img', sockets.sk_packet_entry, {
    blob: (entry) => entry.length,
  }),
  TCP_STREAM: type('TCP_STREAM', 0x51465506, 'tcp-stream-%x.img', sockets.tcp_stream_entry, {
    blob: (entry) => entry.inq_len + entry.outq_len,
  }),
  FILE_LOCKS: type('FILE_LOCKS', 0x54323616, 'filelocks.img', files.file_lock_entry),
  TTY_INFO: type('TTY_INFO', 0x59453036, 'tty-info.img', tty.tty_info_entry),
  TTY_DATA: type('TTY_DATA', 0x59413026, 'tty-data.img', tty.tty_data_entry),
  MEMFD_INODE: type('MEMFD_INODE', 0x48453499, 'memfd.img', descriptors.memfd_inode_entry),
  SECCOMP: type('SECCOMP', 0x64413049, 'seccomp.img', task.seccomp_entry),
  CGROUP: type('CGROUP', 0x59383330, 'cgroup.img', namespaces.cgroup_entry),
  UTSNS: type('UTSNS', 0x54473203, 'utsns-%u.img', namespaces.utsns_entry),
  USERNS: type('USERNS', 0x55474906, 'userns-%u.img', namespaces.userns_entry),
  PIDNS: type('PIDNS', 0x61157326, 'pidns-%u.img', namespaces.pidns_entry),
  TIMENS: type('TIMENS', 0x43114433, 'timens-%u.img', namespaces.timens_entry),
  IPC_VAR: type('IPC_VAR', 0x53115007, 'ipcns-var-%u.img', ipc.ipc_var_entry),
  IPCNS_SHM: type('IPCNS_SHM', 0x46283044, 'ipcns-shm-%u.img', ipc.ipc_shm_entry, {
    blob: (entry) => (entry.in_pagemaps ? 0 : entry.size),
    pad: 4,
  }),
  IPCNS_SEM: type('IPCNS_SEM', 0x59573019, 'ipcns-sem-%u.img', ipc.ipc_sem_entry, {
    blob: (entry) => 2 * entry.nsems,
    pad: 8,
  }),
  IPCNS_MSG: type('IPCNS_MSG', 0x55453737, 'ipcns-msg-%u.img', ipc.ipc_msg_entry, {
    inner: {
      part: { message: ipc.ipc_msg, blob: (entry) => entry.msize, pad: 8 },
      count: (entry) => entry.qnum,
    },
  }),
  MNTS: type('MNTS', 0x55563928, 'mountpoints-%u.img', namespaces.mnt_entry),
  AUTOFS: type('AUTOFS', 0x49353943, 'autofs-%u.img', namespaces.autofs_entry),
  BINFMT_MISC: type('BINFMT_MISC', 0x67343323, 'binfmt-misc.img', namespaces.binfmt_misc_entry),
  NETNS: type('NETNS', 0x55933752, 'netns-%u.img', network.netns_entry),
  NETDEV: type('NETDEV', 0x57373951, 'netdev-%u.img', network.net_device_entry),
  CPUINFO: type('CPUINFO', 0x61404013, 'cpuinfo.img', machine.cpuinfo_entry),
  APPARMOR: type('APPARMOR', 0x59423047, 'apparmor.img', namespaces.apparmor_entry),
  BPFMAP_DATA: type('BPFMAP_DATA', 0x64324033, 'bpfmap-data.img', descriptors.bpfmap_data_entry, {
    blob: (entry) => entry.keys_bytes + entry.values_bytes,
  }),
  STATS: type('STATS', 0x57093306, 'stats-%s', inventory.stats_entry),
  IRMAP_CACHE: type('IRMAP_CACHE', 0x57004059, 'irmap-cache', descriptors.irmap_cache_entry),

  // Not of CRIU.
  IO_URING: type('IO_URING', 0x54444931, 'io-uring.img', ioUring.io_uring_file_entry),
  TRACKING: type('TRACKING', 0x54444932, 'tracking.img', tracking.tracking_entry),
  GROUP_SETTINGS: type('GROUP_SETTINGS', 0x54444934, 'group-settings.img', namespaces.cgroup_entry),

  // An older CRIU: a file for each kind, where the union of FILES stands now.
  REG_FILES: type('REG_FILES', 0x50363636, 'reg-files.img', descriptors.reg_file_entry),
  EXT_FILES: type('EXT_FILES', 0x59255641, 'ext-files.img', descriptors.ext_file_entry),
  NS_FILES: type('NS_FILES', 0x61394011, 'ns-files.img', descriptors.ns_file_entry),
  EVENTFD_FILE: type('EVENTFD_FILE', 0x44523722, 'eventfd.img', descriptors.eventfd_file_entry),
  EVENTPOLL_FILE: type('EVENTPOLL_FILE', 0x45023858, 'eventpoll.img', descriptors.eventpoll_file_entry),
  EVENTPOLL_TFD: type('EVENTPOLL_TFD', 0x44433746, 'eventpoll-tfd.img', descriptors.eventpoll_tfd_entry),
  SIGNALFD: type('SIGNALFD', 0x57323820, 'signalfd.img', descriptors.signalfd_entry),
  INOTIFY_FILE: type('INOTIFY_FILE', 0x48424431, 'inotify.img', descriptors.inotify_file_entry),
  INOTIFY_WD: type('INOTIFY_WD', 0x54562009, 'inotify-wd.img', descriptors.inotify_wd_entry),
  FANOTIFY_FILE: type('FANOTIFY_FILE', 0x55096122, 'fanotify.img', descriptors.fanotify_file_entry),
  FANOTIFY_MARK: type('FANOTIFY_MARK', 0x56506035, 'fanotify-mark.img', descriptors.fanotify_mark_entry),
  TIMERFD: type('TIMERFD', 0x50493712, 'timerfd.img', descriptors.timerfd_entry),
  PIDFD: type('PIDFD', 0x54435556, 'pidfd.img', descriptors.pidfd_entry),
  BPFMAP_FILE: type('BPFMAP_FILE', 0x57506142, 'bpfmap-file.img', descriptors.bpfmap_file_entry),
  PIPES: type('PIPES', 0x56513555, 'pipes.img', descriptors.pipe_entry),
  FIFO: type('FIFO', 0x58364939, 'fifo.img', descriptors.fifo_entry),
  TTY_FILES: type('TTY_FILES', 0x59433025, 'tty.img', tty.tty_file_entry),
  UNIXSK: type('UNIXSK', 0x54373943, 'unixsk.img', sockets.unix_sk_entry),
  INETSK: type('INETSK', 0x56443851, 'inetsk.img', sockets.inet_sk_entry),
  PACKETSK: type('PACKETSK', 0x60454618, 'packetsk.img', sockets.packet_sock_entry),
  NETLINK_SK: type('NETLINK_SK', 0x58005614, 'netlinksk.img', sockets.netlink_sk_entry),
  TUNFILE: type('TUNFILE', 0x57143751, 'tunfile.img', network.tunfile_entry),

  // An older CRIU still: what is now within CORE and MM.
  CREDS: type('CREDS', 0x54023547, 'creds-%u.img', task.creds_entry),
  SIGACT: type('SIGACT', 0x55344201, 'sigacts-%u.img', task.sa_entry),
  RLIMIT: type('RLIMIT', 0x57113925, 'rlimit-%u.img', task.rlimit_entry),
  ITIMERS: type('ITIMERS', 0x57464056, 'itimers-%u.img', task.itimer_entry),
  POSIX_TIMERS: type('POSIX_TIMERS', 0x52603957, 'posix-timers-%u.img', task.posix_timer_entry),
  SIGNAL: type('SIGNAL', 0x59255647, 'signal-%s.img', task.siginfo_entry),
  VMAS: type('VMAS', 0x54123737, 'vmas-%u.img', memory.vma_entry),
} as const;

const byMagic = new Map<number, ImageType>(Object.values(images).map((image) => [image.magic, image as ImageType]));
const byName = new Map<string, ImageType>(Object.entries(images).map(([name, image]) => [name, image as ImageType]));

export function typeOfMagic(magic: number): ImageType | undefined {
  return byMagic.get(magic);
}

/** @param name as crit writes it: PSTREE */
export function typeByName(name: string): ImageType | undefined {
  return byName.get(name);
}

/** Files of other programs' formats or none: page contents, and what ip, iptables, nft and tar wrote. */
const RAW =
  /^(pages-\d+|deduped|(ifaddr|route6?|rule|ip6?tables|nftables|neighbours|nf-tables|netns-ct|netns-exp)-\d+|tmpfs(-dev)?-\d+\.tar\.gz)\.img$/;

/** Whether the file has no magic and no entries. */
export function isRaw(file: string): boolean {
  return RAW.test(file);
}

const patterns = Object.values(images).map((image) => ({ image: image as ImageType, pattern: patternOf(image) }));

function patternOf({ file }: { readonly file: string }): RegExp {
  const name = file.replaceAll('.', '\\.').replace('%u', '(\\d+)').replace('%x', '([0-9a-f]+)');
  return new RegExp(`^${name.replace('%s', '([a-z0-9-]+)')}$`);
}

/** What an image of this name has in it, by the rules of its name; undefined for raw files and those of no image. */
export function typeOfFile(file: string): ImageType | undefined {
  return isRaw(file) ? undefined : patterns.find(({ pattern }) => pattern.test(file))?.image;
}

/** `fileName(images.CORE, 17)` is `core-17.img`. */
export function fileName(image: { readonly file: string }, id: number | string = ''): string {
  const { file } = image;
  const at = file.indexOf('%');
  if (at < 0) return file;
  return `${file.slice(0, at)}${file[at + 1] === 'x' ? Number(id).toString(16) : id}${file.slice(at + 2)}`;
}

/** Files that a page server gets: which memory there is, and what is in it. */
export function isMemory(file: string): boolean {
  return PAGEMAP.test(file) || /^pages-\d+\.img$/.test(file);
}

const PAGEMAP = patternOf(images.PAGEMAP);

/** Empty; stands in an image of which some pages are in a later one alone; see dedup.ts. */
export const DEDUPED = 'deduped.img';

export function pagesFile(pagesId: number): string {
  return `pages-${pagesId}.img`;
}
