/**
 * Rules for packets of a network namespace: nf_tables, whose objects the kernel takes as it tells them, but for what it counts itself.
 * All are made at once, so that they may refer to each other. This thread is in the namespace.
 */
import { Errno } from '../abi/errno.ts';
import * as nl from '../abi/netlink.ts';
import * as nft from '../abi/nf_tables.ts';
import { viewOf } from '../abi/struct.ts';
import { textOf } from '../abi/text.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { attribute, type NetlinkMessage, NetlinkSocket, parseAttributes, withoutAttributes } from '../sys/netlink.ts';
import { nftBatch } from '../sys/nftables.ts';
import { readProcText } from '../sys/proc.ts';

/** Messages by which each object is made, in the order in which they are. */
export type RuleSet = readonly Pick<NetlinkMessage, 'type' | 'payload'>[];

/** How objects are asked for, and attributes of them that are not to be given: handles, numbers of users, what is padding. */
const KINDS = [
  { get: nft.NFT_MSG_GETTABLE, make: nft.NFT_MSG_NEWTABLE, drop: [3, 4, 5] },
  { get: nft.NFT_MSG_GETCHAIN, make: nft.NFT_MSG_NEWCHAIN, drop: [2, 6, 9] },
  { get: nft.NFT_MSG_GETOBJ, make: nft.NFT_MSG_NEWOBJ, drop: [5, 6, 7] },
  { get: nft.NFT_MSG_GETFLOWTABLE, make: nft.NFT_MSG_NEWFLOWTABLE, drop: [4, 5, 6] },
  { get: nft.NFT_MSG_GETSET, make: nft.NFT_MSG_NEWSET, drop: [10, 14, 16, 19, 20] },
  { get: nft.NFT_MSG_GETSETELEM, make: nft.NFT_MSG_NEWSETELEM, drop: [] },
  { get: nft.NFT_MSG_GETRULE, make: nft.NFT_MSG_NEWRULE, drop: [3, 6, 8] },
] as const;
const SUBSYSTEM = nft.NFNL_SUBSYS_NFTABLES << 8;
const HEAD = nft.nfgenmsg.size;

/** @returns none where the kernel has no nf_tables @throws UnsupportedError for a table that goes with the program that made it */
export function saveRuleSet(): RuleSet {
  const all = nft.nfgenmsg.write({});
  try {
    const socket = new NetlinkSocket(nl.NETLINK_NETFILTER);
    try {
      const found: RuleSet[number][] = [];
      let sets: NetlinkMessage[] = [];
      for (const { get, make, drop } of KINDS) {
        const questions = get === nft.NFT_MSG_GETSETELEM ? sets.map(elementsOf) : [all];
        const answers = questions.flatMap((question) => socket.dump(SUBSYSTEM | get, question));
        if (get === nft.NFT_MSG_GETSET) sets = answers;
        if (get === nft.NFT_MSG_GETTABLE) for (const { payload } of answers) refuseOwned(payload);
        for (const [i, { payload }] of answers.entries()) {
          const number = new Uint8Array(4);
          viewOf(number).setUint32(0, i + 1);
          const added = make === nft.NFT_MSG_NEWSET ? [attribute(nft.NFTA_SET_ID, number)] : [];
          found.push({ type: make, payload: Buffer.concat([withoutAttributes(payload, HEAD, drop), ...added]) });
        }
      }
      return found;
    } finally {
      socket[Symbol.dispose]();
    }
  } catch (error) {
    if (error instanceof SyscallError && ABSENT.includes(error.errno)) return [];
    throw error;
  }
}

const ABSENT: readonly number[] = [Errno.EPROTONOSUPPORT, Errno.EOPNOTSUPP, Errno.EINVAL];

function elementsOf({ payload }: NetlinkMessage): Uint8Array {
  const set = parseAttributes(payload.subarray(HEAD));
  return Buffer.concat([
    payload.subarray(0, HEAD),
    attribute(nft.NFTA_SET_ELEM_LIST_TABLE, set.get(nft.NFTA_SET_TABLE)!),
    attribute(nft.NFTA_SET_ELEM_LIST_SET, set.get(nft.NFTA_SET_NAME)!),
  ]);
}

function refuseOwned(payload: Uint8Array): void {
  const table = parseAttributes(payload.subarray(HEAD));
  if (!table.has(nft.NFTA_TABLE_OWNER)) return;
  const what = `packet filter table ${textOf(table.get(nft.NFTA_TABLE_NAME)!).replace(/\0$/, '')}`;
  throw new UnsupportedError({ what, why: 'it goes when the program that made it ends', remedy: 'end that program' });
}

/** Makes all of them, or none. @throws SyscallError what the kernel says to the first that it does not take */
export function restoreRuleSet(rules: RuleSet): void {
  if (rules.length === 0) return;
  const socket = new NetlinkSocket(nl.NETLINK_NETFILTER);
  try {
    // A rule behind the one before.
    const flags = nl.NLM_F_CREATE | nl.NLM_F_APPEND;
    socket.batch(nftBatch(rules.map(({ type, payload }) => ({ type: SUBSYSTEM | (type & 0xff), flags, payload }))));
  } finally {
    socket[Symbol.dispose]();
  }
}

/** Tables of iptables before nf_tables. @throws UnsupportedError where there are any */
export function refuseOldTables(): void {
  for (const name of ['ip_tables_names', 'ip6_tables_names']) {
    let names: string;
    try {
      names = readProcText(`/proc/self/net/${name}`).trim();
    } catch {
      continue;
    }
    if (names === '') continue;
    throw new UnsupportedError({
      what: `tables of iptables (${names.split('\n').join(', ')})`,
      why: 'rules of its old form cannot be saved yet',
      remedy: 'make them with iptables-nft or nft(8)',
    });
  }
}
