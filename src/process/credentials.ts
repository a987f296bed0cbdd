/** Who a thread is: credentials(7), capabilities(7), supplementary groups, no_new_privs. */
import { _LINUX_CAPABILITY_VERSION_3 } from '../abi/capability.ts';
import * as prctl from '../abi/prctl.ts';
import { NR } from '../abi/unistd.ts';
import type { creds_entry } from '../image/messages/task.ts';
import type { Value } from '../image/proto.ts';
import type { Status } from '../sys/stat.ts';
import type { Remote } from './remote.ts';

type Credentials = Value<typeof creds_entry>;

/** SECBIT_KEEP_CAPS of linux/securebits.h; execve(2) clears it. */
const SECBIT_NO_SETUID_FIXUP = 1 << 2;
const CAPABILITIES = 41;

/** Asks for what /proc does not tell. */
export function saveCredentials(remote: Remote): () => Credentials {
  const secbits = remote.call(NR.prctl, prctl.PR_GET_SECUREBITS);
  return () => credentialsOf(remote.tracee.status, remote.result(secbits));
}

let known: { readonly identity: string; readonly credentials: Credentials } | undefined;

/** As a rule all threads of a process have the same ones, and there may be thousands. */
export function credentialsOf(status: Status, secbits = 0): Credentials {
  const { identity } = status;
  if (known?.identity !== identity) known = { identity, credentials: read(status) };
  return { ...known.credentials, secbits };
}

function read(status: Status): Credentials {
  const [uid, euid, suid, fsuid] = status.Uid;
  const [gid, egid, sgid, fsgid] = status.Gid;
  return {
    ...{ uid: uid!, gid: gid!, euid: euid!, egid: egid!, suid: suid!, sgid: sgid!, fsuid: fsuid!, fsgid: fsgid! },
    cap_inh: words(status.CapInh),
    cap_prm: words(status.CapPrm),
    cap_eff: words(status.CapEff),
    cap_bnd: words(status.CapBnd),
    secbits: 0,
    groups: [...status.Groups],
    no_new_privs: status.NoNewPrivs ? 1 : 0,
    cap_amb: words(status.CapAmb),
  };
}

/** Adds the calls, in the order in which each is still allowed: the bounding set, groups, ids, then capabilities. */
export function restoreCredentials(remote: Remote, creds: Credentials, now: Credentials): void {
  const bounding = fromWords(creds.cap_bnd);
  const boundingNow = fromWords(now.cap_bnd);
  for (let cap = 0; cap < CAPABILITIES; cap++) {
    const bit = 1n << BigInt(cap);
    if ((boundingNow & bit) !== 0n && (bounding & bit) === 0n) remote.call(NR.prctl, prctl.PR_CAPBSET_DROP, cap);
  }
  // Ids are changed without effect on capabilities; those are set as they were afterwards.
  remote.call(NR.prctl, prctl.PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
  const groups = new Uint8Array(4 * creds.groups.length);
  for (const [i, group] of creds.groups.entries()) new DataView(groups.buffer).setUint32(4 * i, group, true);
  remote.call(NR.setgroups, creds.groups.length, remote.put(groups));
  remote.call(NR.setresgid, creds.gid, creds.egid, creds.sgid);
  remote.attempt(NR.setfsgid, creds.fsgid);
  remote.call(NR.setresuid, creds.uid, creds.euid, creds.suid);
  remote.attempt(NR.setfsuid, creds.fsuid);
  remote.call(NR.prctl, prctl.PR_SET_SECUREBITS, creds.secbits);
  const header = new Uint8Array(8);
  new DataView(header.buffer).setUint32(0, _LINUX_CAPABILITY_VERSION_3, true);
  const data = new Uint8Array(24);
  const view = new DataView(data.buffer);
  for (let word = 0; word < 2; word++) {
    view.setUint32(12 * word, creds.cap_eff[word] ?? 0, true);
    view.setUint32(12 * word + 4, creds.cap_prm[word] ?? 0, true);
    view.setUint32(12 * word + 8, creds.cap_inh[word] ?? 0, true);
  }
  remote.call(NR.capset, remote.put(header), remote.put(data));
  const ambient = fromWords(creds.cap_amb);
  for (let cap = 0; cap < CAPABILITIES; cap++) {
    if ((ambient & (1n << BigInt(cap))) === 0n) continue;
    remote.call(NR.prctl, prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_RAISE, cap, 0, 0);
  }
  if (creds.no_new_privs === 1) remote.call(NR.prctl, prctl.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

const NUMBERS = ['uid', 'gid', 'euid', 'egid', 'suid', 'sgid', 'fsuid', 'fsgid', 'secbits', 'no_new_privs'] as const;
const LISTS = ['cap_inh', 'cap_prm', 'cap_eff', 'cap_bnd', 'cap_amb', 'groups'] as const;

/** Whether two threads are the same to the kernel. */
export function sameCredentials(a: Credentials, b: Credentials): boolean {
  const equal = (one: readonly number[], other: readonly number[]) =>
    one.length === other.length && one.every((value, i) => value === other[i]);
  return NUMBERS.every((name) => a[name] === b[name]) && LISTS.every((name) => equal(a[name], b[name]));
}

function words(mask: bigint): number[] {
  return [Number(mask & 0xffff_ffffn), Number(mask >> 32n)];
}

function fromWords(list: readonly number[]): bigint {
  return BigInt(list[0] ?? 0) | (BigInt(list[1] ?? 0) << 32n);
}
