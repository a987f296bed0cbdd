/** Namespaces other than those of IPC and the network, control groups, mounts, AppArmor. */
import {
  bool,
  bytes,
  enumeration,
  i32,
  lazy,
  type Message,
  message,
  repeated,
  required,
  string,
  type Unknown,
  u32,
  u64n,
  type Value,
} from '../proto.ts';

export const utsns_entry = message('utsns_entry', {
  nodename: [1, string, required],
  domainname: [2, string, required],
});

export const uid_gid_extent = message('uid_gid_extent', {
  first: [1, u32, required],
  lower_first: [2, u32, required],
  count: [3, u32, required],
});

export const userns_entry = message('userns_entry', {
  uid_map: [1, uid_gid_extent, repeated],
  gid_map: [2, uid_gid_extent, repeated],
});

export const pidns_entry = message('pidns_entry', {
  ext_key: [1, string],
});

export const timespec = message('timespec', {
  tv_sec: [1, u64n, required],
  tv_nsec: [2, u64n, required],
});

/** What the clocks showed when the image was made. */
export const timens_entry = message('timens_entry', {
  monotonic: [1, timespec, required],
  boottime: [2, timespec, required],
});

/** mnt_entry.fstype. */
export const fstype = enumeration('fstype', {
  UNSUPPORTED: 0,
  PROC: 1,
  SYSFS: 2,
  DEVTMPFS: 3,
  BINFMT_MISC: 4,
  TMPFS: 5,
  DEVPTS: 6,
  SIMFS: 7,
  PSTORE: 8,
  SECURITYFS: 9,
  FUSECTL: 10,
  DEBUGFS: 11,
  CGROUP: 12,
  AUFS: 13,
  MQUEUE: 14,
  FUSE: 15,
  AUTO: 16,
  OVERLAYFS: 17,
  AUTOFS: 18,
  TRACEFS: 19,
  CGROUP2: 23,
});

/** A line of mountinfo. */
export const mnt_entry = message('mnt_entry', {
  fstype: [1, u32, required],
  mnt_id: [2, u32, required],
  root_dev: [3, u32, required],
  parent_mnt_id: [4, u32, required],
  flags: [5, u32, required],
  root: [6, string, required],
  mountpoint: [7, string, required],
  source: [8, string, required],
  options: [9, string, required],
  shared_id: [10, u32],
  master_id: [11, u32],
  with_plugin: [12, bool],
  ext_mount: [13, bool],
  fsname: [14, string],
  internal_sharing: [15, bool],
  deleted: [16, bool],
  sb_flags: [17, u32],
  ext_key: [18, string],
});

/** Mount options of autofs. */
export const autofs_entry = message('autofs_entry', {
  fd: [1, i32, required],
  pgrp: [2, i32, required],
  timeout: [3, i32, required],
  minproto: [4, i32, required],
  maxproto: [5, i32, required],
  mode: [6, i32, required],
  uid: [7, i32],
  gid: [8, i32],
  read_fd: [9, i32],
});

export const binfmt_misc_entry = message('binfmt_misc_entry', {
  name: [1, string, required],
  enabled: [2, bool, required],
  interpreter: [3, string, required],
  flags: [4, string],
  extension: [5, string],
  magic: [6, string],
  mask: [7, string],
  offset: [8, i32],
});

export const cgroup_perms = message('cgroup_perms', {
  mode: [1, u32, required],
  uid: [2, u32, required],
  gid: [3, u32, required],
});

export const cgroup_prop_entry = message('cgroup_prop_entry', {
  name: [1, string, required],
  value: [2, string, required],
  perms: [3, cgroup_perms],
});

/** A control group with the groups within it. */
export interface CgroupDir extends Unknown {
  dir_name: string;
  children: CgroupDir[];
  properties: Value<typeof cgroup_prop_entry>[];
  dir_perms?: Value<typeof cgroup_perms> | undefined;
}

export const cgroup_dir_entry: Message<CgroupDir> = message('cgroup_dir_entry', {
  dir_name: [1, string, required],
  children: [2, lazy(() => cgroup_dir_entry), repeated],
  properties: [3, cgroup_prop_entry, repeated],
  dir_perms: [4, cgroup_perms],
});

export const cg_controller_entry = message('cg_controller_entry', {
  cnames: [1, string, repeated],
  dirs: [2, cgroup_dir_entry, repeated],
  is_threaded: [3, bool],
});

export const cg_member_entry = message('cg_member_entry', {
  name: [1, string, required],
  path: [2, string, required],
  cgns_prefix: [3, u32],
});

export const cg_set_entry = message('cg_set_entry', {
  id: [1, u32, required],
  ctls: [2, cg_member_entry, repeated],
});

/** Sets of memberships, and the groups with their properties. */
export const cgroup_entry = message('cgroup_entry', {
  sets: [1, cg_set_entry, repeated],
  controllers: [2, cg_controller_entry, repeated],
});

export const aa_policy = message('aa_policy', {
  name: [1, string, required],
  blob: [2, bytes, required],
});

/** A namespace of AppArmor with those within it. */
export interface AppArmorNamespace extends Unknown {
  name: string;
  policies: Value<typeof aa_policy>[];
  namespaces: AppArmorNamespace[];
}

export const aa_namespace: Message<AppArmorNamespace> = message('aa_namespace', {
  name: [1, string, required],
  policies: [2, aa_policy, repeated],
  namespaces: [3, lazy(() => aa_namespace), repeated],
});

/** Policies of AppArmor. */
export const apparmor_entry = message('apparmor_entry', {
  namespaces: [1, aa_namespace, repeated],
});
