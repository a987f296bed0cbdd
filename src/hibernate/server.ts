/** Images on servers: a file on NFS, one that is reached by ssh, or one that is in pieces on an HTTP server. */
import { closeSync, mkdtempSync, openSync, rmdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { umount2 } from '../sys/mount.ts';
import { closePlace, openPlace } from '../target/bridge.ts';
import { MOUNT_POINT, mountNfs } from '../target/mount.ts';
import { connect } from '../target/network.ts';
import { type FoundPlace, findPlace, type NetworkPlace } from '../target/place.ts';
import { OWN_HOSTS } from '../target/ssh.ts';
import type { Place } from './place.ts';

/** A place on a server, open. */
export interface OpenPlace {
  readonly place: Place;
  /** Ends what it takes to get there. @throws Error where the last of it could not be written */
  close(): void;
}

/** Whether what the user names is on a server. */
export function isServer(text: string): boolean {
  return /^(nfs|ssh|https?):/.test(text);
}

/** A place with what the kernels that save and restore need to get there. */
export interface FoundServer extends FoundPlace {
  readonly place: NetworkPlace;
  readonly sshKey: string;
}

/** @param sshKey a key without a passphrase @throws UnsupportedError where they could not get there */
export async function findServer(text: string, sshKey: string): Promise<FoundServer> {
  const found = await findPlace(text, { purpose: 'a hibernation image at', sshKey });
  const place = found.place as NetworkPlace;
  // Drivers by alias too: the other kernel may have others, and what it has built in is no module.
  const modules = place.kind === 'nfs' ? ['nfs'] : [];
  return { ...found, place, modules, aliases: [...found.modules, ...found.aliases], sshKey };
}

/** In the running system, over its own network. The file is made if there is none. @throws Error, SyscallError */
export function openFromHere({ place, sshKey }: FoundServer): OpenPlace {
  if (place.kind === 'nfs') return openNfs(place, mkdtempSync('/run/tideover-'));
  return remotePlace(openPlace(place, { key: sshKey, known: OWN_HOSTS }));
}

/** In the kernels that save and restore, which have no network yet. @throws Error, SyscallError */
export async function openFromThere(place: NetworkPlace): Promise<OpenPlace> {
  await connect(place);
  return place.kind === 'nfs' ? openNfs(place, MOUNT_POINT) : remotePlace(openPlace(place));
}

function remotePlace(remote: NonNullable<Place['remote']>): OpenPlace {
  return { place: { path: remote.name, remote }, close: () => closePlace(remote) };
}

function openNfs(place: NetworkPlace & { kind: 'nfs' }, at: string): OpenPlace {
  const leave = () => {
    if (at !== MOUNT_POINT) rmdirSync(at);
  };
  const close = () => {
    umount2({ target: at, flags: 0 });
    leave();
  };
  try {
    mountNfs({ ...place, exported: dirname(place.exported) }, at);
  } catch (error) {
    leave();
    throw error;
  }
  const path = join(at, basename(place.exported));
  try {
    closeSync(openSync(path, 'a', 0o600));
  } catch (error) {
    close();
    throw error;
  }
  return { place: { path, isCached: true }, close };
}
