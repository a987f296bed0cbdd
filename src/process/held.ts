/**
 * The TCP connections of an image that is not restored yet. To a packet for one of them a kernel that has never heard of it answers
 * with a reset, which ends it; so they are held back from before the network is up until the restore.
 */
import type { ImageStore } from '../image/store.ts';
import { readTree } from '../image/tree.ts';
import type { Connection } from '../sys/nftables.ts';
import { connectionsOf } from './files/inet.ts';
import { connectionOf, holdPackets, releasePackets } from './files/tcp.ts';
import { ownNamespaces } from './namespaces.ts';

/** Those of the network namespace that this process is in. A namespace that the image has for itself comes with its restore. */
export function savedConnections(image: ImageStore): Connection[] {
  const tree = readTree(image);
  return ownNamespaces(tree).has('net') ? [] : connectionsOf(tree).map(([own, peer]) => connectionOf(own, peer));
}

/** Drops packets of the image's connections; its restore lets them through again. */
export function holdConnections(image: ImageStore): void {
  holdPackets(savedConnections(image));
}

/** Lets packets of the image's connections through, where it is given up. To one that comes then the kernel answers with a reset. */
export function releaseConnections(image: ImageStore): void {
  releasePackets(savedConnections(image));
}
