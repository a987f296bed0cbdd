/**
 * What whoever reads and writes a remote file waits for: ssh(1) with the other machine's SFTP server, or, for HTTP, a process of this
 * program that answers as one. They are processes because what calls them stands still until it has its bytes.
 */
import { spawn } from 'node:child_process';
import { O_CLOEXEC } from '../abi/fcntl.ts';
import { append } from '../crash/io/output.ts';
import { close, makePipe } from '../sys/files.ts';
import { PiecesFile } from './pieces.ts';
import type { HttpPlace, SshPlace } from './place.ts';
import * as sftp from './sftp.ts';
import { type Keys, sshArguments } from './ssh.ts';

/** What the other process of an HTTP file is told. */
type HttpFile = Pick<HttpPlace, 'server' | 'url'>;

/**
 * Opens a place as a file, which is made where there is none.
 *
 * @param program of tideover, which has `hibernate remote` @throws Error with what the server says
 */
export function openPlace(place: SshPlace | HttpPlace, keys?: Keys, program: string = process.argv[1]!): sftp.Remote {
  const [command, args] =
    place.kind === 'ssh'
      ? ['ssh', ['-s', ...sshArguments(place, keys), 'sftp']]
      : [process.execPath, [...process.execArgv, program, 'hibernate', 'remote']];
  const { reader: theirs, writer: to } = makePipe(O_CLOEXEC);
  const { reader: from, writer: back } = makePipe(O_CLOEXEC);
  const child = spawn(command, args, { stdio: [theirs, back, 'inherit'] });
  // Whether it could be started is seen by what it answers.
  child.once('error', () => {});
  child.unref();
  close({ fd: theirs });
  close({ fd: back });
  try {
    const file: HttpFile | undefined = place.kind === 'http' ? { server: place.server, url: place.url } : undefined;
    return sftp.openRemote(place.text, to, from, file === undefined ? (place as SshPlace).path : JSON.stringify(file));
  } catch (error) {
    close({ fd: to });
    close({ fd: from });
    throw error;
  }
}

/** Ends the other process too. @throws Error where the last of it could not be written */
export function closePlace(remote: sftp.Remote): void {
  try {
    sftp.closeRemote(remote);
  } finally {
    close({ fd: remote.to });
    close({ fd: remote.from });
  }
}

/**
 * Speaks SFTP on two descriptors for one file, which is on an HTTP server. Ends when what is asked does. What is read from is waited for
 * without anything else being done: there is nothing under way then.
 *
 * @throws Error where it is no SFTP
 */
export async function serveHttpFile(from: number, to: number): Promise<void> {
  const output = (bytes: Uint8Array) => append(to, bytes);
  const answer = Buffer.alloc(sftp.PIECE);
  let file: PiecesFile | undefined;
  for (let found = sftp.readPacket(from); found !== undefined; found = sftp.readPacket(from)) {
    const [type] = found;
    const body = found.subarray(1);
    if (type === sftp.SSH_FXP_INIT) {
      output(sftp.packet(sftp.SSH_FXP_VERSION, sftp.u32(3)));
      continue;
    }
    const id = Uint8Array.from(body.subarray(0, 4));
    const status = (code: number, message = '') =>
      output(sftp.packet(sftp.SSH_FXP_STATUS, id, sftp.u32(code), sftp.text(message), sftp.text('')));
    try {
      if (type === sftp.SSH_FXP_OPEN) {
        const { server, url } = JSON.parse(sftp.stringAt(body, 4).toString()) as HttpFile;
        file = new PiecesFile({ server }, url);
        output(sftp.packet(sftp.SSH_FXP_HANDLE, id, sftp.text('file')));
        continue;
      }
      if (file === undefined) throw new Error('nothing is open');
      const behind = 8 + sftp.stringAt(body, 4).length;
      if (type === sftp.SSH_FXP_READ) {
        const wanted = answer.subarray(0, body.readUInt32BE(behind + 8));
        const length = await file.read(Number(body.readBigUInt64BE(behind)), wanted);
        if (length === 0) status(sftp.SSH_FX_EOF);
        else {
          output(sftp.packetBefore(length, sftp.SSH_FXP_DATA, id, sftp.u32(length)));
          output(wanted.subarray(0, length));
        }
      } else if (type === sftp.SSH_FXP_WRITE) {
        await file.write(Number(body.readBigUInt64BE(behind)), sftp.stringAt(body, behind + 8));
        status(sftp.SSH_FX_OK);
      } else if (
        type === sftp.SSH_FXP_CLOSE ||
        (type === sftp.SSH_FXP_EXTENDED && sftp.stringAt(body, 4).toString() === sftp.FSYNC)
      ) {
        await file.sync();
        status(sftp.SSH_FX_OK);
      } else throw new Error(`packet ${type} is not known here`);
    } catch (error) {
      status(sftp.SSH_FX_FAILURE, (error as Error).message);
    }
  }
}
