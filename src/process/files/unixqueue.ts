/** What waits in sockets of the UNIX domain: bytes, messages, and descriptors that travel in them (SCM_RIGHTS of unix(7)). */
import { FIONREAD } from '../../abi/poll.ts';
import { SCM_RIGHTS, SO_SNDBUFFORCE, SOCK_DGRAM, SOL_SOCKET } from '../../abi/socket.ts';
import type { sk_packet_entry } from '../../image/messages/sockets.ts';
import type { Value } from '../../image/proto.ts';
import { close, ioctlInt } from '../../sys/files.ts';
import type { Messages } from '../../sys/message.ts';
import { setOption } from '../../sys/socket.ts';
import { peekQueue } from './socket.ts';

/** A message in a socket's queue. */
export interface Packet {
  readonly entry: Value<typeof sk_packet_entry>;
  readonly bytes: Uint8Array;
}

/** Room for any message: more than net.core.wmem_max is set to. */
export const LARGEST_MESSAGE = 4 << 20;

/**
 * Reads what waits in a socket; it stays there.
 *
 * @param local a descriptor of it here
 * @param keep saves an open file that is in flight, by a descriptor here @returns its id
 */
export function saveQueue(
  { local, id, type }: { local: number; id: number; type: number },
  messages: Messages,
  keep: (fd: number) => number,
): Packet[] {
  const size = type === SOCK_DGRAM ? undefined : ioctlInt(local, FIONREAD);
  return peekQueue(local, size, messages).map(({ bytes, descriptors }) => {
    try {
      const rights = descriptors.map(keep);
      const scm = rights.length === 0 ? [] : [{ type: SCM_RIGHTS, rights }];
      return { entry: { id_for: id, length: bytes.length, scm }, bytes };
    } finally {
      for (const fd of descriptors) close({ fd });
    }
  });
}

/**
 * Sends again what waited.
 *
 * @param from a socket that may send to it @param to its address, where they are not connected
 * @param open opens a file of the image
 */
export function refillQueue(
  from: number,
  packets: readonly Packet[],
  messages: Messages,
  open: (id: number) => number,
  to?: Uint8Array,
): void {
  const size = packets.reduce((sum, { bytes }) => sum + bytes.length + OVERHEAD, 0);
  setOption(from, SOL_SOCKET, SO_SNDBUFFORCE, size);
  for (const { entry, bytes } of packets) {
    let descriptors = entry.scm.flatMap(({ rights }) => rights.map(open));
    for (let done = 0; ; ) {
      done += messages.send(from, bytes.subarray(done, done + LARGEST_MESSAGE), descriptors, to);
      descriptors = [];
      if (done >= bytes.length) break;
    }
  }
}

/** What a message takes in the kernel beside its bytes. */
const OVERHEAD = 4096;
